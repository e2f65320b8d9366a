"""Whitening and mirroring undone: the maps of all atoms as they act on patches, from those that are trained.

It is done anew in every step, and maps of long patches are as many numbers as a layer's output: here each way goes
through them once, instead of once for each operation of torch.

Shapes: P patch dimension, N atoms, n = N/2 of them with maps of their own where atoms are in pairs, else N.
"""

from typing import Any

import numpy as np
import torch
from numba import njit
from torch import Tensor

from layerwise.ops.launch import parallel
from layerwise.ops.selection import FASTMATH
from layerwise.ops.vectors import LANES

BLOCK = 64
"""atoms that are gone through together: those of `weight` lie together by place, others by atom"""


@njit(cache=True, fastmath=FASTMATH)
def _product(row, numbers):  # type: ignore[no-untyped-def]
    total = np.float32(0)
    for q in range(len(numbers)):
        total += row[q] * numbers[q]
    return total


@parallel
def _unfold(first, last, weight, bias, factors, mean, order, out):  # type: ignore[no-untyped-def]
    """Write the maps of all atoms, (N, width), from weight (P, n) and bias (n,), a block of atoms at a time."""
    numbers, own = weight.shape
    rows = np.empty((BLOCK, numbers), np.float32)
    for block in range(first, last):
        begin, end = block * BLOCK, min((block + 1) * BLOCK, own)
        for q in range(numbers):
            for j in range(end - begin):
                rows[j, q] = weight[q, begin + j]
        for j in range(begin, end):
            row, maps = rows[j - begin], out[j]
            for q in range(numbers):
                maps[q] = row[q] * factors[q]
            maps[numbers] = bias[j] - _product(maps, mean)
            maps[numbers + 1 :] = 0
            if len(order):
                maps = out[own + j]
                for q in range(numbers):
                    maps[q] = row[np.uintp(order[q])] * factors[q]
                maps[numbers] = bias[j] - _product(maps, mean)
                maps[numbers + 1 :] = 0


@parallel
def _fold(first, last, grad, factors, mean, order, of_weight, of_bias):  # type: ignore[no-untyped-def]
    """Write the gradients of weight, (P, n), and bias, (n,), from that of the maps, (N, P+1), likewise."""
    numbers, own = of_weight.shape
    rows = np.empty((BLOCK, numbers), np.float32)
    for block in range(first, last):
        begin, end = block * BLOCK, min((block + 1) * BLOCK, own)
        for j in range(begin, end):
            row, of_maps, of_offset = rows[j - begin], grad[j], grad[j, numbers]
            for q in range(numbers):
                row[q] = (of_maps[q] - of_offset * mean[q]) * factors[q]
            of_bias[j] = of_offset
            if len(order):
                of_maps, of_offset = grad[own + j], grad[own + j, numbers]
                for q in range(numbers):
                    place = np.uintp(order[q])  # which is to `place` as that is to q
                    row[q] += (of_maps[place] - of_offset * mean[place]) * factors[place]
                of_bias[j] += of_offset
        for q in range(numbers):
            for j in range(end - begin):
                of_weight[q, begin + j] = rows[j, q]


class _Unfolded(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, bias: Tensor, factors: Tensor, mean: Tensor, order: Tensor | None) -> Tensor:
        numbers, own = weight.shape
        whole = [factors.contiguous(), mean.contiguous()]
        whole.append(torch.empty(0, dtype=torch.long) if order is None else order.contiguous())
        ctx.save_for_backward(*whole)
        atoms, width = own if order is None else 2 * own, -(-(numbers + 1) // LANES) * LANES
        out = torch.empty(atoms, width)  # as the embedding takes them
        trained = (one.detach().contiguous() for one in (weight, bias))
        _unfold(-(-own // BLOCK), *(one.numpy() for one in (*trained, *whole)), out.numpy())
        return out[:, : numbers + 1].T

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        whole, rows = ctx.saved_tensors, grad.T.contiguous()
        own = len(rows) // (2 if len(whole[2]) else 1)
        of_weight, of_bias = torch.empty(rows.shape[1] - 1, own), torch.empty(own)
        arrays = [one.numpy() for one in (rows, *whole, of_weight, of_bias)]
        _fold(-(-own // BLOCK), *arrays)
        return of_weight, of_bias, None, None, None


def unfolded(weight: Tensor, bias: Tensor, factors: Tensor, mean: Tensor, order: Tensor | None) -> Tensor:
    """What `layerwise.ops.unfolded` says."""
    maps: Tensor = _Unfolded.apply(weight, bias, factors, mean, order)
    return maps
