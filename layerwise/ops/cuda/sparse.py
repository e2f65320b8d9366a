"""The embedding and its gradient where few atoms are near, as indices say: what costs is the near atoms, not all.

No sum is left to the order in which threads come: a window's averages are one program's, which takes its positions one
after another, and an atom's gradient is summed along the list of the positions that it is near to. Sums are float32.

For shapes see `layerwise.ops`; near is (B, h, w, k) int16 or int32, ascending.
"""
# mypy: disable-error-code="import-untyped, no-untyped-call, no-untyped-def, untyped-decorator"

import torch
import triton
import triton.language as tl
from torch import Tensor

from layerwise.ops.cuda.tiles import STEP, block, patch_numbers, place, rows, splits, window_at, window_place

EMBED_TILE = 16, 64, 2  # near atoms, patch numbers a step, warps
GRADIENT_TILE = 128, 16, 4  # patch numbers, positions a step, warps


@triton.jit
def _mapped(patch, maps, atom, exists, W, S: tl.constexpr, C: tl.constexpr, NUMBERS: tl.constexpr):
    """One patch's affine map for some atoms."""
    P: tl.constexpr = S * S * C
    DEPTH: tl.constexpr = (P // STEP + 1) * STEP
    total = tl.zeros((atom.shape[0], NUMBERS), tl.float32)
    for start in range(0, DEPTH, NUMBERS):
        p = start + tl.arange(0, NUMBERS)
        padded = p < DEPTH  # so that four numbers are one load
        numbers = patch_numbers(patch, p, padded, W, S, C)
        weight = tl.load(maps + atom[:, None] * DEPTH + p[None, :], mask=exists[:, None] & padded[None, :], other=0.0)
        total += weight * numbers[None, :]
    return tl.sum(total, 1)


@triton.jit
def embed_kernel(
    x, maps, near, out, H, W, N, K, S: tl.constexpr, C: tl.constexpr, POOL: tl.constexpr,
    ATOMS: tl.constexpr, NUMBERS: tl.constexpr, MAPPED: tl.constexpr,
):  # fmt: skip
    """Add to the averages of one window, which are zero before, its positions' near maps, or 1 for each."""
    h, w = H - S + 1, W - S + 1
    window = tl.program_id(0)
    image, top, left, share = window_place(window, h, w, POOL)
    averages = out + window.to(tl.int64) * N
    for y in range(top, tl.minimum(top + POOL, h)):
        for column in range(left, tl.minimum(left + POOL, w)):
            patch = x + ((image.to(tl.int64) * H + y) * W + column) * C
            indices = near + ((image.to(tl.int64) * h + y) * w + column) * K
            for first in range(0, K, ATOMS):
                slot = first + tl.arange(0, ATOMS)
                atom = tl.load(indices + slot, mask=slot < K, other=0).to(tl.int32)
                value = tl.full((ATOMS,), 1.0, tl.float32)
                if MAPPED:
                    value = _mapped(patch, maps, atom, slot < K, W, S, C, NUMBERS)
                before = tl.load(averages + atom, mask=slot < K, other=0.0)
                tl.debug_barrier()  # several threads may hold the same atom: all read before one writes
                tl.store(averages + atom, before + value * share, mask=slot < K)
            tl.debug_barrier()  # other threads add to the same atoms at the next position


@triton.jit
def gradient_kernel(
    x, grad, order, ends, out, H, W, N, S: tl.constexpr, C: tl.constexpr, POOL: tl.constexpr,
    NUMBERS: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """One block of one atom's gradient, summed over every so many of the positions that the atom is near to.

    `order` has those of all atoms, one atom's after another's, and `ends` where each atom's end.
    """
    P: tl.constexpr = S * S * C
    h, w = H - S + 1, W - S + 1
    atom = tl.program_id(0)
    number = tl.program_id(1) * NUMBERS + tl.arange(0, NUMBERS)
    start, end = tl.load(ends + atom - 1, mask=atom > 0, other=0), tl.load(ends + atom)
    total = tl.zeros((ROWS, NUMBERS), tl.float32)
    for first in range(start + tl.program_id(2) * ROWS, end, tl.num_programs(2) * ROWS):
        entry = first + tl.arange(0, ROWS)
        exists = entry < end
        image, row, column = place(tl.load(order + entry, mask=exists, other=0), h, w)
        window, share = window_at(image, row, column, h, w, POOL)
        passed = tl.load(grad + window.to(tl.int64) * N + atom, mask=exists, other=0.0) * share
        patches = x + ((image.to(tl.int64) * H + row) * W + column) * C
        total += passed[:, None] * patch_numbers(patches[:, None], number[None, :], exists[:, None], W, S, C)
    sums = out + (tl.program_id(2).to(tl.int64) * (P + 1) + number) * N + atom
    tl.store(sums, tl.sum(total, 0), mask=number <= P)


def embed(pixels: Tensor, maps: Tensor | None, near: Tensor, atoms: int, patch_size: int, pool: int) -> Tensor:
    """Average the near atoms' maps (P+1, N) of (B, H, W, C), or without maps count 1, over windows: (B, h', w', N)."""
    b, h, w, k = near.shape
    out = pixels.new_zeros(b, triton.cdiv(h, pool), triton.cdiv(w, pool), atoms)
    most, step, warps = EMBED_TILE
    embed_kernel[(out.numel() // atoms,)](
        pixels, pixels if maps is None else rows(maps), near, out, *pixels.shape[1:3], atoms, k,
        S=patch_size, C=pixels.shape[3], POOL=pool, ATOMS=min(triton.next_power_of_2(k), most), NUMBERS=step,
        MAPPED=maps is not None, num_warps=warps,
    )  # fmt: skip
    return out


def gradient(x: Tensor, grad: Tensor, near: Tensor, patch_size: int, pool: int) -> Tensor:
    """The gradient of the maps, (P+1, N), of x (B, C, H, W)."""
    c, atoms, positions = x.shape[1], grad.shape[1], near.shape[:3].numel()
    numbers = patch_size * patch_size * c + 1
    which, order = near.flatten().sort(stable=True)
    ends = torch.searchsorted(which, torch.arange(atoms, dtype=near.dtype, device=x.device), right=True)
    most, step, warps = GRADIENT_TILE
    tile = block(numbers, most)
    blocks = triton.cdiv(numbers, tile)
    parts = x.new_empty(splits(x, blocks * atoms, triton.cdiv(positions, step)), numbers, atoms)
    gradient_kernel[(atoms, blocks, len(parts))](
        x.permute(0, 2, 3, 1).contiguous(), grad.permute(0, 2, 3, 1).contiguous(),
        (order // near.shape[3]).int(), ends, parts, *x.shape[2:], atoms,
        S=patch_size, C=c, POOL=pool, NUMBERS=tile, ROWS=step, num_warps=warps,
    )  # fmt: skip
    return parts.sum(0)
