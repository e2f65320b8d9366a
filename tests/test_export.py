"""A trained stack handed on: to those who have only torch, only onnxruntime, or layerwise."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import layerwise
from layerwise.config import Layer, SingleLayer
from layerwise.config.choices import GATES
from layerwise.config.run import restore
from layerwise.data.splits import load_data
from layerwise.errors import DamagedRun
from layerwise.export import card, export_onnx, export_torch
from layerwise.nn.layer import ProbedLayer
from layerwise.nn.stack import FrozenStack
from layerwise.run.record import LayerRecord
from layerwise.trained import TrainedStack
from tests.conftest import Command
from tests.nn.layers import make_layer

ONLY_TORCH = """
import sys, torch
program = torch.export.load("a.pt2", extra_files=(extra := {"classes": ""}))
torch.save(program.module()(torch.load("images.pt")), "logits.pt")
print(extra["classes"].decode() if isinstance(extra["classes"], bytes) else extra["classes"])
assert not [name for name in sys.modules if "layerwise" in name]
"""
ONLY_ONNX = """
import sys, numpy, onnxruntime
session = onnxruntime.InferenceSession("a.onnx")
numpy.save("logits.npy", session.run(None, {"images": numpy.load("images.npy")})[0])
print(session.get_modelmeta().custom_metadata_map["classes"])
assert not [name for name in sys.modules if "layerwise" in name or "torch" in name]
"""


def test_export__for_those_who_have_only_torch(finished: Path, command: Command, process: Command) -> None:
    images = load_data(layerwise.Data(), 0).test.pixels[:7]
    done = command("export", "r", "a.pt2")
    assert done.returncode == 0 and "torch.export.load('a.pt2').module()(images)" in done.stdout, done.stderr
    torch.save(images, "images.pt")
    there = process("-c", ONLY_TORCH)
    assert there.returncode == 0, there.stderr
    assert json.loads(there.stdout) == [str(i) for i in range(10)]
    ours = layerwise.load(finished).predict_proba(images)
    torch.testing.assert_close(torch.load("logits.pt").softmax(1), ours, atol=1e-5, rtol=1e-4)


def test_export__for_those_who_have_only_onnxruntime(finished: Path, command: Command, process: Command) -> None:
    images = load_data(layerwise.Data(), 0).test.pixels[:7]
    done = command("export", "r", "a.onnx")
    assert done.returncode == 0, done.stderr
    np.save("images.npy", images.numpy())
    there = process("-c", ONLY_ONNX)
    assert there.returncode == 0, there.stderr
    assert json.loads(there.stdout) == [str(i) for i in range(10)]
    ours = layerwise.load(finished).predict_proba(images)
    torch.testing.assert_close(torch.from_numpy(np.load("logits.npy")).softmax(1), ours, atol=1e-5, rtol=1e-4)


def trained_of(layers: list[ProbedLayer], settings: list[Layer], shape: tuple[int, int, int]) -> TrainedStack:
    """A stack as it would be loaded, whose probes are not zero."""
    records = []
    for i, (layer, own) in enumerate(zip(layers, settings, strict=True), 1):
        known = {f"layer {i}": asdict(SingleLayer(**vars(own))), "data": {"name": "teacher"}}
        records.append(LayerRecord(i, own.atoms, 0.5, [], list(shape), list(layer.shape), ["a", "b", "c"], 1.0, known))
        shape = layer.shape
    return TrainedStack(FrozenStack(layers), records)


BARE = {"pool": 1, "norm": {"kind": "none"}, "channels": None, "probe": {"kind": "unconstrained", "init": "random"}}
AVERAGED = {"probe": {"init": "random", "logits": "averaged"}}
STACKS: dict[str, list[dict[str, Any]]] = {
    "every gate": [{"gate": {"kind": kind}, "probe": {"init": "random"}, "patch_size": 2} for kind in GATES],
    "unconstrained": [BARE],
    "pooling, hard, residual": [
        {"pool": 3, "embedding": "hard", "residual": {"kind": "concatenate"}, "probe": {"init": "random", "pool": 2}}
    ],
    "gates, two columns": [
        AVERAGED,
        AVERAGED | {"output": "gates", "residual": {"kind": "concatenate"}},
        AVERAGED | {"input": "images", "patch_size": 4},
        AVERAGED | {"output": "gates"},
    ],
}


def stack_of(kind: str) -> TrainedStack:
    small = {"patch_size": 3, "atoms": 8, "neighbors": 3, "channels": 4, "pool": 1}
    shape, layers, settings = (2, 10, 9), list[ProbedLayer](), list[Layer]()
    for own in STACKS[kind]:
        settings.append(restore(Layer, small | own))
        below, number = layers[-1].shape if layers else shape, len(layers) + 1
        layers.append(make_layer(settings[-1], shape if settings[-1].input == "images" else below, number=number))
    return trained_of(layers, settings, shape)


@pytest.mark.parametrize("kind", STACKS)
def test_export__of_every_kind_computes_the_same_in_onnx(kind: str, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    trained = stack_of(kind)
    export_onnx(trained, tmp_path / "a.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "a.onnx")
    images = torch.randint(0, 256, (5, *trained.input_shape), dtype=torch.uint8)
    for n in (1, 5):
        ours = trained.stack(images[:n].float() / 127.5 - 1)[1]
        assert ours is not None and float(ours.std()) > 0
        theirs = torch.from_numpy(session.run(None, {"images": images[:n].numpy()})[0])
        torch.testing.assert_close(theirs, ours, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", STACKS)
def test_export__of_every_kind_is_a_program_that_torch_reads_again(kind: str, tmp_path: Path) -> None:
    trained = stack_of(kind)
    export_torch(trained, tmp_path / "a.pt2")
    images = torch.randint(0, 256, (5, *trained.input_shape), dtype=torch.uint8)
    for n in (1, 5):
        ours = trained.stack(images[:n].float() / 127.5 - 1)[1]
        assert ours is not None
        theirs = torch.export.load(tmp_path / "a.pt2").module()(images[:n])
        torch.testing.assert_close(theirs, ours, atol=1e-4, rtol=1e-4)


def test_export__as_a_folder_that_is_loaded(finished: Path, command: Command) -> None:
    images = load_data(layerwise.Data(), 0).test.pixels[:7]
    done = command("export", "r", "out")
    assert done.returncode == 0, done.stderr
    ours, theirs = layerwise.load("r"), layerwise.load("out")
    assert torch.equal(ours.predict_proba(images), theirs.predict_proba(images))
    assert theirs.records == ours.records and theirs.classes == ours.classes
    assert {path.name for path in Path("out").iterdir()} == {"README.md", "config.json", "model.safetensors"}
    again = command("export", "r", "out")
    assert again.returncode == 2 and again.stderr == "error: OUT: out is there already; give a new folder\n"
    content = bytearray(Path("out/model.safetensors").read_bytes())
    content[-1] ^= 1
    Path("out/model.safetensors").write_bytes(content)
    with pytest.raises(DamagedRun, match=r"out/model.safetensors is damaged, or of another version"):
        layerwise.load("out")


def test_card__says_what_the_stack_is(trained: Path) -> None:
    told = card(layerwise.load(trained))
    assert told.startswith("---\nlicense: unknown") and "# A stack of 2 patch-based layers, trained on digits" in told
    accuracy = json.loads((trained / "layer-2" / "layer.json").read_text())["val_accuracy"]
    assert f"| 2 | 16 | {accuracy:.2%} |" in told and "1×8×8" in told
