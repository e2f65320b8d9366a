"""Clustering patches into a dictionary, against faiss where that is installed."""

import importlib.util
import statistics
import time

import torch
from torch import Tensor

from layerwise.experiments.benchmark.layers import natural_images
from layerwise.nn.kmeans import kmeans, nearest
from layerwise.nn.whitening import fit_whitening
from layerwise.ops import sample_patches

ITERATIONS = 25


def measure_dictionary(quick: bool) -> str:
    """Time k-means of whitened 5×5 patches, in turns with faiss's of as many iterations, on the CPU.

    Returns:
        A line that says how long each took, and the inertia each reached.
    """
    count, atoms, turns = (4096, 16, 1) if quick else (262_144, 1024, 3)
    generator = torch.Generator().manual_seed(0)
    images = natural_images(count // 128, generator)
    sample = sample_patches([images], 5, count, len(images), generator)
    patches = fit_whitening(sample, 0.03)(sample).contiguous()
    compared = importlib.util.find_spec("faiss") is not None
    seconds: dict[str, list[float]] = {"ours": [], "faiss": []}
    inertia = {"ours": 0.0, "faiss": 0.0}
    for turn in range(turns):
        for name, cluster in (("ours", _ours), ("faiss", _faiss))[: 2 if compared else 1]:
            start = time.perf_counter()
            centroids = cluster(patches, atoms, turn)
            seconds[name].append(time.perf_counter() - start)
            inertia[name] += float(nearest(patches, centroids)[1].double().mean()) / turns
    ours = statistics.median(seconds["ours"])
    line = f"dictionary: {count:,} patches, {atoms} atoms, {ITERATIONS} iterations: {ours:.2f} s"
    if not compared:
        return line + " (pip install faiss-cpu to compare)"
    theirs = statistics.median(seconds["faiss"])
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
