"""Lloyd's k-means, seeded, in bounded memory, on the device of the data.

Shapes: M points, P dimensions, N centroids.
"""

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from layerwise.ops import backend

CHUNK_NUMBERS = 1 << 21  # entries of a chunk's (rows, N) score matrix: 8 MiB of float32, so that it stays in the cache
SPREAD_POINTS = 1 << 16


def nearest(points: Tensor, centroids: Tensor) -> tuple[Tensor, Tensor]:
    """Find each point's nearest centroid; of several equally near ones, the first.

    Returns:
        Index (M,) int64 and squared distance (M,), at least 0.
    """
    index, score = _assign(points, centroids)
    return index, (points.square().sum(1) + 2 * score).clamp_min(0)


def _assign(points: Tensor, centroids: Tensor) -> tuple[Tensor, Tensor]:
    """Nearest centroid (M,), and half the squared distance to it less half the point's squared norm (M,)."""
    half_norms = centroids.square().sum(1) / 2
    index = torch.empty(len(points), dtype=torch.long, device=points.device)
    score = torch.empty(len(points), dtype=points.dtype, device=points.device)
    rows = max(1, CHUNK_NUMBERS // len(centroids))
    scores = points.new_empty(min(rows, len(points)), len(centroids))
    for start in range(0, len(points), rows):
        chunk = points[start : start + rows]
        torch.addmm(half_norms, chunk, centroids.T, alpha=-1, out=scores[: len(chunk)])
        index[start : start + rows], score[start : start + rows] = backend(points).lowest(scores[: len(chunk)])
    return index, score


def spread(points: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Greedy k-means++ (Arthur & Vassilvitskii 2007): draw points one after another, far ones more likely.

    Of the few candidates drawn for each place, the one that leaves the least inertia is taken. Works on a random
    subset of at most 16 points a centroid, so that it costs less than a few Lloyd iterations on all points.

    Returns:
        Points, (N, P).
    """
    size = max(min(16 * count, SPREAD_POINTS), count)
    subset = points[torch.randperm(len(points), generator=generator)[:size].to(points.device)]
    trials = 2 + int(math.log(count))
    draws = torch.rand(count, trials, generator=generator, dtype=torch.float64).to(points.device)
    norms = subset.square().sum(1)
    chosen = torch.zeros(count, dtype=torch.long, device=points.device)
    distance = torch.full_like(norms, torch.inf)
    for i in range(count):
        if i == 0:
            candidates = torch.zeros(1, dtype=torch.long, device=points.device)  # the subset is in random order
        else:
            mass = distance.double().cumsum(0)
            candidates = torch.searchsorted(mass, draws[i] * mass[-1], right=True).clamp_max(len(subset) - 1)
        to_candidates = norms[:, None] - 2 * (subset @ subset[candidates].T) + norms[candidates]
        remaining = torch.minimum(distance[:, None], to_candidates.clamp_min(0))
        best = remaining.sum(0).argmin()
        chosen[i], distance = candidates[best], remaining[:, best]
        distance[chosen[i]] = 0
    return subset[chosen]


def kmeans(
    points: Tensor,
    count: int,
    iterations: int,
    generator: torch.Generator,
    tolerance: float = 1e-4,
    progress: Callable[[Iterable[int]], Iterable[int]] = lambda steps: steps,
) -> Tensor:
    """Cluster points so that the mean squared distance to the nearest centroid (the inertia) is locally least.

    A centroid that loses all its points is put on the point that is farthest from its own centroid.

    Args:
        points: (M, P), with M at least `count`.
        count: number of centroids N.
        iterations: at most so many; stops early once the inertia falls by less than `tolerance` of itself.
        generator: a CPU generator.
        tolerance: see `iterations`.
        progress: wraps the iteration numbers, for a progress bar.

    Returns:
        Centroids, (N, P).
    """
    points = points.contiguous()
    norms = points.square().sum(1)
    centroids = spread(points, count, generator)
    last = torch.inf
    for _ in progress(range(iterations)):
        index, score = _assign(points, centroids)
        distance = (norms + 2 * score).clamp_min(0)
        inertia = float(distance.double().mean())
        sums, sizes = backend(points).add_up(points, index, count)
        if last - inertia <= tolerance * inertia and bool((sizes > 0).all()):
            break
        last = inertia
        centroids = sums / sizes.clamp_min(1)[:, None]
        empty = (sizes == 0).nonzero()[:, 0]
        if len(empty):
            centroids[empty] = points[distance.argsort(descending=True, stable=True)[: len(empty)]]
    return centroids
