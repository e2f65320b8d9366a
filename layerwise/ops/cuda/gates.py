"""Which k atoms are near each patch: distances and their selection in one kernel, kept as `layerwise.ops.near` says.

Distances are float32-accurate always, because what is near must not depend on a setting. For shapes see
`layerwise.ops`.
"""
# mypy: disable-error-code="import-untyped, no-untyped-call, no-untyped-def, untyped-decorator"

from statistics import NormalDist

import torch
import triton
import triton.language as tl
from torch import Tensor

from layerwise.ops.cuda.tiles import block, place, product, rows
from layerwise.ops.near import layout

ATOMS_ON_CHIP = 1024  # up to here the scores of a tile of positions stay in registers; above, each pass multiplies anew
ATOMS_A_BLOCK = 128  # atoms a block, where the scores do not stay
TILES = [(128, 32, 4, 2), (256, 32, 8, 2), (512, 16, 8, 3), (1024, 16, 8, 2)]
"""atoms at most: positions a tile, warps, stages of the pipeline"""
SMOOTH_STEPS = tl.constexpr(16)  # steps of interpolation before the search halves, which then ends in 32


@triton.jit
def _key(value):
    """Map float32 to int32, in the same order."""
    bits = value.to(tl.int32, bitcast=True)
    return tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits)


@triton.jit
def _value(key):
    return tl.where(key < 0, key ^ 0x7FFFFFFF, key).to(tl.float32, bitcast=True)


@triton.jit
def _scores(
    kept, patches, inside, scorer, i, W, N, S: tl.constexpr, C: tl.constexpr,
    ATOMS: tl.constexpr, ON_CHIP: tl.constexpr,
):  # fmt: skip
    """Scores for block i of the atoms: those that were kept on chip, or computed anew. No atom scores infinity."""
    if ON_CHIP:
        return kept
    else:
        return product(patches, inside, scorer, i * ATOMS, W, N, S, C, ATOMS, True, float("inf"))


