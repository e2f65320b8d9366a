"""The embedding on an NVIDIA GPU: what launches the Triton kernels of `layerwise.ops.kernels`.

Precision: distances are float32-accurate always, because what is near must not depend on a setting. The maps' product
and their gradient are float32-accurate where `torch.get_float32_matmul_precision()` is "highest" (torch's default),
else TF32. For shapes, and how gates are kept, see `layerwise.ops`.
"""
# mypy: disable-error-code="import-untyped, no-untyped-call"

import warnings
from functools import cache
from statistics import NormalDist

import torch
import triton
from torch import Tensor

from layerwise.ops import reference
from layerwise.ops.kernels import STEP, embed_kernel, gate_kernel, gradient_kernel
from layerwise.ops.reference import convolve, lowest, near

__all__ = ["add_up", "backward", "convolve", "forward", "kept", "lowest", "near"]

ATOMS_ON_CHIP = 1024  # up to here the scores of a tile of positions stay in registers; above, each pass multiplies anew
ATOMS_A_BLOCK = 128  # atoms a block, where the scores do not stay
GATE_TILES = [(64, 128, 4), (256, 64, 4), (512, 32, 8), (1024, 16, 8)]  # atoms at most: positions a tile, warps
EMBED_TILE = 64, 128  # positions, atoms
GRADIENT_TILE = 128, 64, 32  # patch dimensions, atoms, positions a step
PROGRAMS_A_PROCESSOR = 2  # programs that a launch should have for each multiprocessor


def supports(x: Tensor, patch_size: int, atoms: int, pool: int) -> str | None:
    """Say why the kernels cannot run a shape, x (B, C, H, W) and N atoms; None if they can."""
    b, c, h, w = x.shape
    tall, wide = _windows(h, w, patch_size, pool)
    most = 2**31 - 1024  # what 32 bits count, less a tile
    if max(b * tall * wide * _bits(pool), b * h * w) > most:
        return f"{b} images of {h}x{w} have too many positions"
    if max(c * h * w, (patch_size * patch_size * c + STEP.value) * atoms) > most:
        return f"{atoms} maps of patches of {patch_size}x{patch_size}x{c}, or images of {c}x{h}x{w}, are too large"
    return None


