"""The measurements of one source of patches: curves, covering numbers, dimensions, and a number of atoms."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from layerwise.console import progress
from layerwise.experiments.patches.clusters import COVERED, KINDS, Curve, measure, unit, whitened
from layerwise.experiments.patches.covering import greedy_cover, slope
from layerwise.experiments.patches.dimension import effective_rank, levina_bickel, neighbor_distances, spectrum, two_nn

NEIGHBORHOODS = 10_000
"""patches whose neighbors are looked at"""
NEIGHBORS = 5
"""few, since farther ones feel the border of what the patches fill"""
COVER_POINTS = 16_384
MOST_BALLS = 4096
RADII = [1.2, 1.1, 1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1]
PLENTY = 0.9
"""share of the largest lead over Gaussian patches that a dictionary should have"""
PATCHES_AN_ATOM = 256
CHANCE = 0.01
"""a lead over Gaussian patches that says nothing"""
FEW_ATOMS = 64


@dataclass(frozen=True)
class Band:
    """A curve over seeds."""

    centroids: list[int]
    distance: list[float]
    """mean over seeds"""
    deviation: list[float]
    """over seeds; 0 with one"""
    radius: list[float]

    @classmethod
    def of(cls, curves: list[Curve]) -> "Band":
        """Mean and deviation of curves over the same numbers of centroids."""
        distance = torch.tensor([curve.distance for curve in curves])
        radius = torch.tensor([curve.radius for curve in curves])
        spread = distance.std(0) if len(curves) > 1 else torch.zeros(distance.shape[1])
        return cls(curves[0].centroids, distance.mean(0).tolist(), spread.tolist(), radius.mean(0).tolist())


def bands(draws: list[Tensor], counts: list[int], seed: int) -> dict[str, Band]:
    """The curve of each kind in `KINDS`.

    Args:
        draws: patches (M, P), a draw for each repetition.
        counts: numbers of centroids.
        seed: of the clustering.
    """
    result = {}
    for kind, make in KINDS.items():
        curves = []
        for i, patches in enumerate(draws):
            generator = torch.Generator().manual_seed(seed + i)
            what = f"clustering {kind.replace('_', ', ')} patches" + (f", draw {i + 1}" if len(draws) > 1 else "")
            curves.append(measure(make(patches, generator), progress(counts, what), generator))
        result[kind] = Band.of(curves)
    return result


def covering(patches: Tensor, curves: dict[str, Band], seed: int) -> dict[str, dict[str, list[float] | float | None]]:
    """Covering numbers of patches as they are and whitened, of norm 1: radii, balls, and the power that they grow by.

    Of the greedy cover, and of balls around centroids, an upper bound each.
    """
    result: dict[str, dict[str, list[float] | float | None]] = {}
    for kind in ("original", "whitened"):
        generator = torch.Generator().manual_seed(seed)
        points = unit(KINDS[kind](patches, generator)[:COVER_POINTS])
        radii, balls = [], []
        for radius in RADII:
            number = greedy_cover(points, radius, COVERED, MOST_BALLS, generator)
            if number is None:
                break
            radii.append(radius)
            balls.append(number)
        several = [i for i, number in enumerate(balls) if number > 1]
        result[kind] = {
            "radius": radii,
            "balls": [float(number) for number in balls],
            "slope": slope([radii[i] for i in several], [balls[i] for i in several]),
            "centroid_radius": curves[kind].radius,
            "centroids": [float(number) for number in curves[kind].centroids],
            "centroid_slope": slope(curves[kind].radius, curves[kind].centroids),
        }
    return result


def dimensions(patches: Tensor) -> dict[str, float]:
    """Intrinsic dimension by two estimates, and effective rank, before and after whitening."""
    result = {}
    for kind, values in (("original", patches), ("whitened", whitened(patches))):
        distances = neighbor_distances(values[:NEIGHBORHOODS], NEIGHBORS)
        result[f"two_nn_{kind}"] = two_nn(distances)
        result[f"levina_bickel_{kind}"] = levina_bickel(distances)
        result[f"effective_rank_{kind}"] = effective_rank(spectrum(values))
    return result


def recommended_atoms(curves: dict[str, Band], patches: int) -> tuple[int, str]:
    """A number of atoms for the data, and why.

    The smallest at which whitened patches have nine tenths of the largest lead over Gaussian patches, the lead being
    by how much less, relatively, they are away from their centroids.

    Args:
        curves: of `bands`.
        patches: that the data has.
    """
    counts = curves["whitened"].centroids
    pairs = zip(curves["whitened"].distance, curves["gaussian"].distance, strict=True)
    leads = [1 - own / chance for own, chance in pairs]
    best, affordable = max(leads), 1 << max(1, int(math.log2(patches / PATCHES_AN_ATOM)))
    if best < CHANCE:
        reason = "whitened patches are hardly closer to centroids than chance, so that no dictionary will help much"
        return min(FEW_ATOMS, affordable), reason
    enough = next(count for count, lead in zip(counts, leads, strict=True) if lead >= PLENTY * best)
    atoms = 1 << max(1, math.ceil(math.log2(enough)))
    if atoms > affordable:
        return affordable, f"more would need over {patches} patches, {PATCHES_AN_ATOM} for each atom"
    reason = f"there whitened patches have {PLENTY:.0%} of their largest lead over Gaussian ones, {best:.1%}"
    if enough > 0.7 * counts[-1]:
        reason += ", which still grows at the most centroids measured: more atoms will help more"
    return atoms, reason