@triton.jit
def gate_kernel(
    x, scorer, near, positions, H, W, N, K, quantile, S: tl.constexpr, C: tl.constexpr,
    ROWS: tl.constexpr, ATOMS: tl.constexpr, ON_CHIP: tl.constexpr, BITS: tl.constexpr,
):  # fmt: skip
    """Which atoms are near, as bits or as indices. A row is a position.

    The search keeps, for each row, a bracket count(low) < K <= count(high) of float32 numbers, as integer keys. It is
    narrowed first where a normal distribution has its K/N quantile, then by interpolating the counts. The end that
    stays loses weight, or it would stay forever. A row is done when K scores are at most `high`, or when no number
    lies between the ends: then all that are left are equal to `high`.
    """
    h, w = H - S + 1, W - S + 1
    position = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    inside = position < positions
    image, row, column = place(position, h, w)
    patches = x + ((image.to(tl.int64) * H + row) * W + column) * C
    blocks = 1 if ON_CHIP else tl.cdiv(N, ATOMS)
    kept = _scores(0.0, patches, inside, scorer, 0, W, N, S, C, ATOMS, False) if ON_CHIP else 0.0

    total = tl.zeros((ROWS,), tl.float32)
    squares = tl.zeros((ROWS,), tl.float32)
    lowest = tl.full((ROWS,), float("inf"), tl.float32)
    highest = -lowest
    for i in range(blocks):
        s = _scores(kept, patches, inside, scorer, i, W, N, S, C, ATOMS, ON_CHIP)
        real = (i * ATOMS + tl.arange(0, ATOMS) < N)[None, :]
        known = tl.where(real, s, 0.0)
        total += tl.sum(known, 1)
        squares += tl.sum(known * known, 1)
        lowest = tl.minimum(lowest, tl.min(s, 1))
        highest = tl.maximum(highest, tl.max(tl.where(real, s, float("-inf")), 1))

    mean = total / N
    guess = mean + quantile * tl.sqrt(tl.maximum(squares / N - mean * mean, 0.0))
    low = _key(tl.where(lowest == 0, -1.2e-38, lowest)) - 1  # not -0, which equals 0
    high = _key(highest)
    low_count = tl.zeros((ROWS,), tl.int32)
    high_count = tl.where(inside, N, K)  # there is nothing to find outside
    below, above = (K - low_count).to(tl.float32), (high_count - K).to(tl.float32)
    steps = 0
    while tl.max(((high_count != K) & (low + 1 < high)).to(tl.int32), 0) > 0:
        middle = (low & high) + ((low ^ high) >> 1)
        if steps < SMOOTH_STEPS:
            middle = tl.minimum(tl.maximum(_key(guess), low + 1), high - 1)
        threshold = _value(middle)
        count = tl.zeros((ROWS,), tl.int32)
        for i in range(blocks):
            s = _scores(kept, patches, inside, scorer, i, W, N, S, C, ATOMS, ON_CHIP)
            count += tl.sum((s <= threshold[:, None]).to(tl.int32), 1)
        active = (high_count != K) & (low + 1 < high)
        rise, fall = active & (count < K), active & (count >= K)
        low, low_count = tl.where(rise, middle, low), tl.where(rise, count, low_count)
        high, high_count = tl.where(fall, middle, high), tl.where(fall, count, high_count)
        below = tl.where(rise, (K - count).to(tl.float32), below * 0.7)
        above = tl.where(fall, (count - K).to(tl.float32), above * 0.7)
        guess = _value(low) + (_value(high) - _value(low)) * (below / (below + above))
        steps += 1

    low_value, high_value = _value(low)[:, None], _value(high)[:, None]
    ties = tl.max(high_count, 0) > K
    tied_before = tl.zeros((ROWS,), tl.int32)
    near_before = tl.zeros((ROWS,), tl.int32)
    for i in range(blocks):
        s = _scores(kept, patches, inside, scorer, i, W, N, S, C, ATOMS, ON_CHIP)
        atom = i * ATOMS + tl.arange(0, ATOMS)
        marks = (s <= high_value) & inside[:, None]
        if ties:
            tied = (marks & (s > low_value)).to(tl.int32)
            rank = tied_before[:, None] + tl.cumsum(tied, 1)
            marks = marks & ((s <= low_value) | (rank <= (K - low_count)[:, None]))
            tied_before += tl.sum(tied, 1)
        if BITS:
            bits = tl.reshape(marks.to(tl.int32) << (atom % 8)[None, :], (ROWS, ATOMS // 8, 8))
            word = i * (ATOMS // 8) + tl.arange(0, ATOMS // 8)
            words = near + position.to(tl.int64)[:, None] * tl.cdiv(N, 8) + word[None, :]
            tl.store(words, tl.sum(bits, 2).to(tl.uint8), mask=inside[:, None] & (word < tl.cdiv(N, 8))[None, :])
        else:
            marked = marks.to(tl.int32)
            slot = near_before[:, None] + tl.cumsum(marked, 1) - 1
            indices = near + position.to(tl.int64)[:, None] * K + slot
            names = tl.broadcast_to(atom[None, :], (ROWS, ATOMS)).to(near.dtype.element_ty)
            tl.store(indices, names, mask=marks)
            near_before += tl.sum(marked, 1)


def find(pixels: Tensor, scorer: Tensor, patch_size: int, neighbors: int) -> Tensor:
    """Which atoms are near each patch of (B, H, W, C), by the scorer (P+1, N): (B, h, w, S)."""
    b, height, width, c = pixels.shape
    n, h, w = scorer.shape[1], height - patch_size + 1, width - patch_size + 1
    size, dtype = layout(n, neighbors)
    near = pixels.new_zeros(b, h, w, size, dtype=dtype)  # where a score is no number, fewer than k atoms are near
    on_chip = n <= ATOMS_ON_CHIP
    atoms = block(n, ATOMS_ON_CHIP if on_chip else ATOMS_A_BLOCK)
    positions, warps, stages = next(tile for most, *tile in TILES if atoms <= most)
    gate_kernel[(triton.cdiv(b * h * w, positions),)](
        pixels, rows(scorer), near, b * h * w, height, width, n, neighbors,
        NormalDist().inv_cdf(min(max(neighbors / n, 1e-3), 1 - 1e-3)),
        S=patch_size, C=c, ROWS=positions, ATOMS=atoms, ON_CHIP=on_chip, BITS=dtype == torch.uint8,
        num_warps=warps, num_stages=stages,
    )  # fmt: skip
    return near
