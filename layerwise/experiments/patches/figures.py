"""Figures of what was measured, as arrays (H, W, 3) of uint8."""

from collections.abc import Mapping
from typing import Any

from layerwise.experiments.patches.clusters import Band, leads
from layerwise.report.figures import Pixels, as_array, blank, by_default

LABELS = {
    "original": ("original", "tab:blue", "-"),
    "whitened": ("whitened", "tab:orange", "-"),
    "whitened_shuffled": ("whitened, shuffled", "tab:orange", ":"),
    "shuffled": ("shuffled", "tab:blue", ":"),
    "gaussian": ("Gaussian", "grey", "--"),
}


@by_default
def clusters_figure(curves: Mapping[str, Band], title: str) -> Pixels:
    """Distance to the nearest centroid against the number of centroids; a band is a deviation over seeds."""
    figure, axes = blank(6, 4)
    for kind, band in curves.items():
        label, color, line = LABELS[kind]
        axes.plot(band.centroids, band.distance, line, color=color, label=label)
        low, high = ([d + sign * s for d, s in zip(band.distance, band.deviation, strict=True)] for sign in (-1, 1))
        axes.fill_between(band.centroids, low, high, color=color, alpha=0.2, linewidth=0)
    axes.set(xlabel="centroids", ylabel="mean distance to the nearest", title=title, ylim=(0, 1.05))
    axes.set_xscale("log", base=2)
    axes.legend(frameon=False)
    return as_array(figure)


@by_default
def covering_figure(covers: Mapping[str, Mapping[str, Any]], title: str) -> Pixels:
    """Balls that cover the patches against their radius, both logarithmic."""
    figure, axes = blank(6, 4)
    for kind, cover in covers.items():
        label, color, _ = LABELS[kind]
        axes.plot(cover["radius"], cover["balls"], "o-", ms=3, color=color, label=f"{label}, greedy")
        axes.plot(cover["centroid_radius"], cover["centroids"], ":", color=color, label=f"{label}, centroids")
    axes.set(xscale="log", yscale="log", xlabel="radius", ylabel="balls that cover 95 %", title=title)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("{x:g}")
    axes.legend(frameon=False)
    return as_array(figure)


@by_default
def layers_figure(curves: Mapping[str, Mapping[str, Band]]) -> Pixels:
    """Of each layer's input, how much closer to centroids whitened patches are than Gaussian ones."""
    figure, axes = blank(6, 4)
    for name, bands in curves.items():
        axes.plot(bands["whitened"].centroids, [100 * lead for lead in leads(bands)], label=name)
    axes.set(xlabel="centroids", ylabel="closer than Gaussian patches, %")
    axes.set_xscale("log", base=2)
    axes.legend(frameon=False)
    return as_array(figure)
