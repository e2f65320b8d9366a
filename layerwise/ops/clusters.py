"""The two passes of k-means over its points, compiled: which score is lowest, and the sums of each cluster."""

import numpy as np
import torch
from numba import njit
from torch import Tensor

from layerwise.ops.launch import parallel
from layerwise.ops.selection import FASTMATH

BLOCK = 64  # scores that are compared at once


@parallel
def _lowest(first, last, scores, index, least):  # type: ignore[no-untyped-def]
    """Compares as integers, in whose order that of floats is kept: a minimum of integers can be vectorised."""
    count = scores.shape[1]
    highest = np.int32(0x7FFFFFFF)
    for i in range(first, last):
        bits = scores[i].view(np.int32)
        best, where = highest, 0
        for start in range(0, count, BLOCK):
            lowest_here = highest
            for j in range(start, min(start + BLOCK, count)):
                key = bits[j] ^ ((bits[j] >> np.int32(31)) & highest)
                lowest_here = min(lowest_here, key)
            if lowest_here < best:
                best, where = lowest_here, start
        j = where
        while j + 1 < count and bits[j] ^ ((bits[j] >> np.int32(31)) & highest) != best:
            j += 1
        index[i] = j
        least[i] = scores[i, j]


@njit(cache=True, fastmath=FASTMATH)
def _add_up(points, index, sums, sizes):  # type: ignore[no-untyped-def]
    for i in range(points.shape[0]):
        j = np.uintp(index[i])
        sizes[j] += 1
        for q in range(points.shape[1]):
            sums[j, q] += points[i, q]


def lowest(scores: Tensor) -> tuple[Tensor, Tensor]:
    """Index and score of the lowest score in each row; of equal ones the first."""
    index, least = torch.empty(len(scores), dtype=torch.long), torch.empty(len(scores))
    _lowest(len(scores), scores.numpy(), index.numpy(), least.numpy())
    return index, least


def add_up(points: Tensor, index: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Sum and number of the points of each cluster."""
    sums, sizes = torch.zeros(count, points.shape[1]), torch.zeros(count, dtype=torch.long)
    _add_up(points.numpy(), index.numpy(), sums.numpy(), sizes.numpy())
    return sums, sizes
