"""Whitening of patches: the affine map after which every direction varies equally (paper, section 3).

Shapes: M sampled patches, P patch dimension.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from layerwise.config.choices import FORMULAS, WHITENINGS
from layerwise.ops import chunks


@dataclass(frozen=True)
class Whitening:
    """The affine map to whitened patches, z -> (z - mean) @ matrix."""

    mean: Tensor  # (P,)
    matrix: Tensor  # (P, P); with PCA a column is one whitened coordinate, in order of falling variance

    def __call__(self, patches: Tensor) -> Tensor:
        """Whiten patches (..., P) to (..., P)."""
        return (patches - self.mean) @ self.matrix


@FORMULAS("variance")
def by_variance(variance: Tensor, epsilon: float) -> Tensor:
    """(λ + ε·mean λ)^−½ of the eigenvalue λ: weak directions, which are noise, are not blown up (Thiry et al. 2021)."""
    return (variance + max(epsilon, 1e-9) * variance.mean()).rsqrt()


@FORMULAS("deviation")
def by_deviation(variance: Tensor, epsilon: float) -> Tensor:
    """1 / (√λ + ε), the authors' formula; their ε of 0.001 regularizes next to nothing."""
    return 1 / (variance.sqrt() + max(epsilon, 1e-9))


@WHITENINGS("pca")
def principal(vectors: Tensor, scale: Tensor) -> Tensor:
    """Principal components, in order of falling variance."""
    return vectors * scale


@WHITENINGS("zca")
def rotated_back(vectors: Tensor, scale: Tensor) -> Tensor:
    """Principal components turned back to pixels, which stays closest to the patches."""
    return (vectors * scale) @ vectors.T


@WHITENINGS("scaled")
def scaled(vectors: Tensor, scale: Tensor) -> Tensor:
    """The patches times one factor, which costs nothing: pca with a large epsilon comes to nearly the same."""
    return torch.eye(len(scale), dtype=scale.dtype, device=scale.device) * scale.mean()


@WHITENINGS("none")
def unchanged(vectors: Tensor, scale: Tensor) -> Tensor:
    """The patches as they are."""
    return torch.eye(len(scale), dtype=scale.dtype, device=scale.device)


def fit_whitening(
    patches: Tensor,
    epsilon: float,
    kind: str = "pca",
    formula: str = "variance",
    center: bool = True,
    mirror: Tensor | None = None,
) -> Whitening:
    """Find the whitening of patches (M, P), W = V diag(scale) with V the eigenvectors of their covariance.

    `kind` names one of `WHITENINGS`. `formula`, one of `FORMULAS`, regularizes the eigenvalues by ε ≥ 0: with "pca" and
    "variance" the whitened covariance is diag(λ / (λ + ε·mean λ)). The mean is subtracted if `center`. With `mirror`,
    (P,), which says where each number of a mirrored patch comes from, it is the whitening of the patches together with
    their mirror images. Raises ValueError where all patches are the same, so that there is nothing to whiten.
    """
    mean = patches.new_zeros(patches.shape[1], dtype=torch.float64)
    for z in chunks(patches):
        mean += z.double().sum(0)
    mean /= len(patches)
    if mirror is not None:
        mean = (mean + mean[mirror]) / 2
    covariance = torch.zeros_like(mean.diag())
    for z in chunks(patches):
        centered = z.double() - mean
        covariance += centered.T @ centered
    variance, vectors = _eigen(covariance / len(patches), mirror)
    # eigh leaves the sign of a vector open; fixing it makes the result the same with every linear algebra library
    vectors = vectors * vectors.gather(0, vectors.abs().argmax(0, keepdim=True)).sign()
    variance, vectors = variance.flip(0).clamp_min(0), vectors.flip(1)
    if not variance.mean() > 1e-12 * mean.square().mean().clamp_min(1e-12):
        raise ValueError("the patches have zero covariance: every image looks the same")
    matrix = WHITENINGS[kind](vectors, FORMULAS[formula](variance, epsilon))
    return Whitening((mean if center else torch.zeros_like(mean)).to(patches.dtype), matrix.to(patches.dtype))


def _eigen(covariance: Tensor, mirror: Tensor | None) -> tuple[Tensor, Tensor]:
    """Eigenvalues in rising order, and eigenvectors, as columns; with `mirror` each is even or odd."""
    if mirror is None:
        values, vectors = torch.linalg.eigh(covariance)
        return values, vectors
    covariance = (covariance + covariance[mirror][:, mirror]) / 2
    unit, place = torch.eye(len(mirror)).to(covariance), torch.arange(len(mirror), device=mirror.device)
    even = (unit + unit[mirror])[:, place <= mirror]
    odd = (unit - unit[mirror])[:, place < mirror]
    parts = []
    for basis in (even / even.norm(dim=0), odd / odd.norm(dim=0)):
        values, vectors = torch.linalg.eigh(basis.T @ covariance @ basis)
        parts.append((values, basis @ vectors))
    values, order = torch.cat([values for values, _ in parts]).sort(stable=True)
    return values, torch.cat([vectors for _, vectors in parts], 1)[:, order]
