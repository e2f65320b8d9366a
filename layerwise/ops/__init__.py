"""The arithmetic that takes the time, each part run by the fastest backend that can; the embedding is an operator.

Shapes: B batch, C channels, H W image side, s patch side, P = s*s*C, N atoms, k neighbors, h = H-s+1, w = W-s+1,
h' = ceil(h/pool), w' = ceil(w/pool). An affine map of patches is a (P+1, N) matrix whose last row is the offset.

A backend is a module with five functions for the embedding, and two for clustering:

    forward(x, scorer, maps or None, patch_size, neighbors, pool, near or None) -> pooled (B, N, h', w'), near
    near(x, scorer, patch_size, neighbors, mirror or None) -> near
    convolve(x, maps, patch_size, pool) -> pooled (B, N, h', w'), near
    backward(x, grad, near, patch_size, pool) -> gradient of the maps (P+1, N)
    unfolded(weight (P, n), bias (n,), factors (P,), mean (P,), order (P,) or None) -> maps (P+1, N)
    lowest(scores (M, N)) -> index (M,), score (M,)
    add_up(points (M, P), index (M,), N) -> sums (N, P), sizes (N,)

It may have `gather`, too, which is `forward` without zeros; its `backward` then takes the number of atoms, too, where a
gradient is of what was gathered.

Which atoms are near is kept for the backward pass, and can be given where it is known, by every backend alike, as
`layerwise.ops.near` says.
"""

import warnings
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from layerwise.ops import convolution, reference
from layerwise.ops.bounded import chunks
from layerwise.ops.exact import as_torch_begins, exactly, in_float32, multiplied_with
from layerwise.ops.near import layout, places
from layerwise.ops.reference import affine, average_pool, extract_patches, kth_lowest, nearest_mask, sample_patches

__all__ = ["affine", "as_torch_begins", "average_pool", "chunks", "convolve", "embed", "exactly", "extract_patches"]
__all__ += [
    "gather",
    "gathers",
    "in_float32",
    "kth_lowest",
    "multiplied_with",
    "near",
    "nearest_mask",
    "sample_patches",
    "unfolded",
]

FEW = 8
"""times as many atoms as may be near to a window, and `gather` pays"""


def embed(
    x: Tensor,
    scorer: Tensor,
    maps: Tensor | None,
    patch_size: int,
    neighbors: int,
    pool: int,
    near: Tensor | None = None,
) -> Tensor:
    """Gate every atom's affine map of the patch by whether the atom is near, and average over windows.

    a_j = g_j * (maps_j applied to the patch), with g_j = 1 for the k atoms of lowest score, ties to the lowest index.
    It is the linear map, block-diagonal and shared over positions, on the paper's embedding Phi_full. Without maps,
    a_j = g_j: Phi_hard.

    Takes (B, C, H, W) to (B, N, h', w'); a window at the border averages what it covers. No gradient flows to x: all
    that lies below a layer is frozen. The scorer gives half the squared distance to each atom, up to a number common to
    all atoms; the maps are the trained part. 1 ≤ k ≤ N. Where `near`, (B, h, w, S), says which atoms are near, that is
    not computed.
    """
    if torch.compiler.is_exporting():  # for programs where there is no layerwise
        return reference.embed(x, scorer, maps, patch_size, neighbors, pool)
    pooled: Tensor = _embed(_by_pixel(x), scorer, maps, near, patch_size, neighbors, pool)[0]
    return pooled


def gathers(x: Tensor, atoms: int, neighbors: int, pool: int) -> bool:
    """Whether `gather` can be had of x, and pays, as few atoms are near to a window."""
    few = layout(atoms, neighbors)[1] != torch.uint8 and places(atoms, neighbors, pool) * FEW <= atoms
    return few and pool <= 4 and hasattr(backend(x), "gather")


