"""What costs the atoms that are near, not all there are: the backward pass of `gather`, and products with its values.

A window has M places for the atoms that are near to any of its positions, in the order in which positions and their
indices name them first; places that are left over hold 0 of atom 0.

Shapes: B batch, h w positions, R C windows, n = B·R·C of them, k neighbors, N atoms, P+1 numbers of a patch with its 1,
D numbers that are made of an embedding.
"""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numba import njit
from torch import Tensor

from layerwise.ops.launch import parallel
from layerwise.ops.vectors import LANES, add_scaled, dot

TOGETHER = 1 << 18
"""numbers of the images that are gone through for all atoms before the next: what a core keeps near"""
RANGES = 32
"""of atoms, of which each is one thread's"""
PARTS = 8
"""of a batch, whose gradients are added up apart: the same whatever the number of threads"""
GRADIENTS = 1 << 26
"""bytes, at most, of more than one of them"""


def parts(numbers: int) -> int:
    """Into how many parts a batch is divided whose gradient has so many numbers: few where they are many."""
    return max(1, min(PARTS, GRADIENTS // (4 * numbers)))


@njit(cache=True)
def _slots(indices, i, window, slots, places):  # type: ignore[no-untyped-def]
    """Write to slots, (pool², k), at which place each atom of each position of a window is; `places` is all -1."""
    top, left, bottom, right = window
    n = 0
    for y in range(top, bottom):
        for x in range(left, right):
            p = (y - top) * (right - left) + x - left
            for q in range(indices.shape[3]):
                j = np.uintp(indices[i, y, x, q])
                if places[j] < 0:
                    places[j] = n
                    n += 1
                slots[p, q] = places[j]
    for y in range(top, bottom):
        for x in range(left, right):
            for index in indices[i, y, x]:
                places[np.uintp(index)] = -1


@parallel
def _sort_by_atom(begins, ends, indices, grad, pool, images, starts, positions, shares):  # type: ignore[no-untyped-def]
    """Sort the near atoms of all positions, (B, h, w, k), by atom: for each part of so many images in itself.

    Writes where an atom's begin, starts (parts, N+1), and of each, (parts, images·h·w·k), its position in the part and
    its share of its window's gradient (B, R, C, M).
    """
    total, h, w, k = indices.shape
    atoms = starts.shape[1] - 1
    for part in range(begins, ends):
        first, last = part * images, min((part + 1) * images, total)
        begin = starts[part]
        begin[:] = 0
        for i in range(first, last):
            for y in range(h):
                for x in range(w):
                    for index in indices[i, y, x]:
                        begin[np.uintp(index) + 1] += 1
        for atom in range(atoms):
            begin[atom + 1] += begin[atom]
        free = begin.copy()
        slots, places = np.empty((pool * pool, k), np.int32), np.full(atoms, -1, np.int32)
        for i in range(first, last):
            for r in range(grad.shape[1]):
                for c in range(grad.shape[2]):
                    top, left = r * pool, c * pool
                    bottom, right = min(top + pool, h), min(left + pool, w)
                    _slots(indices, i, (top, left, bottom, right), slots, places)
                    share = np.float32(1) / np.float32((bottom - top) * (right - left))
                    for y in range(top, bottom):
                        for x in range(left, right):
                            p = (y - top) * (right - left) + x - left
                            for q in range(k):
                                j = np.uintp(indices[i, y, x, q])
                                positions[part, free[j]] = ((i - first) * h + y) * w + x
                                shares[part, free[j]] = grad[i, r, c, slots[p, q]] * share
                                free[j] += 1


@parallel
def _add_by_atom(first, last, x, size, side, images, starts, positions, shares, out):  # type: ignore[no-untyped-def]
    """Write the gradient of the maps, (N, P+1): of each atom, its shares times the patches at its positions.

    x is (B, H, W·C), `side` the positions (h, w).
    """
    h, w = side
    atoms, channels = out.shape[0], x.shape[2] // (w + size - 1)
    run = size * channels
    for block in range(first, last):
        for j in range(block * atoms // RANGES, (block + 1) * atoms // RANGES):
            out[j] = 0
        for part in range(starts.shape[0]):
            for j in range(block * atoms // RANGES, (block + 1) * atoms // RANGES):
                for pair in range(starts[part, j], starts[part, j + 1]):
                    place, share = positions[part, pair], shares[part, pair]
                    i, y, left = part * images + place // (h * w), place // w % h, place % w * channels
                    for dy in range(size):
                        total, numbers = out[j, dy * run : (dy + 1) * run], x[i, y + dy, left : left + run]
                        for q in range(run):
                            total[q] += share * numbers[q]
                    out[j, size * run] += share


@parallel
def _combine(first, last, values, atoms, weight, out):  # type: ignore[no-untyped-def]
    """Write to out, (n, D), the rows of weight, (N, D), of a window's atoms, (n, M), times its values."""
    for i in range(first, last):
        out[i] = 0
        for m in range(values.shape[1]):
            if values[i, m] != 0:
                add_scaled(weight, (np.uintp(atoms[i, m]),), values[i, m], out, np.uintp(i))


@parallel
def _combine_backward(first, last, values, atoms, weight, grad, of_values, of_weight):  # type: ignore[no-untyped-def]
    """Write the gradients of values, (n, M), and of weight, (parts, N, D), each part that of its windows."""
    windows, parts = len(values), len(of_weight)
    for part in range(first, last):
        of_weight[part] = 0
        for i in range(part * windows // parts, (part + 1) * windows // parts):
            for m in range(values.shape[1]):
                j = np.uintp(atoms[i, m])
                of_values[i, m] = dot(weight, (j,), grad, np.uintp(i))
                if values[i, m] != 0:
                    add_scaled(grad, (np.uintp(i),), values[i, m], of_weight[part], j)


@njit(cache=True)
def _add_deviations(values, atoms, mean, sums, squares, counts):  # type: ignore[no-untyped-def]
    """Add up, for each channel, (N,), by how much the values that are its own deviate from its mean, and how many."""
    channels = np.int32(len(mean))
    for i in range(len(values)):
        for m in range(values.shape[1]):
            j = np.uintp(atoms[i, m] % channels)
            deviation = values[i, m] - mean[j]
            sums[j] += deviation
            squares[j] += deviation * deviation
            counts[j] += np.float32(1)


@parallel
def _scale_by_channel(first, last, values, atoms, scale, shift, out):  # type: ignore[no-untyped-def]
    """Write each value times its channel's scale, and its shift added."""
    channels = np.int32(len(scale))
    for i in range(first, last):
        for m in range(values.shape[1]):
            j = np.uintp(atoms[i, m] % channels)
            out[i, m] = values[i, m] * scale[j] + shift[j]


def gradient(x: np.ndarray, size: int, near: np.ndarray, grad: np.ndarray, pool: int, atoms: int) -> Tensor:
    """Gradient of the maps, (N, P+1), from that of what `gather` gives, (B, R, C, M); x is (B, H, W·C)."""
    b, h, w, k = near.shape
    count = -(-b // max(1, min(b, TOGETHER // (x.shape[1] * x.shape[2]))))
    images = -(-b // count)  # as many in each, for threads that share them
    starts = np.empty((count, atoms + 1), np.int64)
    positions, shares = (np.empty((count, images * h * w * k), kind) for kind in (np.int32, np.float32))
    out = torch.empty(atoms, size * size * (x.shape[2] // (w + size - 1)) + 1)
    _sort_by_atom(count, near, grad, pool, images, starts, positions, shares)
    _add_by_atom(RANGES, x, size, (h, w), images, starts, positions, shares, out.numpy())
    return out


class _Combined(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, atoms: Tensor, weight: Tensor) -> Tensor:
        padded = _padded(weight)
        ctx.save_for_backward(values, atoms, padded)
        ctx.width = weight.shape[1]
        out = torch.empty(len(values), padded.shape[1])
        _combine(len(values), values.numpy(), atoms.numpy(), padded.numpy(), out.numpy())
        return out[:, : ctx.width]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        values, atoms, weight = ctx.saved_tensors
        of_values, of_weight = torch.empty_like(values), torch.empty(parts(weight.numel()), *weight.shape)
        inputs = values.numpy(), atoms.numpy(), weight.numpy(), _padded(grad).numpy()
        _combine_backward(len(of_weight), *inputs, of_values.numpy(), of_weight.numpy())
        return of_values, None, of_weight.sum(0)[:, : ctx.width]


def combine(values: Tensor, atoms: Tensor, weight: Tensor) -> Tensor:
    """The embedding that `gather` gives as values and atoms, (n, M), times a matrix (N, D): (n, D)."""
    out: Tensor = _Combined.apply(values, atoms, weight)
    return out


def deviations(values: Tensor, atoms: Tensor, mean: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of the values of each channel, (n, M) of `atoms` (n, M), less its mean (N,): sum, sum of squares, number, (N,).

    Where there are more atoms than channels, atom j is of channel j mod N.
    """
    found = torch.zeros(3, len(mean))
    _add_deviations(values.numpy(), atoms.numpy(), mean.contiguous().numpy(), *found.numpy())
    sums, squares, counts = found
    return sums, squares, counts


def scaled(values: Tensor, atoms: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """The values (n, M), each times the scale (N,) of its channel, plus its shift (N,); channels as of `deviations`."""
    out = torch.empty_like(values)
    _scale_by_channel(len(values), *(one.numpy() for one in (values, atoms, scale, shift, out)))
    return out


def _padded(rows: Tensor) -> Tensor:
    """Rows of whole vectors."""
    return F.pad(rows, (0, -rows.shape[1] % LANES)).detach().contiguous()
