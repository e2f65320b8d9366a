"""How clustered patches are: mean distance to the nearest of N centroids, against N (paper, Figure 5).

Shapes: M patches, P patch numbers, N centroids.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from layerwise.nn.kmeans import kmeans, nearest
from layerwise.nn.whitening import fit_whitening

ITERATIONS = 10
HELD_OUT = 0.25
COVERED = 0.95
"""share of the held-out patches that balls have to cover"""
WHITENING = 0.001
"""share of the mean eigenvalue: little, so that what is called whitened is"""


@dataclass(frozen=True)
class Curve:
    """Distances of held-out patches to their nearest centroid, patches and centroids as unit vectors lie: 0 to 2."""

    centroids: list[int]
    distance: list[float]
    """mean, for each number of centroids"""
    radius: list[float]
    """of balls around the centroids that cover `COVERED` of the patches"""


def unit(patches: Tensor) -> Tensor:
    """Patches (M, P) of norm 1, without those that are 0."""
    norms = patches.norm(dim=1, keepdim=True)
    kept = norms[:, 0] > 1e-6 * norms.max()
    points: Tensor = patches[kept] / norms[kept]
    return points


def contrast(patches: Tensor) -> Tensor:
    """Patches (M, P) less each one's own mean: brightness says nothing about what a patch shows."""
    return patches - patches.mean(1, keepdim=True)


def whitened(patches: Tensor) -> Tensor:
    """Patches (M, P), every direction of which varies equally."""
    return fit_whitening(patches, WHITENING)(patches)


def shuffled(patches: Tensor, generator: torch.Generator) -> Tensor:
    """Patches (M, P), each one's numbers in an order of its own."""
    order = torch.rand(patches.shape, generator=generator).argsort(1)
    return patches.gather(1, order.to(patches.device))


def gaussian(patches: Tensor, generator: torch.Generator) -> Tensor:
    """As many patches of as many independent normal numbers: no clusters at all."""
    return torch.randn(patches.shape, generator=generator).to(patches)


KINDS: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    "original": lambda patches, generator: contrast(patches),
    "whitened": lambda patches, generator: whitened(patches),
    "whitened_shuffled": lambda patches, generator: shuffled(whitened(patches), generator),
    "shuffled": lambda patches, generator: shuffled(contrast(patches), generator),
    "gaussian": gaussian,
}


def log_spaced(most: int, number: int) -> list[int]:
    """Up to `number` whole numbers from 2 to `most`, in about equal ratios."""
    last = max(1, number - 1)
    return sorted({round(2 * (most / 2) ** (i / last)) for i in range(number)})


def measure(patches: Tensor, counts: Iterable[int], generator: torch.Generator) -> Curve:
    """Cluster three quarters of the patches, measure on the others.

    Args:
        patches: (M, P), in random order.
        counts: numbers of centroids, each at most three quarters of M.
        generator: a CPU generator.
    """
    points = unit(patches)
    split = math.ceil(len(points) * HELD_OUT)
    held_out, points = points[:split], points[split:]
    done, distances, radii = [], [], []
    for count in counts:
        centroids = kmeans(points, count, ITERATIONS, generator)
        distance = nearest(held_out, centroids)[1].sqrt()
        distances.append(float(distance.double().mean()))
        radii.append(float(distance.kthvalue(math.ceil(COVERED * len(distance))).values))
        done.append(count)
    return Curve(done, distances, radii)
