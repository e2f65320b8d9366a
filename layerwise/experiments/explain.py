"""Where a run gains accuracy and where it loses it: what each layer knows by heart, adds, and leaves unused."""

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from layerwise.config import Config, Optimizer
from layerwise.console import print_table
from layerwise.data.views import ViewStore
from layerwise.nn.stack import FrozenStack
from layerwise.report.charts import explanation_chart
from layerwise.report.figures import as_array
from layerwise.report.listener import save_figure
from layerwise.run.files import write_json
from layerwise.run.run import Run
from layerwise.seeds import fold_seed
from layerwise.training.evaluation import evaluate_alone
from layerwise.training.fit import fit_layer
from layerwise.training.inputs import LayerData

FIGURE = "explained.png"
SOME = 10_000
"""training images, at most, on which accuracy is measured"""
KERNELS, CONVOLUTIONS, SIDE = 128, 3, 8
"""of a CNN; larger maps are halved"""


@dataclass(frozen=True)
class Explained:
    """One layer; accuracies in [0, 1], of images as they are, not augmented."""

    layer: int
    train_accuracy: float
    """of the stack up to it, on images that it was trained on"""
    val_accuracy: float
    alone_train: float
    """of the layer's own logits"""
    alone_val: float
    cnn_val: float | None
    """of a small CNN that was trained end to end on what the layer was given, on validation images; None: not asked"""


class SmallCNN(nn.Module):
    """Convolutions of 3×3 with batch norm and ReLU, averaged to 2×2 positions, and a linear classifier."""

    def __init__(self, shape: tuple[int, int, int], classes: int) -> None:
        super().__init__()
        parts, (channels, height, width) = list[nn.Module](), shape
        for _ in range(CONVOLUTIONS):
            parts += [nn.Conv2d(channels, KERNELS, 3, padding=1), nn.BatchNorm2d(KERNELS), nn.ReLU()]
            channels = KERNELS
            window = 1 + (height > SIDE), 1 + (width > SIDE)
            if max(window) > 1:
                parts.append(nn.AvgPool2d(window))
            height, width = height // window[0], width // window[1]
        self.network = nn.Sequential(*parts, nn.AdaptiveAvgPool2d(2))
        self.linear = nn.Linear(4 * KERNELS, classes)
        self.to(memory_format=torch.channels_last)  # as `layerwise.experiments.paper.cnn`

    def forward(self, x: Tensor, below: object = None) -> tuple[Tensor, Tensor]:
        """Map (B, C, H, W) to averages (B, 128, 2, 2) and logits (B, classes), as a layer does."""
        out = self.network(x.contiguous(memory_format=torch.channels_last))
        return out, self.linear(out.flatten(1))

    def said(self, x: Tensor, below: object = None, near: object = None) -> Tensor:
        """The logits alone, as of a layer."""
        _, logits = self.forward(x)
        return logits


def explain(path: str, root: str | None, epochs: int, json: Path | None) -> list[Explained]:
    """Print, for each finished layer of a run, its accuracies, and that of a CNN on what it was given.

    The CNN is trained for so many epochs; 0: there is none. `root` is that of the data, if it has moved since; `json`
    is a file for the same figures. Raises DamagedRun and SettingError as reading the run and its data does.
    """
    run = Run(path)
    records, data = run.finished(), run.data(root)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    stack = run.stack(records).to(device)
    some = data.train.subset(torch.linspace(0, len(data.train) - 1, min(SOME, len(data.train))).long())
    (train, alone_train), (val, alone_val) = (evaluate_alone(stack, images, device) for images in (some, data.val))
    columns = [tested.accuracies for tested in (train, val, alone_train, alone_val)]
    bounds: list[float | None] = [None] * len(stack)
    features = replace(run.config.features, views=min(run.config.features.views, epochs))
    for i in range(len(stack) if epochs else 0):
        below = stack.below(i + 1).column  # without layers where a column begins, which is given what layer 1 was
        if not len(below):
            inputs = ViewStore(features, data, run.config.seed, device)
        bounds[i] = _bound(run.config, inputs, below, i + 1, epochs) if i == 0 or len(below) else bounds[0]
    found = [Explained(i, *row) for i, row in enumerate(zip(*columns, bounds, strict=True), 1)]
    print()
    print_table(_table(found))
    names = ("val_accuracy", "alone_train", "alone_val", "cnn_val")
    lines = [[getattr(one, name) for one in found if getattr(one, name) is not None] for name in names]
    save_figure(run.path / FIGURE, as_array(explanation_chart(*lines)))
    print(f"\nfigure: {run.path / FIGURE}")
    if json is not None:
        write_json(json, [vars(one) for one in found])
    return found


def _bound(config: Config, inputs: ViewStore, below: FrozenStack, number: int, epochs: int) -> float:
    """The best validation accuracy of a CNN on the input of layer `number`, which frozen layers make."""
    seed, size, data = fold_seed(config.seed, number), config.layer_at(number).optimizer.batch_size, inputs.data
    inputs.raise_to(below)
    torch.manual_seed(seed)
    model = SmallCNN(below.shape(data.shape), len(data.classes))
    batches = LayerData(below, inputs, size, seed, layer=model)
    print(f"a CNN on the input of layer {number}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        optimizer = Optimizer(epochs=epochs, batch_size=size)
        precision = config.trainer.precision if inputs.device.type == "cuda" else "32-true"
        trainer = replace(config.trainer, precision=precision)
        history = fit_layer(model, number, batches, optimizer, trainer, Path(folder))
    return history.best["val_accuracy"]


def _table(found: list[Explained]) -> list[tuple[str, ...]]:
    cnn = ["CNN on its input"] * (found[0].cnn_val is not None)
    table: list[tuple[str, ...]] = [("layer", "training", "validation", "alone, training", "alone, validation", *cnn)]
    for one in found:
        row: list[Any] = [one.train_accuracy, one.val_accuracy, one.alone_train, one.alone_val]
        row += [one.cnn_val] * len(cnn)
        table.append((str(one.layer), *(f"{share:.2%}" for share in row)))
    return table
