"""What the CPU's loops do in a window: list the atoms that are near, table the sums of patches, multiply and add.

Shapes: N atoms, width of a row; a window is (top, left, bottom, right) in positions, and taken 16 positions at a time.
"""

import numpy as np
from numba import njit

from layerwise.ops.vectors import add_scaled, dot, put_sum


@njit(cache=True)
def keep(marks, atoms, bits, indices, i, y, x):  # type: ignore[no-untyped-def]
    """Write which of the marks, 0 or 1, with zeros behind those of N atoms, are 1: as bits, or as indices."""
    if bits.shape[0]:
        for word in range(bits.shape[3]):
            byte = np.uint8(0)
            for bit in range(8):
                byte |= np.uint8(marks[8 * word + bit] << bit)
            bits[i, y, x, word] = byte
    else:
        n = 0
        for j in range(atoms):
            if marks[j]:
                indices[i, y, x, n] = j
                n += 1


@njit(cache=True)
def choose(bits, indices, i, window, pool, first, marks, words, chosen):  # type: ignore[no-untyped-def]
    """List in `chosen` the atoms near to any of the positions first … first+15 of a window; returns how many.

    Bit p of marks[0, j], from position 8 on of marks[1, j], is set where atom j is near to position first+p. They are
    all zero before; `words` are the same marks, eight in one number.
    """
    if indices.shape[0]:
        return _mark_each(indices, i, window, pool, first, marks, chosen)
    _mark_all(bits, i, window, pool, first, words)
    n = np.intp(0)
    for j in range(marks.shape[1]):
        chosen[n] = j
        n += np.intp(marks[0, j] | marks[1, j] != 0)
    return n


@njit(cache=True)
def _mark_all(bits, i, window, pool, first, words):  # type: ignore[no-untyped-def]
    top, left, bottom, right = window
    every, own = np.uint64(0x0101010101010101), np.uint64(0x8040201008040201)
    carry, seven = np.uint64(0x7F7F7F7F7F7F7F7F), np.uint64(7)
    for y in range(top, bottom):
        for x in range(left, right):
            p = (y - top) * pool + x - left - first
            if 0 <= p < 16:
                half, bit = p >> 3, np.uint64(p & 7)
                for w in range(bits.shape[3]):  # plain arithmetic, which can be vectorised
                    alone = (np.uint64(bits[i, y, x, w]) * every) & own  # bit n, in byte n
                    words[half, w] |= ((alone + carry) >> seven & every) << bit


@njit(cache=True)
def _mark_each(indices, i, window, pool, first, marks, chosen):  # type: ignore[no-untyped-def]
    top, left, bottom, right = window
    n = np.intp(0)
    for y in range(top, bottom):
        for x in range(left, right):
            p = (y - top) * pool + x - left - first
            if 0 <= p < 16:
                half, bit = p >> 3, np.uint8(1 << (p & 7))
                for q in range(indices.shape[3]):
                    j = np.uintp(indices[i, y, x, q])
                    chosen[n] = j
                    n += np.intp(marks[0, j] | marks[1, j] == 0)
                    marks[half, j] |= bit
    return n


@njit(cache=True)
def clear(marks, chosen, n):  # type: ignore[no-untyped-def]
    """Set to zero what `choose` has set."""
    if n * 16 > marks.shape[1]:
        marks[:] = 0
    else:
        for i in range(n):
            j = np.uintp(chosen[i])
            marks[0, j] = marks[1, j] = 0


@njit(cache=True)
def cut(image, size, channels, top, rows):  # type: ignore[no-untyped-def]
    """Cut the patches of an image (H, W*C) at positions from row `top` on into rows (n, w, width): patch, 1, zeros."""
    run = size * channels
    for y in range(rows.shape[0]):
        for x in range(rows.shape[1]):
            for dy in range(size):
                for q in range(run):
                    rows[y, x, dy * run + q] = image[top + y + dy, x * channels + q]
            rows[y, x, size * run] = 1
            rows[y, x, size * run + 1 :] = 0


@njit(cache=True)
def subset_sums(rows, window, pool, first, table):  # type: ignore[no-untyped-def]
    """Write to table[16g + n] the sum of the patches that the bits of n choose from positions first+4g … first+4g+3.

    Rows are those of the window's positions, (pool, w, width), the table (16 or 64, width). Its entries 16g stay zero;
    those that choose a position outside the image keep what they had: no atom is near there.
    """
    top, left, bottom, right = window
    patches = rows.reshape(-1, rows.shape[2])
    for group in range(table.shape[0] // 16):
        for bit in range(4):
            p = first + 4 * group + bit
            y, x, half = p // pool, left + p % pool, 1 << bit
            if top + y < bottom and x < right:
                for n in range(half):
                    here = np.uintp(16 * group + n)
                    put_sum(table, here, patches, np.uintp(y * rows.shape[1] + x), table, np.uintp(here + half))


@njit(cache=True)
def dots(table, marks, chosen, n, maps, sparse, out):  # type: ignore[no-untyped-def]
    """Add to out, (N,), or if sparse in their order, the chosen atoms' maps times their sums of patches."""
    for i in range(n):
        j = np.uintp(chosen[i])
        at = np.uintp(i) if sparse else j
        if table.shape[0] == 16:
            out[at] += dot(table, (np.uintp(marks[0, j]),), maps, j)
        else:
            out[at] += dot(table, _subsets(marks[0, j], marks[1, j]), maps, j)


@njit(cache=True)
def add_gradients(table, marks, chosen, n, grad, share, total):  # type: ignore[no-untyped-def]
    """Add to total, (N, width), each chosen atom's share of its pooled gradient times its sum of patches."""
    for i in range(n):
        j = np.uintp(chosen[i])
        scale = grad[j] * share
        if table.shape[0] == 16:
            add_scaled(table, (np.uintp(marks[0, j]),), scale, total, j)
        else:
            add_scaled(table, _subsets(marks[0, j], marks[1, j]), scale, total, j)


@njit(cache=True)
def _subsets(low, high):  # type: ignore[no-untyped-def]
    """The rows of a table that hold the sums of an atom's positions, four positions each."""
    fifteen, four = np.uintp(15), np.uintp(4)
    a, b, c, d = np.uintp(low) & fifteen, np.uintp(low) >> four, np.uintp(high) & fifteen, np.uintp(high) >> four
    return a, np.uintp(16) + b, np.uintp(32) + c, np.uintp(48) + d


@njit(cache=True)
def add_counts(marks, chosen, n, out):  # type: ignore[no-untyped-def]
    """Add to out, (N,), to how many positions each chosen atom is near."""
    for i in range(n):
        j = np.uintp(chosen[i])
        for bit in range(8):
            out[j] += np.float32((marks[0, j] >> bit & 1) + (marks[1, j] >> bit & 1))