def gather(
    x: Tensor, scorer: Tensor, maps: Tensor, patch_size: int, neighbors: int, pool: int, near: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The same embedding as `embed`, without its zeros: a window's numbers and the atoms they are of.

    Takes (B, C, H, W) to values (B, h', w', M) and atoms (B, h', w', M) int32, of which places that are left over hold
    0 and atom 0. For what `gathers` says.
    """
    values, which, _ = _gather(_by_pixel(x), scorer, maps, near, patch_size, neighbors, pool)
    return values, which


def near(x: Tensor, scorer: Tensor, patch_size: int, neighbors: int, mirror: Tensor | None = None) -> Tensor:
    """Which k atoms are near each patch, (B, C, H, W) to (B, h, w, S), as `embed` finds it by itself.

    Where `mirror`, (P,), says where each number of a mirrored patch comes from, the second half of the atoms is the
    first half, mirrored, which a backend may make use of: scores are then rounded in another way.
    """
    found: Tensor = _near(x, scorer, patch_size, neighbors, mirror)
    return found


def unfolded(weight: Tensor, bias: Tensor, factors: Tensor, mean: Tensor, order: Tensor | None) -> Tensor:
    """Affine maps of patches, (P+1, N), from those of patches less a mean (P,), times factors (P,): (P, n) and (n,).

    Where `order` (P,) says where each number of a mirrored patch comes from, each map is followed by the one that is to
    a mirrored patch as it is to the patch, N = 2n; otherwise N = n.
    """
    own = reference if weight.is_meta or torch.compiler.is_compiling() else backend(weight)
    maps: Tensor = own.unfolded(weight, bias, factors, mean, order)
    return maps


def convolve(x: Tensor, maps: Tensor, patch_size: int, pool: int) -> Tensor:
    """Convolve, keep what is above 0, and average over windows: `embed` where the sign of the map is the gate."""
    if torch.compiler.is_exporting():
        return reference.convolve(x, maps, patch_size, pool)[0]
    if x.is_cuda and not torch.compiler.is_compiling():
        return convolution.convolve(_by_pixel(x), maps, patch_size, pool)
    pooled: Tensor = _embed(_by_pixel(x), None, maps, None, patch_size, 0, pool)[0]
    return pooled


def _by_pixel(x: Tensor) -> Tensor:
    """The order that every backend reads, once for both passes."""
    return x.detach().contiguous(memory_format=torch.channels_last)


@torch.library.custom_op("layerwise::near", mutates_args=())
def _near(x: Tensor, scorer: Tensor, patch_size: int, neighbors: int, mirror: Tensor | None) -> Tensor:
    found: Tensor = backend(x).near(x, scorer, patch_size, neighbors, mirror)
    return found


@_near.register_fake
def _(x: Tensor, scorer: Tensor, patch_size: int, neighbors: int, mirror: Tensor | None) -> Tensor:
    h, w = (side - patch_size + 1 for side in x.shape[2:])
    size, dtype = layout(scorer.shape[1], neighbors)
    return x.new_empty(x.shape[0], h, w, size, dtype=dtype)


@torch.library.custom_op("layerwise::embed", mutates_args=())
def _embed(
    x: Tensor,
    scorer: Tensor | None,
    maps: Tensor | None,
    near: Tensor | None,
    patch_size: int,
    neighbors: int,
    pool: int,
) -> tuple[Tensor, Tensor]:
    if scorer is not None:
        pooled, found = backend(x).forward(x, scorer, maps, patch_size, neighbors, pool, near)
    else:
        pooled, found = backend(x).convolve(x, maps, patch_size, pool)
    # an operator must not return what it was given
    return pooled.contiguous(memory_format=torch.channels_last), found if near is None else near.new_empty(0)


@_embed.register_fake
def _(
    x: Tensor,
    scorer: Tensor | None,
    maps: Tensor | None,
    near: Tensor | None,
    patch_size: int,
    neighbors: int,
    pool: int,
) -> tuple[Tensor, Tensor]:
    b, _, height, width = x.shape
    weight = maps if scorer is None else scorer
    assert weight is not None
    h, w, atoms = height - patch_size + 1, width - patch_size + 1, weight.shape[1]
    pooled = x.new_empty(b, -(-h // pool), -(-w // pool), atoms).permute(0, 3, 1, 2)
    if near is not None:
        return pooled, near.new_empty(0)
    size, dtype = layout(atoms, atoms if scorer is None else neighbors)
    return pooled, x.new_empty(b, h, w, size, dtype=dtype)


@torch.library.custom_op("layerwise::gather", mutates_args=())
def _gather(
    x: Tensor, scorer: Tensor, maps: Tensor, near: Tensor | None, patch_size: int, neighbors: int, pool: int
) -> tuple[Tensor, Tensor, Tensor]:
    values, which, found = backend(x).gather(x, scorer, maps, patch_size, neighbors, pool, near)
    return values, which, found if near is None else near.new_empty(0)


@_gather.register_fake
def _(
    x: Tensor, scorer: Tensor, maps: Tensor, near: Tensor | None, patch_size: int, neighbors: int, pool: int
) -> tuple[Tensor, Tensor, Tensor]:
    pooled, found = _embed(x, scorer, maps, near, patch_size, neighbors, pool)
    b, atoms, h, w = pooled.shape
    values = x.new_empty(b, h, w, places(atoms, neighbors, pool))
    return values, values.new_empty(values.shape, dtype=torch.int32), found


@torch.library.custom_op("layerwise::embed_backward", mutates_args=())
def _embed_backward(
    x: Tensor, grad: Tensor, near: Tensor, patch_size: int, pool: int, gathered_of: int | None = None
) -> Tensor:
    own = () if gathered_of is None else (gathered_of,)
    gradient: Tensor = backend(x).backward(x, grad, near, patch_size, pool, *own)
    return gradient.T.contiguous().T


@_embed_backward.register_fake
def _(x: Tensor, grad: Tensor, near: Tensor, patch_size: int, pool: int, gathered_of: int | None = None) -> Tensor:
    return x.new_empty(gathered_of or grad.shape[1], patch_size * patch_size * x.shape[1] + 1).T


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, _, maps, near, ctx.patch_size, _, ctx.pool = inputs
    ctx.gathered_of = maps.shape[1] if len(output) == 3 else None
    ctx.save_for_backward(x, output[-1] if near is None else near)


def _differentiate(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
    x, near = ctx.saved_tensors
    gradient = None
    if ctx.needs_input_grad[2]:
        gradient = _embed_backward(x, grad, near, ctx.patch_size, ctx.pool, ctx.gathered_of)
    return None, None, gradient, None, None, None, None


for _operator in (_embed, _gather):
    _operator.register_autograd(_differentiate, setup_context=_keep)


def backend(x: Tensor) -> ModuleType:
    """The module of this package that runs the embedding of `x`; warns once where that is not the fast one."""
    return _backend(x.device.type, x.dtype)


@cache
def _backend(device: str, dtype: torch.dtype) -> ModuleType:
    reason = f"{dtype} on {device} has no backend of its own"
    if dtype == torch.float32 and device in ("cpu", "cuda"):
        try:
            return import_module(f"layerwise.ops.{device}")
        except (ImportError, RuntimeError) as error:  # RuntimeError: nowhere to keep what Numba compiles
            reason = f"{'Numba' if device == 'cpu' else 'Triton'} cannot be used ({error})"
    warnings.warn(f"embedding in plain torch, several times slower: {reason}", stacklevel=2)
    return reference
