"""Which k of a row's N numbers are lowest: compiled, exact, without sorting."""

import numpy as np
from numba import njit

FASTMATH = {"reassoc", "nsz", "nnan", "contract"}
"""What lets a sum be vectorised; infinities keep their meaning."""


@njit(cache=True, fastmath=FASTMATH)
def _moments(row):  # type: ignore[no-untyped-def]
    """Mean and standard deviation."""
    total = squares = np.float32(0)
    for j in range(row.shape[0]):
        total += row[j]
        squares += row[j] * row[j]
    mean = total / np.float32(row.shape[0])
    return mean, np.sqrt(max(squares / np.float32(row.shape[0]) - mean * mean, np.float32(0)))


@njit(cache=True)
def _count(row, threshold):  # type: ignore[no-untyped-def]
    """How many values are at most `threshold`. Counted in 32 bits: a vector then holds eight counts, not four."""
    count = np.uint32(0)
    for j in range(np.uint32(row.shape[0])):
        count = np.uint32(count + np.uint32(row[j] <= threshold))
    return np.int32(count)


@njit(cache=True)
def select(row, k, quantile):  # type: ignore[no-untyped-def]
    """Find what separates the k lowest values of a row from the others.

    Keeps a bracket count(low) < k <= count(high) and narrows it: starts where a normal distribution has its k/N
    quantile, steps outwards until k is bracketed, then interpolates the counts, and every third time halves, which
    bounds the number of steps. About seven passes over the row, (N,) float32; 1 ≤ k ≤ N. The quantile, of k/N under the
    standard normal distribution, is a guess, right or wrong.

    Returns (t, room). Room -1: the values at most t are k exactly. Otherwise the values below t are fewer than k, and
    of those equal to t the first `room` belong to the k lowest.
    """
    if k == row.shape[0]:
        return np.float32(np.inf), np.int32(-1)
    mean, deviation = _moments(row)
    if not (np.isfinite(mean) and np.isfinite(deviation)):  # squares of huge values
        mean, deviation = np.float32(0), np.float32(1)
    low, high = -np.float32(np.inf), np.float32(np.inf)
    low_count, high_count = np.int32(0), np.int32(row.shape[0])
    reach = max(np.float32(0.1) * deviation, np.float32(1e-6) * abs(mean), np.float32(1e-30))
    middle = mean + quantile * deviation
    for step in range(1000):  # enough to double and halve from any number to any other
        count = _count(row, middle)
        if count == k:
            return middle, np.int32(-1)
        if count < k:
            low, low_count = middle, count
        else:
            high, high_count = middle, count
        if np.isinf(low) or np.isinf(high):
            middle += reach if count < k else -reach
            reach *= np.float32(2)
            continue
        share = np.float32(0.5)
        if step % 3 < 2:
            share = np.float32(k - low_count) / np.float32(high_count - low_count)
        middle = low + (high - low) * share
        if not (low < middle < high):
            middle = low + (high - low) * np.float32(0.5)
            if not (low < middle < high):  # no number lies between: all that is left is equal to `high`
                break
    return high, np.int32(k - low_count)


@njit(cache=True)
def _drop_ties(row, threshold, room, bit, marks):  # type: ignore[no-untyped-def]
    for j in range(row.shape[0]):
        if row[j] == threshold:
            if room > 0:
                room -= 1
            else:
                marks[j] &= ~bit


@njit(cache=True)
def mark_lowest(row, k, quantile, bit, marks):  # type: ignore[no-untyped-def]
    """Set a bit in `marks`, (N,) uint8, for each of the k lowest values: of equal ones those with the lowest index."""
    threshold, room = select(row, k, quantile)
    for j in range(row.shape[0]):
        marks[j] |= bit if row[j] <= threshold else np.uint8(0)
    if room >= 0:
        _drop_ties(row, threshold, room, bit, marks)
