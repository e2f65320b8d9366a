"""Which atoms are near a patch, in principal components: a description that needs no labels.

Shapes: M patches, P dimensions, N atoms, k neighbors, D components.
"""

import torch
from torch import Tensor

from layerwise.ops import exactly, nearest_mask
from layerwise.ops.bounded import NUMBERS

PATCHES = 1 << 16
"""that components are learned from, at most"""


def a_few(points: Tensor) -> Tensor:
    """Those that components are learned from."""
    return points[:: -(-len(points) // PATCHES)]


def gate_components(points: Tensor, atoms: Tensor, neighbors: int, count: int, variance: float, paired: bool) -> Tensor:
    """Principal components of the gates of whitened patches (M, P): maps (N, D) of gates.

    Their variances have the mean `variance`, that of what they are put beside, so that neither outweighs the other.
    With `paired`, atoms, whose second half mirrors the first, are counted together with those of the mirrored patches,
    and so components are in pairs, too: the second half is what the first would be of a mirrored patch.
    """
    with exactly():
        covariance = _covariance(points, atoms, neighbors)
        if not paired:
            variances, maps = _leading(covariance, count)
        else:
            own, other = covariance[: len(atoms) // 2].chunk(2, 1)
            own_mirrored, other_mirrored = reversed(covariance[len(atoms) // 2 :].chunk(2, 1))
            own, other = (own + own_mirrored) / 2, (other + other_mirrored) / 2
            (even_variances, even), (odd_variances, odd) = (
                _leading(part, count // 2) for part in (own + other, own - other)
            )
            variances = torch.cat([even_variances, odd_variances])
            first, second = torch.cat([even + odd, even - odd]), torch.cat([even - odd, even + odd])
            maps = torch.cat([first, second], 1) / 2
        return (maps * (variance / variances.mean()).sqrt()).float()


def _covariance(points: Tensor, atoms: Tensor, neighbors: int) -> Tensor:
    """That of the gates, (N, N) float64."""
    half_norms = atoms.square().sum(1) / 2
    together = torch.zeros(len(atoms), len(atoms), dtype=torch.float64, device=points.device)
    shares = torch.zeros(len(atoms), dtype=torch.float64, device=points.device)
    for part in torch.split(points, max(1, NUMBERS // len(atoms))):
        scores = torch.addmm(half_norms, part, atoms.T, alpha=-1)
        gates = nearest_mask(scores, neighbors).to(scores)
        together += gates.T @ gates
        shares += gates.sum(0)
    shares /= len(points)
    return together / len(points) - shares[:, None] * shares


def _leading(covariance: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The highest variances and their directions, as columns."""
    variances, directions = torch.linalg.eigh(covariance)
    return variances[-count:].flip(0).clamp_min(0), directions[:, -count:].flip(1)
