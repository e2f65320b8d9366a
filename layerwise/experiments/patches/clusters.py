"""How clustered patches are: mean distance to the nearest of N centroids, against N (paper, Figure 5).

Shapes: M patches, P patch numbers, N centroids.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from layerwise.console import progress
from layerwise.nn.kmeans import kmeans, nearest
from layerwise.nn.whitening import fit_whitening

ITERATIONS = 10
HELD_OUT = 0.25
COVERED = 0.95  # share of the held-out patches that balls have to cover
WHITENING = 0.001  # share of the mean eigenvalue: little, so that what is called whitened is
PLENTY = 0.9  # share of the largest lead over Gaussian patches that a dictionary should have
PATCHES_AN_ATOM = 256
CHANCE = 0.01  # a lead over Gaussian patches that says nothing
FEW_ATOMS = 64


@dataclass(frozen=True)
class Band:
    """Distances of held-out patches to their nearest centroid, patches and centroids as unit vectors lie: 0 to 2."""

    centroids: list[int]
    distance: list[float]
    """mean over patches and seeds, for each number of centroids"""
    deviation: list[float]
    """over seeds; 0 with one"""
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


KINDS: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    "original": lambda patches, generator: contrast(patches),
    "whitened": lambda patches, generator: whitened(patches),
    "whitened_shuffled": lambda patches, generator: shuffled(whitened(patches), generator),
    "shuffled": lambda patches, generator: shuffled(contrast(patches), generator),
    # independent normal numbers: no clusters at all
    "gaussian": lambda patches, generator: torch.randn(patches.shape, generator=generator).to(patches),
}


def log_spaced(most: int, number: int) -> list[int]:
    """Up to `number` whole numbers from 2 to `most`, in about equal ratios."""
    return sorted({round(2 * (most / 2) ** (i / max(1, number - 1))) for i in range(number)})


def measure(patches: Tensor, counts: Iterable[int], generator: torch.Generator) -> tuple[list[float], list[float]]:
    """Cluster three quarters of patches (M, P) in random order, measure on the others: `Band.distance` and `radius`.

    Each number of centroids in `counts` is at most three quarters of M; the generator is a CPU's.
    """
    points = unit(patches)
    split = math.ceil(len(points) * HELD_OUT)
    held_out, points = points[:split], points[split:]
    distances, radii = [], []
    for count in counts:
        distance = nearest(held_out, kmeans(points, count, ITERATIONS, generator))[1].sqrt()
        distances.append(float(distance.double().mean()))
        radii.append(float(distance.kthvalue(math.ceil(COVERED * len(distance))).values))
    return distances, radii


def bands(draws: list[Tensor], counts: list[int], seed: int) -> dict[str, Band]:
    """The curve of each kind in `KINDS`, over draws of patches (M, P), each clustered with a seed of its own."""
    result = {}
    for kind, make in KINDS.items():
        curves = []
        for i, patches in enumerate(draws):
            generator = torch.Generator().manual_seed(seed + i)
            what = f"clustering {kind.replace('_', ', ')} patches" + (f", draw {i + 1}" if len(draws) > 1 else "")
            curves.append(measure(make(patches, generator), progress(counts, what), generator))
        distance, radius = (torch.tensor(values) for values in zip(*curves, strict=True))
        spread = distance.std(0) if len(draws) > 1 else torch.zeros(len(counts))
        result[kind] = Band(counts, distance.mean(0).tolist(), spread.tolist(), radius.mean(0).tolist())
    return result


def leads(curves: Mapping[str, Band]) -> list[float]:
    """How much less, relatively, whitened patches are away from their centroids than Gaussian ones."""
    pairs = zip(curves["whitened"].distance, curves["gaussian"].distance, strict=True)
    return [1 - own / chance for own, chance in pairs]


def recommended_atoms(curves: dict[str, Band], patches: int) -> tuple[int, str]:
    """A number of atoms for data of so many patches, and why, from the curves of `bands`.

    The smallest at which whitened patches have nine tenths of their largest lead.
    """
    counts, lead = curves["whitened"].centroids, leads(curves)
    best, affordable = max(lead), 1 << max(1, int(math.log2(patches / PATCHES_AN_ATOM)))
    if best < CHANCE:
        reason = "whitened patches are hardly closer to centroids than chance, so that no dictionary will help much"
        return min(FEW_ATOMS, affordable), reason
    enough = next(count for count, own in zip(counts, lead, strict=True) if own >= PLENTY * best)
    atoms = 1 << max(1, math.ceil(math.log2(enough)))
    if atoms > affordable:
        return affordable, f"more would need over {patches} patches, {PATCHES_AN_ATOM} for each atom"
    reason = f"there whitened patches have {PLENTY:.0%} of their largest lead over Gaussian ones, {best:.1%}"
    if enough > 0.7 * counts[-1]:
        reason += ", which still grows at the most centroids measured: more atoms will help more"
    return atoms, reason
