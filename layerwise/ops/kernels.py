"""The embedding's three Triton kernels.

Patches are gathered from the image inside the kernels, and the (positions x atoms) products stay on chip: what device
memory holds is a bit a gate, 1/32 of a product. For shapes see `layerwise.ops`.
"""
# mypy: disable-error-code="import-untyped, no-untyped-call, no-untyped-def, untyped-decorator"

import triton
import triton.language as tl

STEP = tl.constexpr(16)  # patch numbers a step of a product; the maps' are padded to a multiple
SMOOTH_STEPS = tl.constexpr(16)  # steps of interpolation before the search halves, which then ends in 32


@triton.jit
def _tf32(a):
    """Round to the 11 significant bits that the matrix units take."""
    return ((a.to(tl.int32, bitcast=True) + 0x1000) & -0x2000).to(tl.float32, bitcast=True)


@triton.jit
def _dot(a, b, total, EXACT: tl.constexpr):
    """Add a @ b to `total`. EXACT: float32-accurate, three products of high and low parts; low by low is negligible.

    Triton's own "tf32x3" does the same with a second accumulator, for which there are not registers enough.
    """
    wide_a, wide_b = _tf32(a), _tf32(b)
    if EXACT:
        total = tl.dot(a - wide_a, wide_b, total, input_precision="tf32")
        total = tl.dot(wide_a, b - wide_b, total, input_precision="tf32")
    return tl.dot(wide_a, wide_b, total, input_precision="tf32")


