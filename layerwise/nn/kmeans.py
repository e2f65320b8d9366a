"""Lloyd's k-means, seeded, in bounded memory, on the device of the data.

Shapes: M points, P dimensions, N centroids.
"""

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from layerwise.nn.mirror import Mirror
from layerwise.ops import backend, chunks
from layerwise.ops.bounded import NUMBERS

SUBSET = 1 << 16  # points, at most, that a start is sought on, and
FEWEST = 4  # of them for each centroid, at least
ROWS = 512  # points that are compared with centroids at once, at least: matrix products of fewer rows are slower
Progress = Callable[[Iterable[int]], Iterable[int]]


def nearest(points: Tensor, centroids: Tensor, mirror: Mirror | None = None) -> tuple[Tensor, Tensor]:
    """Each point's nearest centroid, of equally near ones the first, (M,) int64, and its squared distance (M,) ≥ 0.

    With `mirror` there are 2N: the centroids, and their mirror images; of equally near ones that of the first centroid.
    """
    index, score = _assign(points, centroids, mirror)
    return index, (_norms(points) + 2 * score).clamp_min(0)


def _norms(points: Tensor) -> Tensor:
    """Squared norms, (M,): the squares of all numbers at once would take as much as the points."""
    norms, start = points.new_empty(len(points)), 0
    for part in chunks(points):
        # no list of sums: each would lie behind a part's squares in memory, where no others then fit in their place
        norms[start : start + len(part)] = part.square().sum(1)
        start += len(part)
    return norms


