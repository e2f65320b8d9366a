"""The embedding of a batch, pooled: one function a kind, each run by the fastest backend that can.

Shapes: B batch, C channels, H W image side, s patch side, P = s*s*C, N atoms, k neighbors, h = H-s+1, w = W-s+1,
h' = ceil(h/pool), w' = ceil(w/pool). An affine map of patches is a (P+1, N) matrix whose last row is the offset.
"""

import warnings
from functools import cache
from types import ModuleType

import torch
from torch import Tensor

from layerwise.ops import reference

__all__ = ["backend", "embed_full", "embed_hard"]


def embed_full(x: Tensor, scorer: Tensor, maps: Tensor, patch_size: int, neighbors: int, pool: int) -> Tensor:
    """Gate every atom's affine map of the patch by whether the atom is near, and average over windows.

    a_j = g_j * (maps_j applied to the patch), with g_j = 1 for the k atoms of lowest score, ties to the lowest index.
    It is the linear map, block-diagonal and shared over positions, on the paper's embedding Phi_full.

    Args:
        x: images or feature maps, (B, C, H, W). No gradient flows to it: all that lies below a layer is frozen.
        scorer: (P+1, N), gives half the squared distance to each atom, up to a number common to all atoms.
        maps: (P+1, N), the trained part.
        patch_size: s.
        neighbors: k, from 1 to N.
        pool: side of the averaged windows; a window at the border averages what it covers.

    Returns:
        (B, N, h', w').
    """
    return backend(x).embed_full(x.detach(), scorer, maps, patch_size, neighbors, pool)  # type: ignore[no-any-return]


def embed_hard(x: Tensor, scorer: Tensor, patch_size: int, neighbors: int, pool: int) -> Tensor:
    """The paper's Phi_hard, averaged over windows: as `embed_full`, with 1 in place of the mapped patch."""
    return backend(x).embed_hard(x.detach(), scorer, patch_size, neighbors, pool)  # type: ignore[no-any-return]


def backend(x: Tensor) -> ModuleType:
    """The module of this package that runs the embedding of `x`."""
    if x.device.type == "cpu" and x.dtype == torch.float32:
        return _cpu()
    return reference


@cache
def _cpu() -> ModuleType:
    try:
        from layerwise.ops import cpu
    except (ImportError, RuntimeError) as error:  # RuntimeError: nowhere to keep what it compiles
        warnings.warn(f"Numba cannot be used ({error}): embedding with plain torch, several times slower", stacklevel=2)
        return reference
    return cpu
