"""Intrinsic dimension: how many coordinates describe a patch, judged by the distances to its nearest patches.

Shapes: M points, P numbers of each, q neighbors.
"""

import torch
from torch import Tensor

ROWS = 1024


def neighbor_distances(points: Tensor, count: int) -> Tensor:
    """Distances of each point to its nearest others, ascending, in float64; points that occur twice count once.

    Args:
        points: (M, P), at least count + 1 different ones.
        count: q.

    Returns:
        (M', q), M' the number of different points.

    Raises:
        ValueError: there are too few different points.
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
