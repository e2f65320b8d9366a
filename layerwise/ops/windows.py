"""What the CPU's loops do in a window: list the atoms that are near, table the sums of patches, multiply and add.

Shapes: N atoms, width of a row; a window is (top, left, bottom, right) in positions, and taken 16 positions at a time.
"""

import numpy as np
from numba import njit

from layerwise.ops.selection import FASTMATH

SPREAD = np.array([sum(1 << 8 * bit for bit in range(8) if byte >> bit & 1) for byte in range(256)], np.uint64)
"""of a byte each bit as a byte"""


@njit(cache=True)
def as_bits(marks, out):  # type: ignore[no-untyped-def]
    """Write marks, 0 or 1, as bits."""
    for word in range(out.shape[0]):
        byte = np.uint8(0)
        for bit in range(8):
            byte |= np.uint8(marks[8 * word + bit] << bit)
        out[word] = byte


@njit(cache=True)
def choose(bits, indices, i, window, pool, first, spread, low, high, chosen):  # type: ignore[no-untyped-def]
    """List in `chosen` the atoms near to any of the positions first … first+15 of a window; returns how many.

    Bit p of the byte low[j], from position 8 on of high[j], is set where atom j is near to position first+p. Both are
    zero before, and `clear` makes them so.
    """
    top, left, bottom, right = window
    n = 0
    for p in range(first, min(first + 16, pool * pool)):
        y, x = top + p // pool, left + p % pool
        if y >= bottom or x >= right:
            continue
        own, bit = (low, p - first) if p < first + 8 else (high, p - first - 8)
        if bits.shape[0]:
            words, eight = own.view(np.uint64), np.uint64(bit)
            for word in range(bits.shape[3]):
                words[word] |= spread[bits[i, y, x, word]] << eight
        else:
            for index in indices[i, y, x]:
                atom = np.uintp(index)
                if not low[atom] | high[atom]:
                    chosen[n] = atom
                    n += 1
                own[atom] |= np.uint8(1 << bit)
    if bits.shape[0]:
        words, others = low.view(np.uint64), high.view(np.uint64)
        for word in range(words.shape[0]):
            if words[word] | others[word]:
                for j in range(8 * word, 8 * word + 8):
                    chosen[n] = j
                    n += 1 if low[j] | high[j] else 0
    return n


@njit(cache=True)
def clear(low, high, chosen, n):  # type: ignore[no-untyped-def]
    """Set to zero what `choose` has set."""
    for i in range(n):
        low[np.uintp(chosen[i])] = 0
        high[np.uintp(chosen[i])] = 0


@njit(cache=True, fastmath=FASTMATH)
def subset_sums(rows, window, pool, first, table):  # type: ignore[no-untyped-def]
    """Write to table[g, n] the sum of the patches that the bits of n choose from positions first+4g … first+4g+3.

    Entry 0 stays zero. Entries that choose a position outside the image keep what they had: no atom is near there.
    """
    top, left, bottom, right = window
    for group in range(table.shape[0]):
        for bit in range(4):
            p = first + 4 * group + bit
            y, x, half = top + p // pool, left + p % pool, 1 << bit
            if p < pool * pool and y < bottom and x < right:
                for n in range(half):
                    for q in range(rows.shape[2]):
                        table[group, half + n, q] = table[group, n, q] + rows[y, x, q]


@njit(cache=True, fastmath=FASTMATH)
def dots(table, low, high, chosen, n, maps, out):  # type: ignore[no-untyped-def]
    """Add to out, (N,), for the atoms that are chosen each map times its sum of patches."""
    nibble, shift = np.uintp(15), np.uintp(4)
    for i in range(n):
        j = np.uintp(chosen[i])
        a, total = np.uintp(low[j]) & nibble, np.float32(0)
        if table.shape[0] == 1:
            for q in range(maps.shape[1]):
                total += table[0, a, q] * maps[j, q]
        else:
            b, c, d = np.uintp(low[j]) >> shift, np.uintp(high[j]) & nibble, np.uintp(high[j]) >> shift
            for q in range(maps.shape[1]):
                total += (table[0, a, q] + table[1, b, q] + table[2, c, q] + table[3, d, q]) * maps[j, q]
        out[j] += total


@njit(cache=True, fastmath=FASTMATH)
def add_gradients(table, low, high, chosen, n, grad, share, total):  # type: ignore[no-untyped-def]
    """Add to total, (N, width), each chosen atom's share of its pooled gradient times its sum of patches."""
    nibble, shift = np.uintp(15), np.uintp(4)
    for i in range(n):
        j = np.uintp(chosen[i])
        a, g = np.uintp(low[j]) & nibble, grad[j] * share
        if table.shape[0] == 1:
            for q in range(total.shape[1]):
                total[j, q] += table[0, a, q] * g
        else:
            b, c, d = np.uintp(low[j]) >> shift, np.uintp(high[j]) & nibble, np.uintp(high[j]) >> shift
            for q in range(total.shape[1]):
                total[j, q] += (table[0, a, q] + table[1, b, q] + table[2, c, q] + table[3, d, q]) * g


@njit(cache=True)
def add_counts(low, high, chosen, n, out):  # type: ignore[no-untyped-def]
    """Add to out, (N,), to how many positions each chosen atom is near."""
    for i in range(n):
        j = np.uintp(chosen[i])
        for bit in range(8):
            out[j] += np.float32((low[j] >> bit & 1) + (high[j] >> bit & 1))
