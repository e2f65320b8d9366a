"""layerwise benchmark: how fast this machine trains, and against what."""

import importlib.util
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from statistics import median

import torch
from torch import Tensor

from layerwise.config import Layer
from layerwise.console import print_table, progress
from layerwise.experiments.benchmark.host import measure_host
from layerwise.experiments.benchmark.layers import HUGE, Row, first_layer, measure_layer
from layerwise.experiments.benchmark.stack import measure_depth
from layerwise.experiments.benchmark.steps import SIDE, natural_images
from layerwise.experiments.benchmark.whole import measure_convolution, measure_known, measure_threads
from layerwise.nn.kmeans import kmeans, nearest
from layerwise.nn.whitening import fit_whitening
from layerwise.ops import sample_patches
from layerwise.parsing import RECIPES, read_config
from layerwise.run.files import output_file, write_json

ITERATIONS = 25


def benchmark(quick: bool, path: str | None, device: torch.device) -> list[Row]:
    """Measure and print; `quick` tells whether everything runs, not how fast; `path` is a JSON file for the rows.

    Raises SettingError where the file cannot be written.
    """
    file = output_file("--json", path)
    batch = 16 if quick else 512 if device.type == "cuda" else 64
    rows = []
    for settings, shape in layers(quick):
        c, h, w = shape
        for _ in progress([0], f"a layer of {settings.atoms} atoms, {settings.k} neighbors, on {c}×{h}×{w}"):
            turns = 2 if quick or settings.atoms > HUGE else 5
            rows += measure_layer(settings, shape, batch, device, turns)
    table = [
        ("atoms", "k", "pool", "backend", "gates", "images/s", "÷ plain", "÷ computed", "÷ floor", "GiB", "agrees")
    ]
    for row in rows:
        plain = "-" if row.vs_plain is None else f"{row.vs_plain:.2f}"
        peak = "-" if row.peak_bytes is None else f"{row.peak_bytes / 2**30:.2f}"
        speeds = f"{row.images_per_second:.0f}", plain, f"{row.vs_computed:.2f}", f"{row.vs_floor:.2f}"
        sizes = str(row.atoms), str(row.neighbors), str(row.pool), row.backend, row.gates
        table.append((*sizes, *speeds, peak, "yes" if row.agrees else "NO"))
    print_table(table)
    if file is not None:
        write_json(file, [asdict(row) for row in rows])
    print()
    parts: dict[str, Callable[[], list[str]]] = {
        "whole layers": lambda: measure_known(quick, device),
        "host time": lambda: measure_host(quick),
        "threads": lambda: measure_threads(quick) if device.type == "cpu" else [],
        "convolutions": lambda: measure_convolution(quick, device),
        "a layer at depth 4": lambda: [measure_depth(quick, device)],
        "a dictionary": lambda: [measure_dictionary(quick)],
    }
    for name, measure in parts.items():
        for _ in progress([0], name):
            lines = measure()
        print("\n".join(lines))
    return rows


def layers(quick: bool) -> list[tuple[Layer, tuple[int, int, int]]]:
    """What is measured: layers and the shapes (C, H, W) of their input."""
    images = (3, SIDE, SIDE)
    if quick:
        return [(first_layer(64, 16), images)]
    recipe = read_config(RECIPES / "image_folder.yaml")
    # of a mirrored layer half the maps are learned; what is compared here is an embedding by itself
    first, second = (replace(recipe.layer_at(number), mirror=False) for number in (1, 2))
    return [
        *((first_layer(atoms, neighbors), images) for atoms, neighbors in ((1024, 256), (256, 64), (16384, 4096))),
        (first, images),
        *((replace(second, atoms=atoms), (64, 14, 14)) for atoms in (512, 4096)),
    ]


def measure_dictionary(quick: bool) -> str:
    """Time k-means of whitened 5×5 patches on the CPU, in turns with as many iterations of faiss's, if it is installed.

    Returns a line that says how long each took, and how their inertia compares.
    """
    count, atoms, turns = (4096, 16, 1) if quick else (262_144, 1024, 3)
    generator = torch.Generator().manual_seed(0)
    images = natural_images(count // 128, generator)
    sample = sample_patches([images], 5, count, len(images), generator)
    patches = fit_whitening(sample, 0.03)(sample).contiguous()
    methods = {"ours": _ours} | ({"faiss": _faiss} if importlib.util.find_spec("faiss") else {})
    seconds: dict[str, list[float]] = {name: [] for name in methods}
    inertia = dict.fromkeys(methods, 0.0)
    for turn in range(turns):
        for name, cluster in methods.items():
            start = time.perf_counter()
            centroids = cluster(patches, atoms, turn)
            seconds[name].append(time.perf_counter() - start)
            inertia[name] += float(nearest(patches, centroids)[1].double().mean()) / turns
    ours = median(seconds["ours"])
    line = f"dictionary: {count:,} patches, {atoms} atoms, {ITERATIONS} iterations: {ours:.2f} s"
    if "faiss" not in methods:
        return line + " (pip install faiss-cpu to compare)"
    theirs = median(seconds["faiss"])
    return (
        f"{line}, faiss {theirs:.2f} s: seconds ÷ faiss's {ours / theirs:.2f}, "
        f"inertia ÷ faiss's {inertia['ours'] / inertia['faiss']:.4f}"
    )


def _ours(patches: Tensor, atoms: int, seed: int) -> Tensor:
    return kmeans(patches, atoms, ITERATIONS, torch.Generator().manual_seed(seed), tolerance=-1)


def _faiss(patches: Tensor, atoms: int, seed: int) -> Tensor:
    import faiss

    model = faiss.Kmeans(patches.shape[1], atoms, niter=ITERATIONS, seed=seed)
    model.train(patches.numpy())
    return torch.from_numpy(model.centroids)