@triton.jit
def _fold(tile, GROUP: tl.constexpr):
    """Sum every GROUP rows that follow each other."""
    if GROUP == 1:
        return tile
    else:
        return tl.sum(tl.reshape(tile, (tile.shape[0] // GROUP, GROUP, tile.shape[1])), 1)


@triton.jit
def _key(value):
    """Map float32 to int32, in the same order."""
    bits = value.to(tl.int32, bitcast=True)
    return tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits)


@triton.jit
def _value(key):
    return tl.where(key < 0, key ^ 0x7FFFFFFF, key).to(tl.float32, bitcast=True)


@triton.jit
def _patch_offset(p, W, S: tl.constexpr, C: tl.constexpr):
    """Where number p of a patch lies, counted from its first: a patch is S runs of S*C numbers, a row of x apart."""
    return p // (S * C) * (W * C) + p % (S * C)


@triton.jit
def _window(window, h, w, POOL: tl.constexpr):
    """Image, first row and first column of a window, and one over how many positions it covers."""
    tall, wide = tl.cdiv(h, POOL), tl.cdiv(w, POOL)
    row, column = window // wide % tall * POOL, window % wide * POOL
    area = tl.minimum(POOL, h - row) * tl.minimum(POOL, w - column)
    return window // (tall * wide), row, column, 1.0 / area.to(tl.float32)


@triton.jit
def _locate(x, window, p, count, H, W, S: tl.constexpr, C: tl.constexpr, POOL: tl.constexpr):
    """Pointers to the patches at position p of each window, and which of them exist."""
    image, row, column, _ = _window(window, H - S + 1, W - S + 1, POOL)
    row, column = row + p // POOL, column + p % POOL
    inside = (window < count) & (p < POOL * POOL) & (row <= H - S) & (column <= W - S)
    return x + ((image.to(tl.int64) * H + row) * W + column) * C, inside


@triton.jit
def _product(
    patches, inside, weight, first, W, N, S: tl.constexpr, C: tl.constexpr,
    ATOMS: tl.constexpr, EXACT: tl.constexpr, FILL: tl.constexpr,
):  # fmt: skip
    """Affine map of patches for atoms `first` and on, (rows, ATOMS); FILL where there is no such atom.

    `weight` is as `_rows` makes it: the matrix units read float32 with the summed dimension contiguous.
    """
    P: tl.constexpr = S * S * C
    DEPTH: tl.constexpr = (P // STEP + 1) * STEP
    atom = first + tl.arange(0, ATOMS)
    total = tl.zeros((patches.shape[0], ATOMS), tl.float32)
    for start in range(0, P, STEP):
        p = start + tl.arange(0, STEP)
        place = patches[:, None] + _patch_offset(p, W, S, C)[None, :]
        a = tl.load(place, mask=inside[:, None] & (p < P)[None, :], other=0.0)
        b = tl.load(weight + p[:, None] + atom[None, :] * DEPTH, mask=(atom < N)[None, :], other=0.0)
        total = _dot(a, b, total, EXACT)
    return total + tl.load(weight + P + atom * DEPTH, mask=atom < N, other=FILL)[None, :]


@triton.jit
def _scores(
    kept, patches, inside, scorer, i, W, N, S: tl.constexpr, C: tl.constexpr,
    ATOMS: tl.constexpr, ON_CHIP: tl.constexpr,
):  # fmt: skip
    """Scores for block i of the atoms: those that were kept on chip, or computed anew. No atom scores infinity."""
    if ON_CHIP:
        return kept
    else:
        return _product(patches, inside, scorer, i * ATOMS, W, N, S, C, ATOMS, True, float("inf"))


@triton.jit
def gate_kernel(
    x, scorer, gates, windows, H, W, N, K, quantile, S: tl.constexpr, C: tl.constexpr, POOL: tl.constexpr,
    ROWS: tl.constexpr, ATOMS: tl.constexpr, GROUP: tl.constexpr, ON_CHIP: tl.constexpr,
):  # fmt: skip
    """Bits of the gates. A row is a position, GROUP of them make a byte; the rows of a window follow each other.

    The search keeps, for each row, a bracket count(low) < K <= count(high) of float32 numbers, as integer keys. It is
    narrowed first where a normal distribution has its K/N quantile, then by interpolating the counts. The end that
    stays loses weight, or it would stay forever. A row is done when K scores are at most `high`, or when no number
    lies between the ends: then all that are left are equal to `high`.
    """
    BYTES: tl.constexpr = (POOL * POOL + GROUP - 1) // GROUP
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    byte, bit = row // GROUP, row % GROUP
    patches, inside = _locate(x, byte // BYTES, byte % BYTES * GROUP + bit, windows, H, W, S, C, POOL)
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
    out = tl.program_id(0) * (ROWS // GROUP) + tl.arange(0, ROWS // GROUP)
    for i in range(blocks):
        s = _scores(kept, patches, inside, scorer, i, W, N, S, C, ATOMS, ON_CHIP)
        near = (s <= high_value) & inside[:, None]
        if ties:
            tied = (near & (s > low_value)).to(tl.int32)
            rank = tied_before[:, None] + tl.cumsum(tied, 1)
            near = near & ((s <= low_value) | (rank <= (K - low_count)[:, None]))
            tied_before += tl.sum(tied, 1)
        atom = i * ATOMS + tl.arange(0, ATOMS)
        tl.store(
            gates + out.to(tl.int64)[:, None] * N + atom[None, :],
            _fold(near.to(tl.int32) << bit[:, None], GROUP).to(tl.uint8),
            mask=(out < windows * BYTES)[:, None] & (atom < N)[None, :],
        )


@triton.jit
def embed_kernel(
    x, maps, gates, out, windows, H, W, N, S: tl.constexpr, C: tl.constexpr, POOL: tl.constexpr,
    ROWS: tl.constexpr, ATOMS: tl.constexpr, GROUP: tl.constexpr,
    EXACT: tl.constexpr, MAPPED: tl.constexpr,
):  # fmt: skip
    """Averages over windows of the gated maps, or of the gates. A tile has GROUP positions of each window at a time."""
    BYTES: tl.constexpr = (POOL * POOL + 7) // 8
    blocks = tl.cdiv(N, ATOMS)
    tile, block = tl.program_id(0) // blocks, tl.program_id(0) % blocks
    row = tl.arange(0, ROWS)
    window = tile * (ROWS // GROUP) + row // GROUP
    atom = block * ATOMS + tl.arange(0, ATOMS)
    total = tl.zeros((ROWS // GROUP, ATOMS), tl.float32)
    for first in range(0, POOL * POOL, GROUP):
        p = first + row % GROUP
        patches, inside = _locate(x, window, p, windows, H, W, S, C, POOL)
        bits = tl.load(
            gates + (window.to(tl.int64) * BYTES + p // 8)[:, None] * N + atom[None, :],
            mask=inside[:, None] & (atom < N)[None, :],
            other=0,
        )
        near = (bits.to(tl.int32) >> (p % 8)[:, None]) & 1
        if MAPPED:
            mapped = _product(patches, inside, maps, block * ATOMS, W, N, S, C, ATOMS, EXACT, 0.0)
            total += _fold(tl.where(near != 0, mapped, 0.0), GROUP)
        else:
            total += _fold(near, GROUP).to(tl.float32)
    window = tile * (ROWS // GROUP) + tl.arange(0, ROWS // GROUP)
    _, _, _, share = _window(window, H - S + 1, W - S + 1, POOL)
    place = out + window.to(tl.int64)[:, None] * N + atom[None, :]
    tl.store(place, total * share[:, None], mask=(window < windows)[:, None] & (atom < N)[None, :])


@triton.jit
def gradient_kernel(
    x, grad, gates, out, positions, H, W, N, S: tl.constexpr, C: tl.constexpr, POOL: tl.constexpr,
    NUMBERS: tl.constexpr, ATOMS: tl.constexpr, ROWS: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    """One block of the gradient of the maps, summed over every so many tiles of positions.

    `x` is (B, C, H, W) here: the matrix units read float32 with the summed dimension, positions, contiguous.
    """
    P: tl.constexpr = S * S * C
    BYTES: tl.constexpr = (POOL * POOL + 7) // 8
    h, w = H - S + 1, W - S + 1
    number = tl.program_id(1) * NUMBERS + tl.arange(0, NUMBERS)
    atom = tl.program_id(2) * ATOMS + tl.arange(0, ATOMS)
    number_offset = (number % C * H + number // (S * C)) * W + number // C % S
    total = tl.zeros((ATOMS, NUMBERS), tl.float32)
    for tile in range(tl.program_id(0), tl.cdiv(positions, ROWS), tl.num_programs(0)):
        position = tile * ROWS + tl.arange(0, ROWS)
        exists = position < positions
        image, row, column = position // (h * w), position // w % h, position % w
        window = (image * tl.cdiv(h, POOL) + row // POOL) * tl.cdiv(w, POOL) + column // POOL
        _, _, _, share = _window(window, h, w, POOL)
        p = row % POOL * POOL + column % POOL
        known = exists[:, None] & (atom < N)[None, :]
        bits = tl.load(gates + (window.to(tl.int64) * BYTES + p // 8)[:, None] * N + atom[None, :], mask=known, other=0)
        near = (bits.to(tl.int32) >> (p % 8)[:, None]) & 1
        passed = tl.load(grad + window.to(tl.int64)[:, None] * N + atom[None, :], mask=known, other=0.0)
        passed = tl.where(near != 0, passed * share[:, None], 0.0)
        patches = x + (image.to(tl.int64) * C * H + row) * W + column
        patch = tl.load(
            patches[None, :] + number_offset[:, None], mask=exists[None, :] & (number < P)[:, None], other=0.0
        )
        patch = tl.where((number == P)[:, None], 1.0, patch)  # the offset sees a patch with a 1 appended
        total = _dot(tl.trans(passed), tl.trans(patch), total, EXACT)
    place = out + (tl.program_id(0).to(tl.int64) * (P + 1) + number)[None, :] * N + atom[:, None]
    tl.store(place, total, mask=(atom < N)[:, None] & (number <= P)[None, :])
