"""Whitening of patches: the affine map after which every direction varies equally (paper, section 3).

Shapes: M sampled patches, P patch numbers.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Whitening:
    """The affine map to whitened patches, z -> (z - mean) @ matrix."""

    mean: Tensor
    """(P,)"""
    matrix: Tensor
    """(P, P); with PCA a column is one whitened coordinate, in order of falling variance"""

    def __call__(self, patches: Tensor) -> Tensor:
        """Whiten patches (..., P) to (..., P)."""
        return (patches - self.mean) @ self.matrix


def by_variance(variance: Tensor, epsilon: float) -> Tensor:
    """(lambda + epsilon * mean lambda)^-1/2: weak directions, which are noise, are not blown up (Thiry et al. 2021)."""
    return (variance + max(epsilon, 1e-9) * variance.mean()).rsqrt()


def by_deviation(variance: Tensor, epsilon: float) -> Tensor:
    """1 / (sqrt(lambda) + epsilon): the authors' formula; their epsilon of 0.001 regularises next to nothing."""
    return 1 / (variance.sqrt() + max(epsilon, 1e-9))


SCALES: dict[str, Callable[[Tensor, float], Tensor]] = {"variance": by_variance, "deviation": by_deviation}
MATRICES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "pca": lambda vectors, scale: vectors * scale,
    "zca": lambda vectors, scale: (vectors * scale) @ vectors.T,
    "none": lambda vectors, scale: torch.eye(len(scale), dtype=scale.dtype, device=scale.device),
}


def fit_whitening(
    patches: Tensor, epsilon: float, kind: str = "pca", scale: str = "variance", center: bool = True
) -> Whitening:
    """Find the whitening of patches (M, P), W = V diag(scale) with V the eigenvectors of their covariance.

    With `kind` "pca" and `scale` "variance" the whitened covariance is diag(lambda / (lambda + epsilon * mean lambda)).

    Args:
        patches: (M, P).
        epsilon: regularises the eigenvalues; see `SCALES`. At least 0.
        kind: pca; zca, W V^T, which stays closest to the patches; or none.
        scale: a name in `SCALES`.
        center: whether the mean is taken off.

    Raises:
        ValueError: all patches are the same, so that there is nothing to whiten.
    """
    z = patches.double()
    mean = z.mean(0)
    z = z - mean
    variance, vectors = torch.linalg.eigh(z.T @ z / len(z))
    # eigh leaves the sign of a vector open; fixing it makes the result the same with every linear algebra library
    vectors = vectors * vectors.gather(0, vectors.abs().argmax(0, keepdim=True)).sign()
    variance, vectors = variance.flip(0).clamp_min(0), vectors.flip(1)
    if not variance.mean() > 1e-12 * mean.square().mean().clamp_min(1e-12):
        raise ValueError("the patches have zero covariance: every image looks the same")
    matrix = MATRICES[kind](vectors, SCALES[scale](variance, epsilon))
    return Whitening((mean if center else torch.zeros_like(mean)).to(patches.dtype), matrix.to(patches.dtype))