def kept(b: int, h: int, w: int, atoms: int, neighbors: int | None, pool: int) -> tuple[tuple[int, ...], torch.dtype]:
    """Shape and type of what is kept: gates, a bit for each position of a window, (B, h', w', bytes, N)."""
    if neighbors is None:
        return reference.kept(b, h, w, atoms, neighbors, pool)
    return (b, -(-h // pool), -(-w // pool), -(-pool * pool // 8), atoms), torch.uint8


def forward(
    x: Tensor,
    scorer: Tensor,
    maps: Tensor | None,
    patch_size: int,
    neighbors: int,
    pool: int,
    near: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The embedding, with channels last in memory, and the gates. Without maps, the share of positions near an atom.

    Bit p % 8 of byte p // 8 of a gate is position p = dy*pool + dx of the window; positions outside the image are 0.
    """
    if near is not None or not _can_run(x, patch_size, scorer.shape[1], pool):
        return reference.forward(x, scorer, maps, patch_size, neighbors, pool, near)
    b, c, h, w = x.shape
    n, (tall, wide), bits = scorer.shape[1], _windows(h, w, patch_size, pool), _bits(pool)
    windows = b * tall * wide
    gates = x.new_empty(b, tall, wide, -(-pool * pool // 8), n, dtype=torch.uint8)
    out = x.new_empty(b, tall, wide, n)
    # where a multiprocessor shares less memory than an A100's or H100's, the widest tiles do not fit
    small = x.is_cuda and torch.cuda.get_device_properties(x.device).shared_memory_per_block_optin < 140_000
    on_chip = n <= (min(256, ATOMS_ON_CHIP) if small else ATOMS_ON_CHIP)
    atoms = _block(n, ATOMS_ON_CHIP if on_chip else ATOMS_A_BLOCK)
    rows, warps = next(tile for most, *tile in GATE_TILES if atoms <= most)
    with torch.cuda.device_of(x):
        pixels = x.permute(0, 2, 3, 1).contiguous()
        gate_kernel[(triton.cdiv(windows * bits, rows),)](
            pixels, _rows(scorer), gates, windows, h, w, n, neighbors,
            NormalDist().inv_cdf(min(max(neighbors / n, 1e-3), 1 - 1e-3)),
            S=patch_size, C=c, POOL=pool, ROWS=rows, ATOMS=atoms, GROUP=min(bits, 8), ON_CHIP=on_chip,
            num_warps=warps, num_stages=3,
        )  # fmt: skip
        rows, atoms = EMBED_TILE
        atoms, group = _block(n, atoms), 1
        # a position of every window at a time wastes nothing, but where windows are few it leaves processors idle
        while group < min(pool * pool, rows) and windows * group < PROGRAMS_A_PROCESSOR * _processors(x) * rows:
            group *= 2
        embed_kernel[(triton.cdiv(windows * group, rows) * triton.cdiv(n, atoms),)](
            pixels, pixels if maps is None else _rows(maps), gates, out, windows, h, w, n,
            S=patch_size, C=c, POOL=pool, ROWS=rows, ATOMS=atoms, GROUP=group, EXACT=_exact(), MAPPED=maps is not None,
            num_warps=4, num_stages=3,
        )  # fmt: skip
    return out.permute(0, 3, 1, 2), gates


def backward(x: Tensor, grad: Tensor, gates: Tensor, patch_size: int, pool: int) -> Tensor:
    """The gradient of the maps: the same bits at every call, as every sum has its order."""
    if gates.ndim == 4:  # what is near, from the reference
        return reference.backward(x, grad, gates, patch_size, pool)
    b, c, h, w = x.shape
    n, numbers = gates.shape[-1], patch_size * patch_size * c + 1
    positions = b * (h - patch_size + 1) * (w - patch_size + 1)
    number_block, atom_block, rows = GRADIENT_TILE
    number_block, atom_block = _block(numbers, number_block), _block(n, atom_block)
    blocks = triton.cdiv(numbers, number_block), triton.cdiv(n, atom_block)
    splits = PROGRAMS_A_PROCESSOR * _processors(x) // (blocks[0] * blocks[1])
    splits = max(1, min(splits, triton.cdiv(positions, rows)))
    parts = x.new_empty(splits, numbers, n)
    with torch.cuda.device_of(x):
        gradient_kernel[(splits, *blocks)](
            x.contiguous(), grad.permute(0, 2, 3, 1).contiguous(), gates, parts, positions, h, w, n,
            S=patch_size, C=c, POOL=pool, NUMBERS=number_block, ATOMS=atom_block, ROWS=rows, EXACT=_exact(),
            num_warps=4, num_stages=1,
        )  # fmt: skip
        return parts.sum(0)


def add_up(points: Tensor, index: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Sum and number of the points of each cluster: the same bits at every call.

    A GPU's `index_add_` adds in any order; this sorts by cluster, then adds in the order of the points.
    """
    sums = points.new_zeros(count, points.shape[1]).index_put_((index,), points, accumulate=True)
    return sums, torch.bincount(index, minlength=count)


def _can_run(x: Tensor, patch_size: int, atoms: int, pool: int) -> bool:
    if reason := supports(x, patch_size, atoms, pool):
        _say(reason)
    return reason is None


@cache
def _say(reason: str) -> None:
    warnings.warn(f"embedding in plain torch, several times slower: {reason}", stacklevel=2)


def _rows(weight: Tensor) -> Tensor:
    """An affine map (P+1, N) as (N, D), zero-padded to a D that is a multiple of STEP."""
    rows = weight.new_zeros(weight.shape[1], triton.cdiv(weight.shape[0], STEP.value) * STEP.value)
    rows[:, : weight.shape[0]] = weight.T
    return rows


def _windows(h: int, w: int, patch_size: int, pool: int) -> tuple[int, int]:
    """Windows down and across an image of H x W."""
    return -(-(h - patch_size + 1) // pool), -(-(w - patch_size + 1) // pool)


def _bits(pool: int) -> int:
    """Rows that a window takes in a tile of `_gate`: a power of two up to a byte's 8, then whole bytes."""
    size = pool * pool
    return -(-size // 8) * 8 if size > 8 else int(triton.next_power_of_2(size))


def _block(size: int, most: int) -> int:
    """The power of two that covers `size`, from 16, the least that a product takes, to `most`."""
    return min(max(16, int(triton.next_power_of_2(size))), most)


def _exact() -> bool:
    return torch.get_float32_matmul_precision() == "highest"


def _processors(x: Tensor) -> int:
    return torch.cuda.get_device_properties(x.device).multi_processor_count if x.is_cuda else 1
