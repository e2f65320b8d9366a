"""The embedding on an NVIDIA GPU, by Triton kernels: which atoms are near, and what they map, densely or sparsely.

Which atoms are near does not depend on precision, nor does what few of them map. Products of many are float32-accurate
unless torch is told that those of matrices may be TF32's (`layerwise.ops.exact`): in training, where
`trainer.precision` is mixed. For shapes see `layerwise.ops`.
"""

# mypy: disable-error-code="no-untyped-call"

import warnings
from functools import cache
from types import ModuleType

import torch
from torch import Tensor

from layerwise.ops import reference
from layerwise.ops.cuda import dense, gates, sparse
from layerwise.ops.cuda.tiles import STEP
from layerwise.ops.reference import convolve, lowest, unfolded

__all__ = ["add_up", "backward", "convolve", "forward", "lowest", "near", "unfolded"]


def supports(x: Tensor, patch_size: int, atoms: int) -> str | None:
    """Say why the kernels cannot run a shape, x (B, C, H, W) and N atoms; None if they can."""
    b, c, h, w = x.shape
    most = 2**31 - 1024  # what 32 bits count, less a tile
    if b * h * w > most:
        return f"{b} images of {h}x{w} have too many positions"
    if max(c * h * w, (patch_size * patch_size * c + STEP.value) * atoms) > most:
        return f"{atoms} maps of patches of {patch_size}x{patch_size}x{c}, or images of {c}x{h}x{w}, are too large"
    return None


def forward(
    x: Tensor,
    scorer: Tensor,
    maps: Tensor | None,
    patch_size: int,
    neighbors: int,
    pool: int,
    near: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The embedding, with channels last in memory, and what is near. Without maps each near atom counts 1."""
    if not _can_run(x, patch_size, scorer.shape[1]):
        return reference.forward(x, scorer, maps, patch_size, neighbors, pool, near)
    with torch.cuda.device_of(x):
        pixels = x.permute(0, 2, 3, 1).contiguous()
        near = gates.find(pixels, scorer, patch_size, neighbors) if near is None else near.contiguous()
        averages = _kernels(near).embed(pixels, maps, near, scorer.shape[1], patch_size, pool)
    return averages.permute(0, 3, 1, 2), near


def near(x: Tensor, scorer: Tensor, patch_size: int, neighbors: int, mirror: Tensor | None = None) -> Tensor:
    """Which atoms are near each patch, (B, h, w, S)."""
    if not _can_run(x, patch_size, scorer.shape[1]):
        return reference.near(x, scorer, patch_size, neighbors)
    with torch.cuda.device_of(x):
        return gates.find(x.permute(0, 2, 3, 1).contiguous(), scorer, patch_size, neighbors)


def backward(x: Tensor, grad: Tensor, near: Tensor, patch_size: int, pool: int) -> Tensor:
    """The gradient of the maps, (P+1, N): the same bits at every call, as every sum has its order."""
    if not _can_run(x, patch_size, grad.shape[1]):
        return reference.backward(x, grad, near, patch_size, pool)
    with torch.cuda.device_of(x):
        gradient: Tensor = _kernels(near).gradient(x, grad, near.contiguous(), patch_size, pool)
    return gradient


def add_up(points: Tensor, index: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Sum and number of the points of each cluster: the same bits at every call.

    A GPU's `index_add_` adds in any order; this sorts by cluster, then adds in the order of the points.
    """
    sums = points.new_zeros(count, points.shape[1]).index_put_((index,), points, accumulate=True)
    return sums, torch.bincount(index, minlength=count)


def _kernels(near: Tensor) -> ModuleType:
    return dense if near.dtype == torch.uint8 else sparse


def _can_run(x: Tensor, patch_size: int, atoms: int) -> bool:
    if reason := supports(x, patch_size, atoms):
        _say(reason)
    return reason is None


@cache
def _say(reason: str) -> None:
    warnings.warn(f"embedding in plain torch, several times slower: {reason}", stacklevel=2)
