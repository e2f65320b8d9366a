"""A trained stack for others: as a program of PyTorch or ONNX, which needs no layerwise, or as a folder to be loaded.

A program takes pixels (n, C, H, W) uint8, of any n, and gives logits (n, classes) float32.
"""

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from layerwise.data.images import to_input
from layerwise.errors import SettingError
from layerwise.nn.stack import FrozenStack
from layerwise.run.files import commit, write_json, write_tensors, write_text
from layerwise.run.folder import FORMAT
from layerwise.trained import MODEL, TrainedStack


class _Classifier(nn.Module):
    """From pixels to logits."""

    def __init__(self, stack: FrozenStack) -> None:
        super().__init__()
        self.stack = stack

    def forward(self, images: Tensor) -> Tensor:
        *_, logits = self.stack.said(to_input(images))
        return logits


def program(trained: TrainedStack) -> ExportedProgram:
    """The stack as operators of plain PyTorch, for a batch of any size."""
    images = torch.zeros(2, *trained.input_shape, dtype=torch.uint8)
    return torch.export.export(_Classifier(trained.to("cpu").stack), (images,), dynamic_shapes=({0: Dim("n")},))


def about(trained: TrainedStack) -> dict[str, str]:
    """What goes with a program: names of the classes, the shape of an image, accuracy on validation images."""
    known: dict[str, Any] = {
        "classes": trained.classes,
        "input": {"shape": ["n", *trained.input_shape], "type": "uint8"},
    }
    known["val_accuracy"] = trained.records[-1].val_accuracy
    return {name: json.dumps(value, ensure_ascii=False) for name, value in known.items()}


def export_files(trained: TrainedStack, path: Path) -> None:
    """Write a folder for `layerwise.load`: weights, what they are, and a card for whoever gets it."""
    path.mkdir(parents=True, exist_ok=True)
    known = {"format": FORMAT, "records": [vars(record) for record in trained.records]}
    write_tensors(path / MODEL, trained.tensors(), known)
    write_json(path / "config.json", known)
    write_text(path / "README.md", card(trained))


def card(trained: TrainedStack) -> str:
    """What a model card should say: data, accuracy, settings, and that the license is still to be chosen."""
    top, depth = trained.records[-1], len(trained.records)
    data, shape = top.settings["data"]["name"], "×".join(map(str, trained.input_shape))
    lines = ["---", "license: unknown  # choose one before you publish", "library_name: layerwise", "---", ""]
    lines += [f"# A stack of {depth} patch-based layers, trained on {data}", ""]
    lines += [
        f"Classes: {', '.join(trained.classes)}. Images: {shape} uint8.",
        "",
        "| depth | atoms | validation |",
        "|---|---|---|",
    ]
    lines += [f"| {record.layer} | {record.atoms} | {record.val_accuracy:.2%} |" for record in trained.records]
    lines += ["", "```python", "import layerwise", "", 'stack = layerwise.load("this-folder")']
    lines += ['stack.predict("picture.png", names=True)', "```", "", "Settings:", "", "```json"]
    return "\n".join([*lines, json.dumps(top.settings, indent=2, ensure_ascii=False), "```", ""])


def export_torch(trained: TrainedStack, path: Path) -> None:
    """Write the program for `torch.export.load(path).module()`, with what goes with it as extra files."""
    commit(path, lambda temporary: _save(program(trained), temporary, about(trained)))


def _save(exported: ExportedProgram, path: Path, extra: dict[str, str]) -> None:
    with path.open("wb") as file:  # a name would have to end in .pt2
        torch.export.save(exported, file, extra_files=dict(extra))


def export_onnx(trained: TrainedStack, path: Path) -> None:
    """Write an ONNX model, with what goes with it as metadata; SettingError where the packages for it are missing."""
    try:
        onnx = import_module("onnx")
        import_module("onnxscript")  # which torch.onnx needs
    except ImportError as error:
        raise SettingError(
            f"format: onnx needs a package that is missing ({error}); pip install onnx onnxscript"
        ) from error
    made = torch.onnx.export(
        program(trained), dynamo=True, input_names=["images"], output_names=["logits"], verbose=False
    )
    assert made is not None
    model = made.model_proto
    onnx.helper.set_model_props(model, about(trained))
    commit(path, lambda temporary: temporary.write_bytes(model.SerializeToString()))


FORMATS = {"torch": export_torch, "onnx": export_onnx, "safetensors": export_files}
LOADED = {
    "torch": "torch.export.load({!r}).module()(images) gives logits",
    "onnx": "onnxruntime.InferenceSession({!r}).run(None, {{'images': images}}) gives logits",
    "safetensors": "layerwise.load({!r}) gives the stack",
}
"""how, in words, with the place of what was written"""