def _assign(points: Tensor, centroids: Tensor, mirror: Mirror | None = None) -> tuple[Tensor, Tensor]:
    """Nearest centroid (M,), and half the squared distance to it less half the point's squared norm (M,)."""
    half_norms = centroids.square().sum(1) / 2
    index = torch.empty(len(points), dtype=torch.long, device=points.device)
    score = torch.empty(len(points), dtype=points.dtype, device=points.device)
    rows = max(ROWS, NUMBERS // len(centroids))
    columns = min(len(centroids), max(1, NUMBERS // rows))
    rooms = points.new_empty(2 if mirror else 1, min(rows, len(points)) * columns)
    halves = mirror.halves() if mirror else ()
    weights = [half.weights(centroids) for half in halves] or [centroids]
    for start in range(0, len(points), rows):
        chunk, own = points[start : start + rows], slice(start, start + rows)
        parts = [half.of(chunk) for half in halves] or [chunk]
        for first in range(0, len(centroids), columns):
            part = slice(first, first + columns)
            some = [room[: len(chunk) * len(half_norms[part])].view(len(chunk), -1) for room in rooms]
            torch.addmm(half_norms[part], parts[0], weights[0][part].T, alpha=-1, out=some[0])
            if mirror:  # of a centroid and its mirror image, to which the product of the odd halves has the other sign
                torch.mm(parts[1], weights[1][part].T, out=some[1])
                some[0] -= some[1].abs()
            found, least = backend(points).lowest(some[0])
            if mirror:
                found += len(centroids) * (some[1].gather(1, found[:, None])[:, 0] < 0)
            if first:  # of equally near ones the first stays
                closer = least < score[own]
                found, least = torch.where(closer, found + first, index[own]), torch.where(closer, least, score[own])
            index[own], score[own] = found, least
    return index, score


def at_random(points: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Draw different points (N, P), all equally likely; some are the same only where too few differ."""
    drawn = points[torch.randperm(len(points), generator=generator)[: 4 * count].to(points.device)]
    which = torch.unique(drawn, dim=0, return_inverse=True)[1]
    place = torch.arange(len(drawn), device=points.device)
    first = torch.full_like(which, len(drawn)).scatter_reduce_(0, which, place, "amin")[which]
    repeated = (first < place).long()
    return drawn[repeated.argsort(stable=True)[:count]]


def spread(points: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Greedy k-means++ (Arthur & Vassilvitskii 2007): draw points (N, P) one after another, far ones more likely.

    Of the few candidates drawn for each place, the one that leaves the least inertia is taken.
    """
    trials = 2 + int(math.log(count))
    draws = torch.rand(count, trials, generator=generator, dtype=torch.float64)
    norms = _norms(points)
    chosen = torch.zeros(count, dtype=torch.long, device=points.device)
    distance = torch.full_like(norms, torch.inf)
    for i in range(count):
        candidates = _drawn(distance, draws[i]) if i else torch.zeros(1, dtype=torch.long, device=points.device)
        to_candidates = norms[:, None] - 2 * (points @ points[candidates].T) + norms[candidates]
        remaining = torch.minimum(distance[:, None], to_candidates.clamp_min(0))
        best = remaining.sum(0).argmin()
        chosen[i], distance = candidates[best], remaining[:, best]
        distance[chosen[i]] = 0
    return points[chosen]


def begin(points: Tensor, count: int, generator: torch.Generator, mirror: Mirror | None = None) -> Tensor:
    """The better of two starts (N, P), `at_random` and `spread`, by the inertia of other points a few rounds later.

    Spread starts find every one of well separated clusters. In whitened patches, whose tails are heavy, they waste
    centroids on outliers, which random ones do not. Works on random subsets of at most 16 points a centroid, so that
    it costs less than a few rounds on all points; of fewer than 32 a centroid there are, the subsets have points in
    common. Where a subset has too few a centroid to tell, as of more than 16,384 centroids, the start is random.
    """
    if FEWEST * count > SUBSET:
        return at_random(points, count, generator)
    size = min(16 * count, SUBSET)
    order = torch.randperm(len(points), generator=generator).to(points.device)
    subset = points[order[:size]]
    starts = [start(subset, count, generator) for start in (at_random, spread)]
    later = [_rounds(subset, start, 5, 0.0, generator, iter, mirror) for start in starts]
    del subset  # which may be large, as the next one is
    others = points[order[-size:]]
    inertia = [float(nearest(others, centroids, mirror)[1].double().mean()) for centroids in later]
    return starts[inertia.index(min(inertia))]


def kmeans(
    points: Tensor,
    count: int,
    iterations: int,
    generator: torch.Generator,
    tolerance: float = 1e-4,
    progress: Progress = iter,
    mirror: Mirror | None = None,
) -> Tensor:
    """Centroids (N, P) of points (M, P), M ≥ N, of locally least inertia: mean squared distance to the nearest one.

    Stops once an iteration lowers the inertia by less than `tolerance` of itself. A centroid that loses all its points
    starts anew at a point, far from its own centroid more likely. The generator is a CPU's; `progress` wraps the
    iteration numbers. With `mirror` each stands for itself and its mirror image, and so do the points.
    """
    points = points.contiguous()
    start = begin(points, count, generator, mirror)
    return _rounds(points, start, iterations, tolerance, generator, progress, mirror)


def _rounds(
    points: Tensor,
    centroids: Tensor,
    iterations: int,
    tolerance: float,
    generator: torch.Generator,
    progress: Progress,
    mirror: Mirror | None = None,
) -> Tensor:
    """Lloyd's iterations from the given centroids."""
    norms = _norms(points)
    last = torch.inf
    for _ in progress(range(iterations)):
        index, score = _assign(points, centroids, mirror)
        distance = (norms + 2 * score).clamp_min(0)
        inertia = float(distance.double().mean())
        sums, sizes = backend(points).add_up(points, index, len(centroids) * (2 if mirror else 1))
        if mirror is not None:  # a point that is nearest to a mirror image is one of the centroid, mirrored
            sums, sizes = sums[: len(centroids)] + mirror(sums[len(centroids) :]), sizes.view(2, -1).sum(0)
        if last - inertia <= tolerance * inertia and bool((sizes > 0).all()):
            break
        last = inertia
        centroids = sums / sizes.clamp_min(1)[:, None]
        empty = (sizes == 0).nonzero()[:, 0]
        if len(empty):
            draws = torch.rand(len(empty), generator=generator, dtype=torch.float64)
            centroids[empty] = points[_drawn(distance.sqrt(), draws)]
    return centroids


def _drawn(mass: Tensor, draws: Tensor) -> Tensor:
    """Positions in `mass` (M,), drawn in proportion to it by uniform draws (n,), which are a CPU's.

    The sums are a CPU's too: a GPU adds them up in another order each time.
    """
    total = mass.cpu().double().cumsum(0)
    return torch.searchsorted(total, draws * total[-1], right=True).clamp_max(len(mass) - 1).to(mass.device)
