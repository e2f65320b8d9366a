"""Figures of a stack, as arrays (H, W, 3) of uint8: the same whatever the user's settings of Matplotlib are."""

import logging
import math
import warnings
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from matplotlib import rc_context, rcParamsDefault
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from torch import Tensor

from layerwise.nn.stack import FrozenStack
from layerwise.run.record import LayerRecord

Pixels = npt.NDArray[np.uint8]
logging.getLogger("matplotlib").setLevel(logging.ERROR)  # which notes what it finds in settings, and lacks
LONGEST = 24
"""letters of a class's name that are shown"""
by_default = rc_context({name: value for name, value in rcParamsDefault.items() if name != "backend"})
"""decorates what draws"""


def atoms_figure(patches: Tensor, channels: int, width: int = 640) -> Pixels:
    """All atoms as one grid, each as the patch that it stands for, less the mean patch; of a CNN its kernels.

    The patches (N, P) are the `patterns` of a layer's embedding, C `channels` each; more than three are shown as the
    three directions, in red, green and blue, along which the atoms' pixels differ most.
    """
    side = round((patches.shape[1] / channels) ** 0.5)
    tiles = patches.reshape(-1, side, side, channels).cpu()
    if channels not in (1, 3):
        directions = torch.linalg.svd(tiles.reshape(-1, channels), full_matrices=False).Vh[:3]
        tiles = F.pad(tiles @ directions.T, (0, 3 - len(directions)))
    tiles = tiles / tiles.abs().amax((1, 2, 3), keepdim=True).clamp_min(1e-12) / 2 + 0.5
    columns = math.ceil(len(tiles) ** 0.5)
    scale = max(1, width // columns // side)
    rows, cell = -(-len(tiles) // columns), side * scale + 2
    grid = torch.ones(rows * columns, cell, cell, 3)
    large = tiles.repeat_interleave(scale, 1).repeat_interleave(scale, 2)
    grid[: len(tiles), 1:-1, 1:-1] = large.expand(-1, -1, -1, 3)
    figure = grid.reshape(rows, columns, cell, cell, 3).permute(0, 2, 1, 3, 4).reshape(rows * cell, -1, 3)
    return (figure * 255).round().byte().numpy()


@by_default
def usage_figure(stack: FrozenStack, x: Tensor) -> Pixels:
    """How often each atom of the top layer takes part, over all positions of images `x` (B, C, H, W)."""
    below, top = stack.below(len(stack)), stack.layers[-1].layer.embedding
    with torch.no_grad():
        shares = top.usage(below(x)[0]).cpu()
    figure, axes = blank(6, 3)
    axes.plot(shares.sort(descending=True).values.numpy(), color="tab:blue")
    axes.axhline(float(shares.mean()), color="grey", linestyle=":", label="mean")
    axes.set(xlabel="atom, by how often it takes part", ylabel="share of patches", ylim=(0, None))
    axes.legend(frameon=False)
    return as_array(figure)


@by_default
def curve_figure(x: Sequence[float], y: Sequence[float], spread: Sequence[float | None], axis: str) -> Pixels:
    """Test accuracy in per cent, with a band of one standard deviation, against what is varied, in powers of two."""
    figure, axes = blank(5, 3.5)
    axes.errorbar(x, y, yerr=[value or 0 for value in spread], marker="o", capsize=3, color="tab:blue")
    axes.set_xscale("log", base=2)
    axes.set_xticks(x, [f"{value:,.0f}" for value in x])
    axes.set(xlabel=axis, ylabel="test accuracy in %")
    axes.grid(alpha=0.3)
    return as_array(figure)


@by_default
def accuracy_figure(records: Sequence[LayerRecord]) -> Pixels:
    """Validation accuracy against depth."""
    figure, axes = blank(6, 3)
    depths, accuracies = [record.layer for record in records], [100 * record.val_accuracy for record in records]
    axes.plot(depths, accuracies, "o-", color="tab:blue")
    for x, y in zip(depths, accuracies, strict=True):
        axes.annotate(f"{y:.1f}", (x, y), (0, 6), textcoords="offset points", ha="center")
    axes.set(xlabel="depth", ylabel="validation accuracy, %", xticks=depths)
    axes.margins(y=0.3)
    return as_array(figure)


@by_default
def confusion_figure(counts: Tensor, classes: Sequence[str]) -> Pixels:
    """Counts (true class, predicted class) as shares of the true class."""
    names = [name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…" for name in map(_drawable, classes)]
    shares = counts.double() / counts.sum(1, keepdim=True).clamp_min(1)
    side = 2 + 0.4 * min(len(classes), 40)
    figure, axes = blank(side, side)
    axes.imshow(shares.numpy(), cmap="Blues", vmin=0, vmax=1)
    axes.set(xlabel="predicted", ylabel="true")
    if len(classes) <= 40:
        axes.set_xticks(range(len(names)), names, rotation=90)
        axes.set_yticks(range(len(names)), names)
    if len(classes) <= 20:
        for i, row in enumerate(shares.tolist()):
            for j, share in enumerate(row):
                if share >= 0.005:
                    color = "white" if share > 0.5 else "black"
                    axes.text(j, i, f"{100 * share:.0f}", ha="center", va="center", color=color, fontsize=7)
    return as_array(figure)


def blank(width: float, height: float) -> tuple[Figure, Axes]:
    """An empty figure, in inches, and its axes."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def panels(width: float, height: float, count: int) -> tuple[Figure, list[Axes]]:
    """An empty figure, in inches, with several axes side by side, of one vertical range."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, list(figure.subplots(1, count, sharey=True, squeeze=False)[0])


def as_array(figure: Figure) -> Pixels:
    """Draw a figure, with no screen and no state of the process; names are shown as they are, not as TeX."""
    for text in figure.findobj(Text):
        text.set_parse_math(False)
    canvas = FigureCanvasAgg(figure)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a font lacks a letter, of which it draws a box
        canvas.draw()  # type: ignore[no-untyped-call]
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()  # type: ignore[no-untyped-call]


def _drawable(name: str) -> str:
    """A name of one line, in which what is no character, such as a byte of a folder's name, is a question mark."""
    return " ".join(name.encode("utf-8", "replace").decode().split())
