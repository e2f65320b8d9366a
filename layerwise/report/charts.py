"""Charts of a run: accuracy by depth, learning curves, how often atoms take part, which classes are taken for which."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from layerwise.console import one_line
from layerwise.report.figures import FAINT, INK, SEVERAL, TEST, TRAIN, VAL, blank, by_default
from layerwise.run.record import LayerRecord
from layerwise.training.evaluation import Evaluation

LONGEST = 24
"""letters of a class's name that are shown"""
WIDTH = 4.6
"""of a chart, in inches: its letters are to be read on a narrow screen, too"""


@by_default
def accuracy_chart(records: Sequence[LayerRecord], tested: Evaluation | None = None) -> Figure:
    """Accuracy against depth, with standard errors: on training images, those for validation, and those of a test."""
    figure, axes = blank(WIDTH, 2.9)
    depths = [record.layer for record in records]
    if all("train_accuracy" in record.best for record in records):
        train = [100 * record.best["train_accuracy"] for record in records]
        axes.plot(depths, train, "s--", color=TRAIN, markersize=4, linewidth=1, label="training, augmented")
    measured = {"validation": (VAL, [record.val_accuracy for record in records], [record.error for record in records])}
    if tested is not None:
        measured["test"] = (TEST, tested.accuracies, tested.standard_errors)
    for name, (color, shares, errors) in measured.items():
        percent = [100 * share for share in shares]
        axes.errorbar(
            depths,
            percent,
            [100 * error for error in errors],
            fmt="o-",
            color=color,
            capsize=3,
            markersize=5,
            label=name,
        )
        if name == list(measured)[-1]:
            for x, y in zip(depths, percent, strict=True):
                axes.annotate(f"{y:.1f}", (x, y), (7, -11), textcoords="offset points", color=color, fontsize=9)
    _percent(axes, "depth", depths)
    axes.legend(fontsize=8)
    return figure


@by_default
def learning_chart(records: Sequence[LayerRecord]) -> Figure:
    """Accuracy after each epoch, of one layer after another, and the epoch whose weights each layer has."""
    figure, axes = blank(WIDTH, 2.9)
    start = 0
    for record in records:
        epochs = range(start + 1, start + 1 + len(record.epochs))
        first = record is records[0]
        train = [100 * epoch["train_accuracy"] for epoch in record.epochs if "train_accuracy" in epoch]
        if len(train) == len(epochs):
            axes.plot(epochs, train, "--", color=TRAIN, label="training, augmented" if first else None)
        values = [100 * epoch["val_accuracy"] for epoch in record.epochs]
        dots = "." if len(values) < 40 else ""
        axes.plot(epochs, values, f"{dots}-", color=VAL, label="validation" if first else None)
        best = record.epochs.index(record.best)
        axes.plot(epochs[best], values[best], "o", color=VAL, label="kept" if first else None)
        if not first:
            axes.axvline(start + 0.5, color=FAINT, linewidth=0.8)
        axes.text(
            start + 0.5 + len(epochs) / 2,
            1.0,
            f"layer {record.layer}",
            ha="center",
            va="bottom",
            color=INK,
            transform=axes.get_xaxis_transform(),
            fontsize=8,
        )
        start += len(epochs)
    _percent(axes, "epoch, of all layers")
    axes.legend(fontsize=8)
    axes.set_xlim(0.5, start + 0.5)
    return figure


@by_default
def usage_chart(shares: Tensor) -> Figure:
    """How often each atom takes part: shares of patches (N,), sorted."""
    figure, axes = blank(WIDTH, 2.2)
    percent = 100 * shares.cpu()
    axes.plot(range(1, len(percent) + 1), percent.sort(descending=True).values.numpy(), color=VAL)
    axes.axhline(float(percent.mean()), color=FAINT, linestyle=":", label="mean")
    axes.set(xlabel="atom, by how often it takes part", ylabel="patches, %", ylim=(0, None))
    axes.legend()
    return figure


@by_default
def explanation_chart(
    stack: Sequence[float], train: Sequence[float], val: Sequence[float], cnn: Sequence[float]
) -> Figure:
    """Accuracy by layer: of the stack, of each layer alone on training images and others, of a CNN on its input."""
    figure, axes = blank(WIDTH, 3.3)
    layers = range(1, len(stack) + 1)
    lines = {
        "the stack, validation": (stack, "o-", VAL),
        "alone, training": (train, "s--", TRAIN),
        "alone, validation": (val, "s-", TRAIN),
        "a CNN on its input": (cnn, "^:", TEST),
    }
    for name, (shares, style, color) in lines.items():
        if shares:
            axes.plot(layers, [100 * share for share in shares], style, color=color, markersize=5, label=name)
    _percent(axes, "layer", layers)
    figure.legend(loc="outside lower center", ncols=2, fontsize=8)
    return figure


@by_default
def comparison_chart(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Accuracy against depth of several kinds of run, with deviations over seeds; of a test where all have one."""
    figure, axes = blank(WIDTH * 1.3, 3.4)
    what = "test" if all(depth["test"] for row in rows for depth in row["depths"]) else "validation"
    for row, color in zip(rows, cycle(SEVERAL), strict=False):
        depths = [depth["depth"] for depth in row["depths"]]
        means, deviations, _ = zip(*(depth[what] for depth in row["depths"]), strict=True)
        errors = [100 * (deviation or 0) for deviation in deviations]
        label = f"{row['number']}: {one_line(row['runs'][0][0], LONGEST)}"
        axes.errorbar(depths, [100 * mean for mean in means], errors, fmt="o-", color=color, capsize=3, label=label)
    _percent(axes, "depth", range(1, 1 + max(len(row["depths"]) for row in rows)))
    axes.set_ylabel(f"{what} accuracy, %")
    axes.legend(fontsize=8)
    return figure


@by_default
def curve_chart(x: Sequence[float], y: Sequence[float], spread: Sequence[float | None], axis: str) -> Figure:
    """Test accuracy in per cent, with a band of one standard deviation, against what is varied, in powers of two."""
    figure, axes = blank(5, 3.5)
    axes.errorbar(x, y, yerr=[value or 0 for value in spread], marker="o", capsize=3, color=VAL)
    axes.set_xscale("log", base=2)
    axes.set_xticks(x, [f"{value:,.0f}" for value in x])
    axes.set(xlabel=axis, ylabel="test accuracy in %")
    axes.grid(alpha=0.3)
    return figure


@by_default
def confusion_chart(counts: Tensor, classes: Sequence[str]) -> Figure:
    """Counts (true class, predicted class) as shares of the true class."""
    names = [one_line(name, LONGEST) for name in classes]
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
    return figure


def _percent(axes: Axes, label: str, ticks: Sequence[int] | None = None) -> None:
    """Accuracies in per cent: what there is room for of 0 to 100, and a little around."""
    axes.margins(x=0.15, y=0.25)
    low, high = axes.get_ylim()
    axes.set_ylim(max(0, low), min(100, max(high, low + 4)))
    axes.set(xlabel=label, ylabel="accuracy, %")
    axes.grid(axis="y", color=FAINT, alpha=0.25)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if ticks is not None:
        axes.set_xticks(ticks)
