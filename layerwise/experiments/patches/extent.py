"""How much room patches fill: the balls of a radius that cover them, and their intrinsic dimension (paper, section 4).

Shapes: M points, P numbers of each, q neighbors.
"""

import math
from typing import Any

import torch
from torch import Tensor

from layerwise.experiments.patches.clusters import COVERED, KINDS, Band, unit, whitened

NEIGHBORHOODS = 10_000  # patches whose neighbors are looked at
NEIGHBORS = 5  # few, since farther ones feel the border of what the patches fill
COVER_POINTS = 16_384
MOST_BALLS = 4096
RADII = [1.2, 1.1, 1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1]
ROWS = 1024


def covering(patches: Tensor, curves: dict[str, Band], seed: int) -> dict[str, dict[str, Any]]:
    """Covering numbers of patches as they are and whitened, of norm 1: radii, balls, and the power that they grow by.

    Of the greedy cover, and of balls around centroids, an upper bound each.
    """
    result = {}
    for kind in ("original", "whitened"):
        generator = torch.Generator().manual_seed(seed)
        points = unit(KINDS[kind](patches, generator)[:COVER_POINTS])
        cover: dict[float, int] = {}
        for radius in RADII:
            if (number := greedy_cover(points, radius, COVERED, MOST_BALLS, generator)) is None:
                break
            cover[radius] = number
        several = {radius: number for radius, number in cover.items() if number > 1}
        result[kind] = {
            "radius": list(cover),
            "balls": [float(number) for number in cover.values()],
            "slope": slope(list(several), list(several.values())),
            "centroid_radius": curves[kind].radius,
            "centroids": [float(number) for number in curves[kind].centroids],
            "centroid_slope": slope(curves[kind].radius, curves[kind].centroids),
        }
    return result


def greedy_cover(points: Tensor, radius: float, share: float, most: int, generator: torch.Generator) -> int | None:
    """Number of balls of a radius, around points of the set (M, P), that cover a share of it: an upper bound.

    Puts a ball around a random point that is not covered yet, again and again. The share is above 0, at most 1, the
    generator is a CPU's. None where the number is more than `most`.
    """
    left = points[torch.randperm(len(points), generator=generator).to(points.device)]
    allowed = math.floor(len(points) * (1 - share) + 1e-9)
    balls = 0
    while len(left) > allowed:
        if balls == most:
            return None
        left = left[(left - left[0]).square().sum(1) > radius * radius]
        balls += 1
    return balls


def slope(radii: list[float], balls: list[int]) -> float | None:
    """By what power the number of balls grows as their radius shrinks: minus the slope of log number over log radius.

    None where the radii do not differ.
    """
    x, y = torch.tensor(radii, dtype=torch.float64).log(), torch.tensor(balls, dtype=torch.float64).log()
    if len(x) < 2 or not bool((x != x[0]).any()):
        return None
    x, y = x - x.mean(), y - y.mean()
    return float(-(x @ y) / (x @ x))


def dimensions(patches: Tensor) -> tuple[dict[str, float], dict[str, list[float]]]:
    """Intrinsic dimension by two estimates, and effective rank; `spectrum`; each before and after whitening."""
    result, spectra = {}, {}
    for kind, values in (("original", patches), ("whitened", whitened(patches))):
        distances = neighbor_distances(values[:NEIGHBORHOODS], NEIGHBORS)
        result[f"two_nn_{kind}"] = two_nn(distances)
        result[f"levina_bickel_{kind}"] = levina_bickel(distances)
        variances = spectrum(values)
        result[f"effective_rank_{kind}"], spectra[kind] = effective_rank(variances), variances.tolist()
    return result, spectra


def neighbor_distances(points: Tensor, count: int) -> Tensor:
    """Distances of each of M different points to its q nearest others, ascending, (M, q) in float64.

    Points that occur twice count once. Raises ValueError where no more than q = `count` differ.
    """
    points = torch.unique(points, dim=0).double()
    if len(points) <= count:
        raise ValueError(f"{len(points)} different patches are too few to look at {count} neighbors of each")
    points = points - points.mean(0)
    norms, found = points.square().sum(1), []
    for start in range(0, len(points), ROWS):
        part = points[start : start + ROWS]
        squares = norms[start : start + ROWS, None] + norms - 2 * part @ points.T
        squares[torch.arange(len(part)), torch.arange(start, start + len(part))] = torch.inf
        found.append(squares.topk(count, dim=1, largest=False).values)
    return torch.cat(found).clamp_min(1e-300).sqrt()


def two_nn(distances: Tensor) -> float:
    """The TwoNN estimate from distances (M, at least 2) to nearest neighbors (Facco et al. 2017).

    The ratio of second to first distance follows a Pareto law with the dimension as exponent. The line is fitted to
    nine tenths of the ratios; the largest are where the density changes most.
    """
    ratio = (distances[:, 1] / distances[:, 0]).log().sort().values
    n = len(ratio)
    below = torch.arange(1, n + 1, dtype=torch.float64) / n
    kept = max(1, int(0.9 * n))
    x, y = ratio[:kept], -(1 - below[:kept]).clamp_min(1e-300).log()
    return float((x @ y) / (x @ x).clamp_min(1e-300))


def levina_bickel(distances: Tensor) -> float:
    """The maximum-likelihood estimate from distances (M, q) to the q >= 2 nearest (Levina & Bickel 2004).

    Inverse dimensions, which are not biased, are averaged over points (MacKay & Ghahramani 2005).
    """
    inverse = (distances[:, -1:] / distances[:, :-1]).log().mean()
    return float(1 / inverse.clamp_min(1e-300))


def spectrum(patches: Tensor) -> Tensor:
    """Variances of the patches (M, P) along their principal directions, (P,), falling."""
    z = patches.double()
    z = z - z.mean(0)
    variances: Tensor = torch.linalg.eigvalsh(z.T @ z / len(z))
    return variances.flip(0).clamp_min(0)


def effective_rank(variances: Tensor) -> float:
    """How many directions vary, exp(entropy of the variances' shares), from 1 to P (Roy & Vetterli 2007)."""
    share = variances / variances.sum()
    return float((-(share * share.clamp_min(1e-300).log()).sum()).exp())
