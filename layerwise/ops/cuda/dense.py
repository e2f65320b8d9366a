"""The embedding and its gradient where many atoms are near: products with all atoms, under a mask that is kept as bits.

The (positions x atoms) products stay on chip. For shapes see `layerwise.ops`; near is (B, h, w, S) uint8.
"""
# mypy: disable-error-code="import-untyped, no-untyped-call, no-untyped-def, untyped-decorator"

import triton
import triton.language as tl
from torch import Tensor

from layerwise.ops.cuda.tiles import block, dot, place, product, rows, splits, window_at, window_place
from layerwise.ops.exact import rounded

EMBED_TILE = 64, 128, 8  # positions, atoms, warps
GRADIENT_TILE = 128, 64, 32, 8  # patch numbers, atoms, positions a step, warps


@triton.jit
def _fold(tile, GROUP: tl.constexpr):
    """Sum every GROUP rows that follow each other."""
    if GROUP == 1:
        return tile
    else:
        return tl.sum(tl.reshape(tile, (tile.shape[0] // GROUP, GROUP, tile.shape[1])), 1)


@triton.jit
def _near(near, position, atom, exists, N):
    """0 or 1 for each position and atom."""
    words = near + position.to(tl.int64)[:, None] * tl.cdiv(N, 8) + (atom // 8)[None, :]
    bits = tl.load(words, mask=exists[:, None] & (atom < N)[None, :], other=0)
    return (bits.to(tl.int32) >> (atom % 8)[None, :]) & 1


@triton.jit
def embed_kernel(
    x, maps, near, out, windows, H, W, N, S: tl.constexpr, C: tl.constexpr, POOL: tl.constexpr,
    ROWS: tl.constexpr, ATOMS: tl.constexpr, GROUP: tl.constexpr, EXACT: tl.constexpr, MAPPED: tl.constexpr,
):  # fmt: skip
    """Averages over windows of the near atoms' maps, or of 1. A tile has GROUP positions of each window at a time."""
    h, w = H - S + 1, W - S + 1
    blocks = tl.cdiv(N, ATOMS)
    tile, first_atom = tl.program_id(0) // blocks, tl.program_id(0) % blocks * ATOMS
    row = tl.arange(0, ROWS)
    window = tile * (ROWS // GROUP) + row // GROUP
    atom = first_atom + tl.arange(0, ATOMS)
    image, top, left, _ = window_place(window, h, w, POOL)
    total = tl.zeros((ROWS // GROUP, ATOMS), tl.float32)
    for first in range(0, POOL * POOL, GROUP):
        p = first + row % GROUP
        y, column = top + p // POOL, left + p % POOL
        inside = (window < windows) & (p < POOL * POOL) & (y < h) & (column < w)
        marks = _near(near, (image * h + y) * w + column, atom, inside, N)
        if MAPPED:
            patches = x + ((image.to(tl.int64) * H + y) * W + column) * C
            mapped = product(patches, inside, maps, first_atom, W, N, S, C, ATOMS, EXACT, 0.0)
            total += _fold(tl.where(marks != 0, mapped, 0.0), GROUP)
        else:
            total += _fold(marks, GROUP).to(tl.float32)
    window = tile * (ROWS // GROUP) + tl.arange(0, ROWS // GROUP)
    _, _, _, share = window_place(window, h, w, POOL)
    averages = out + window.to(tl.int64)[:, None] * N + atom[None, :]
    tl.store(averages, total * share[:, None], mask=(window < windows)[:, None] & (atom < N)[None, :])


@triton.jit
def gradient_kernel(
    x, grad, near, out, positions, H, W, N, S: tl.constexpr, C: tl.constexpr, POOL: tl.constexpr,
    NUMBERS: tl.constexpr, ATOMS: tl.constexpr, ROWS: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    """One block of the gradient of the maps, summed over every so many tiles of positions.

    `x` is (B, C, H, W) here: the matrix units read float32 with the summed dimension, positions, contiguous.
    """
    P: tl.constexpr = S * S * C
    h, w = H - S + 1, W - S + 1
    number = tl.program_id(1) * NUMBERS + tl.arange(0, NUMBERS)
    atom = tl.program_id(2) * ATOMS + tl.arange(0, ATOMS)
    number_offset = (number % C * H + number // (S * C)) * W + number // C % S
    total = tl.zeros((ATOMS, NUMBERS), tl.float32)
    for tile in range(tl.program_id(0), tl.cdiv(positions, ROWS), tl.num_programs(0)):
        position = tile * ROWS + tl.arange(0, ROWS)
        exists = position < positions
        image, row, column = place(position, h, w)
        window, share = window_at(image, row, column, h, w, POOL)
        passed = tl.load(
            grad + window.to(tl.int64)[:, None] * N + atom[None, :],
            mask=exists[:, None] & (atom < N)[None, :],
            other=0.0,
        )
        passed = tl.where(_near(near, position, atom, exists, N) != 0, passed * share[:, None], 0.0)
        patches = x + (image.to(tl.int64) * C * H + row) * W + column
        patch = tl.load(
            patches[None, :] + number_offset[:, None], mask=exists[None, :] & (number < P)[:, None], other=0.0
        )
        patch = tl.where((number == P)[:, None], 1.0, patch)  # the offset sees a patch with a 1 appended
        total = dot(tl.trans(passed), tl.trans(patch), total, EXACT)
    sums = out + (tl.program_id(0).to(tl.int64) * (P + 1) + number)[None, :] * N + atom[:, None]
    tl.store(sums, total, mask=(atom < N)[:, None] & (number <= P)[None, :])


def embed(pixels: Tensor, maps: Tensor | None, near: Tensor, atoms: int, patch_size: int, pool: int) -> Tensor:
    """Average the near atoms' maps (P+1, N) of (B, H, W, C), or without maps count 1, over windows: (B, h', w', N)."""
    b, h, w = near.shape[:3]
    out = pixels.new_empty(b, triton.cdiv(h, pool), triton.cdiv(w, pool), atoms)
    windows = out.numel() // atoms
    positions, most, warps = EMBED_TILE
    tile = block(atoms, most)
    group = min(triton.next_power_of_2(pool * pool), positions)
    embed_kernel[(triton.cdiv(windows * group, positions) * triton.cdiv(atoms, tile),)](
        pixels, pixels if maps is None else rows(maps), near, out, windows, *pixels.shape[1:3], atoms,
        S=patch_size, C=pixels.shape[3], POOL=pool, ROWS=positions, ATOMS=tile, GROUP=group,
        EXACT=not rounded(), MAPPED=maps is not None, num_warps=warps, num_stages=3,
    )  # fmt: skip
    return out


def gradient(x: Tensor, grad: Tensor, near: Tensor, patch_size: int, pool: int) -> Tensor:
    """The gradient of the maps, (P+1, N), of x (B, C, H, W)."""
    c, atoms, positions = x.shape[1], grad.shape[1], near.shape[:3].numel()
    numbers = patch_size * patch_size * c + 1
    most_numbers, most_atoms, step, warps = GRADIENT_TILE
    number_tile, atom_tile = block(numbers, most_numbers), block(atoms, most_atoms)
    blocks = triton.cdiv(numbers, number_tile), triton.cdiv(atoms, atom_tile)
    parts = x.new_empty(splits(x, blocks[0] * blocks[1], triton.cdiv(positions, step)), numbers, atoms)
    gradient_kernel[(len(parts), *blocks)](
        x.contiguous(), grad.permute(0, 2, 3, 1).contiguous(), near, parts, positions, *x.shape[2:], atoms,
        S=patch_size, C=c, POOL=pool, NUMBERS=number_tile, ATOMS=atom_tile, ROWS=step,
        EXACT=not rounded(), num_warps=warps, num_stages=1,
    )  # fmt: skip
    return parts.sum(0)
