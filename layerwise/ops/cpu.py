"""The embedding on a CPU, by one matrix product instead of three, and the two passes of k-means over its points.

The average over a window of gated maps, sum_p g_jp (u_j . z_p), is u_j . s_j with s_j = sum_p g_jp z_p, the sum of
those patches in the window that atom j is near to; and the gradient of u_j is its pooled gradient times the same s_j.
Only the distances need a product for each position. The sums are looked up: for each four positions of a window all 16
subset sums of their patches are tabled, so that a window of 4x4 costs an atom four additions of vectors and one dot
product, where matrix products would cost 16 dot products.

The (positions x atoms) scores exist for a few images at a time; what is kept for the backward pass is a bit a gate.
Patches are rows with a 1 appended, so that an affine map is one product.

Shapes: b images of a chunk, R C windows, N atoms; affine maps (P+1, N) are kept as (blocks, N, width), their P+1
numbers cut into blocks of at most WIDTH, so that a window's tables stay in the first cache.
"""

from collections.abc import Iterator
from statistics import NormalDist

import numpy as np
import torch
from numba import get_num_threads, njit, prange
from torch import Tensor

from layerwise.ops.selection import FASTMATH, mark_lowest

CHUNK_NUMBERS = 1 << 21  # entries of a chunk's score matrix: 8 MiB of float32, so that it stays in the cache
WIDTH = 96  # of a block of a map
BLOCK = 64  # scores that are compared at once
ATOMS_TOGETHER = 512  # at most so many a task of the backward pass: their maps stay in the second cache


@njit(parallel=True, cache=True)
def _cut_rows(x, size, channels, rows):  # type: ignore[no-untyped-def]
    """Cut every patch of x, (b, H, W*C), into `rows`, (b, h, w, at least P+1): the patch, 1, and zeros."""
    images, h, w, _ = rows.shape
    run = size * channels
    for task in prange(images * h):
        i, y = task // h, task % h
        for left in range(w):
            row = rows[i, y, left]
            for dy in range(size):
                row[dy * run : (dy + 1) * run] = x[i, y + dy, left * channels : left * channels + run]
            row[size * run] = 1
            row[size * run + 1 :] = 0


@njit(cache=True, fastmath=FASTMATH)
def _subset_sums(rows, start, top, left, bottom, right, pool, first, table):  # type: ignore[no-untyped-def]
    """Write to table[g, n] the sum of the patches that the bits of n choose from positions first+4g … first+4g+3.

    Entry 0 stays zero. Entries that choose a position outside the image keep what they had: no gate asks for them.
    """
    width = min(table.shape[2], rows.shape[2] - start)
    for group in range(table.shape[0]):
        for bit in range(4):
            p = first + 4 * group + bit
            y, x, half = top + p // pool, left + p % pool, 1 << bit
            if p < pool * pool and y < bottom and x < right:
                for n in range(half):
                    for q in range(width):
                        table[group, half + n, q] = table[group, n, q] + rows[y, x, start + q]


@njit(cache=True, fastmath=FASTMATH)
def _dot_one(table, chosen, maps, out):  # type: ignore[no-untyped-def]
    """Add to out, (N,), each map times its sum of patches, windows of up to four positions."""
    for j in range(maps.shape[0]):
        n = np.uintp(chosen[j])
        if n:
            total = np.float32(0)
            for q in range(maps.shape[1]):
                total += table[0, n, q] * maps[j, q]
            out[j] += total


@njit(cache=True, fastmath=FASTMATH)
def _dot_four(table, low, high, maps, out):  # type: ignore[no-untyped-def]
    """As `_dot_one` for 16 positions, whose choice is two bytes."""
    nibble, shift = np.uintp(15), np.uintp(4)
    for j in range(maps.shape[0]):
        a, b, c, d = low[j] & nibble, low[j] >> shift, high[j] & nibble, high[j] >> shift
        total = np.float32(0)
        for q in range(maps.shape[1]):
            total += (table[0, a, q] + table[1, b, q] + table[2, c, q] + table[3, d, q]) * maps[j, q]
        out[j] += total


@njit(cache=True, fastmath=FASTMATH)
def _add_one(table, chosen, grad, total):  # type: ignore[no-untyped-def]
    """Add to total, (N, width), each atom's pooled gradient times its sum of patches."""
    for j in range(total.shape[0]):
        n = np.uintp(chosen[j])
        if n:
            g = grad[j]
            for q in range(total.shape[1]):
                total[j, q] += table[0, n, q] * g


@njit(cache=True, fastmath=FASTMATH)
def _add_four(table, low, high, grad, total):  # type: ignore[no-untyped-def]
    """As `_add_one` for 16 positions."""
    nibble, shift = np.uintp(15), np.uintp(4)
    for j in range(total.shape[0]):
        a, b, c, d = low[j] & nibble, low[j] >> shift, high[j] & nibble, high[j] >> shift
        g = grad[j]
        for q in range(total.shape[1]):
            total[j, q] += (table[0, a, q] + table[1, b, q] + table[2, c, q] + table[3, d, q]) * g


@njit(cache=True)
def _count_gates(gates, out):  # type: ignore[no-untyped-def]
    """Write to out, (N,), how many bits are set in gates, (bytes, N)."""
    out[:] = 0
    for word in range(gates.shape[0]):
        for bit in range(8):
            for j in range(out.shape[0]):
                out[j] += np.float32((gates[word, j] >> bit) & 1)


@njit(parallel=True, cache=True)
def _gate_and_pool(rows, scores, maps, k, quantile, pool, gates, out):  # type: ignore[no-untyped-def]
    """Mark the near atoms, (b, R, C, bytes, N), and average their maps, or without maps the marks, (b, R, C, N)."""
    images, h, w, _ = scores.shape
    _, tall, wide, words, atoms = gates.shape
    blocks, _, width = maps.shape
    nothing = np.zeros(atoms, np.uint8)
    for task in prange(images * tall):
        i, r = task // tall, task % tall
        table = np.zeros((1 if pool <= 2 else 4, 16, width), np.float32)
        top, bottom = r * pool, min(r * pool + pool, h)
        for c in range(wide):
            left, right = c * pool, min(c * pool + pool, w)
            gate, pooled = gates[i, r, c], out[i, r, c]
            gate[:] = 0
            for y in range(top, bottom):
                for x in range(left, right):
                    p = (y - top) * pool + x - left
                    mark_lowest(scores[i, y, x], k, quantile, np.uint8(1 << (p % 8)), gate[p // 8])
            if blocks == 0:
                _count_gates(gate, pooled)
            else:
                pooled[:] = 0
            for block in range(blocks):
                for word in range(0, words, 2):
                    _subset_sums(rows[i], block * width, top, left, bottom, right, pool, 8 * word, table)
                    if pool <= 2:
                        _dot_one(table, gate[0], maps[block], pooled)
                    else:
                        high = gate[word + 1] if word + 1 < words else nothing
                        _dot_four(table, gate[word], high, maps[block], pooled)
            share = np.float32(1) / np.float32((bottom - top) * (right - left))
            for j in range(atoms):
                pooled[j] *= share


@njit(parallel=True, cache=True)
def _rectify_and_pool(responses, pool, gates, out):  # type: ignore[no-untyped-def]
    """Mark where a response is above 0, (b, R, C, bytes, N), and average those that are, (b, R, C, N)."""
    images, h, w, atoms = responses.shape
    _, tall, wide, _, _ = gates.shape
    for task in prange(images * tall):
        i, r = task // tall, task % tall
        top, bottom = r * pool, min(r * pool + pool, h)
        for c in range(wide):
            left, right = c * pool, min(c * pool + pool, w)
            gate, pooled = gates[i, r, c], out[i, r, c]
            gate[:] = 0
            pooled[:] = 0
            for y in range(top, bottom):
                for x in range(left, right):
                    p = (y - top) * pool + x - left
                    response, marks, bit = responses[i, y, x], gate[p // 8], np.uint8(1 << (p % 8))
                    for j in range(atoms):
                        pooled[j] += max(response[j], np.float32(0))
                        marks[j] |= bit if response[j] > 0 else np.uint8(0)
            share = np.float32(1) / np.float32((bottom - top) * (right - left))
            for j in range(atoms):
                pooled[j] *= share


@njit(parallel=True, cache=True)
def _add_gradient(rows, grad, gates, pool, size, total):  # type: ignore[no-untyped-def]
    """Add a chunk's gradient to total, (blocks, N, width). A task has its own atoms: no two write to one number."""
    images, h, w, _ = rows.shape
    _, tall, wide, words, atoms = gates.shape
    blocks, _, width = total.shape
    nothing = np.zeros(size, np.uint8)
    for task in prange((atoms + size - 1) // size):
        first, last = task * size, min(task * size + size, atoms)
        table = np.zeros((1 if pool <= 2 else 4, 16, width), np.float32)
        g = np.empty(last - first, np.float32)
        for i in range(images):
            for r in range(tall):
                top, bottom = r * pool, min(r * pool + pool, h)
                for c in range(wide):
                    left, right = c * pool, min(c * pool + pool, w)
                    gate, pooled = gates[i, r, c, :, first:last], grad[i, r, c, first:last]
                    share = np.float32(1) / np.float32((bottom - top) * (right - left))
                    for j in range(last - first):
                        g[j] = pooled[j] * share
                    for block in range(blocks):
                        part = total[block, first:last]
                        for word in range(0, words, 2):
                            _subset_sums(rows[i], block * width, top, left, bottom, right, pool, 8 * word, table)
                            if pool <= 2:
                                _add_one(table, gate[0], g, part)
                            else:
                                high = gate[word + 1] if word + 1 < words else nothing
                                _add_four(table, gate[word], high, g, part)


@njit(parallel=True, cache=True)
def _lowest(scores, index, least):  # type: ignore[no-untyped-def]
    """Compares as integers, in whose order that of floats is kept: a minimum of integers can be vectorised."""
    count = scores.shape[1]
    last = np.int32(0x7FFFFFFF)
    for i in prange(scores.shape[0]):
        bits = scores[i].view(np.int32)
        best, where = last, 0
        for start in range(0, count, BLOCK):
            lowest_here = last
            for j in range(start, min(start + BLOCK, count)):
                key = bits[j] ^ ((bits[j] >> np.int32(31)) & last)
                lowest_here = min(lowest_here, key)
            if lowest_here < best:
                best, where = lowest_here, start
        j = where
        while j + 1 < count and bits[j] ^ ((bits[j] >> np.int32(31)) & last) != best:
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


class Rows:
    """The patches of (B, C, H, W) float32, cut into rows, to be multiplied with N atoms, for a few images at a time."""

    def __init__(self, x: Tensor, patch_size: int, atoms: int) -> None:
        b, c, height, width = x.shape
        self.x = x.permute(0, 2, 3, 1).contiguous().flatten(2).numpy()
        self.size, self.channels, self.atoms = patch_size, c, atoms
        self.h, self.w = height - patch_size + 1, width - patch_size + 1
        self.numbers = patch_size * patch_size * c + 1
        self.step = max(1, min(b, CHUNK_NUMBERS // (self.h * self.w * atoms)))
        self.blocks = -(-self.numbers // WIDTH)
        self.width = -(-self.numbers // (8 * self.blocks)) * 8  # of a block
        self.rows = torch.empty(self.step, self.h, self.w, self.blocks * self.width)

    def __iter__(self) -> Iterator[tuple[slice, Tensor]]:
        """Yield a slice of the batch and its rows, (b, h, w, at least P+1), which are overwritten by the next."""
        for start in range(0, len(self.x), self.step):
            part = slice(start, min(start + self.step, len(self.x)))
            rows = self.rows[: part.stop - start]
            _cut_rows(self.x[part], self.size, self.channels, rows.numpy())
            yield part, rows

    def times(self, weight: Tensor) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Yield slice, rows, and their product with an affine map (P+1, N), (b, h, w, N)."""
        weight = weight.T.contiguous().T  # the layout that matrix products are faster with
        products = torch.empty(self.step, self.h, self.w, self.atoms)
        for part, rows in self:
            product = products[: len(rows)]
            torch.mm(rows.flatten(0, 2)[:, : self.numbers], weight, out=product.flatten(0, 2))
            yield part, rows, product


def forward(
    x: Tensor, scorer: Tensor, maps: Tensor | None, patch_size: int, neighbors: int, pool: int
) -> tuple[Tensor, Tensor]:
    """Pooled embedding and gates of a batch; see `layerwise.ops`. Without maps each near atom counts 1."""
    atoms = scorer.shape[1]
    rows = Rows(x, patch_size, atoms)
    out, gates = _results(rows, pool)
    blocked = torch.zeros(atoms, rows.blocks * rows.width if maps is not None else 0)
    if maps is not None:
        blocked[:, : rows.numbers] = maps.T
    blocked = blocked.view(atoms, -1, rows.width).transpose(0, 1).contiguous()
    quantile = np.float32(NormalDist().inv_cdf(min(max(neighbors / atoms, 1e-3), 1 - 1e-3)))
    for part, patches, scores in rows.times(scorer):
        inputs = patches.numpy(), scores.numpy(), blocked.numpy(), np.int32(neighbors), quantile, pool
        _gate_and_pool(*inputs, gates[part].numpy(), out[part].numpy())
    return out.permute(0, 3, 1, 2), gates


def convolve(x: Tensor, maps: Tensor, patch_size: int, pool: int) -> tuple[Tensor, Tensor]:
    """As `forward`, where the maps' own sign is the gate."""
    rows = Rows(x, patch_size, maps.shape[1])
    out, gates = _results(rows, pool)
    for part, _, responses in rows.times(maps):
        _rectify_and_pool(responses.numpy(), pool, gates[part].numpy(), out[part].numpy())
    return out.permute(0, 3, 1, 2), gates


def backward(x: Tensor, grad: Tensor, gates: Tensor, patch_size: int, pool: int) -> Tensor:
    """Gradient of the maps, (P+1, N); see `layerwise.ops`. The same whatever the number of threads."""
    atoms = gates.shape[-1]
    rows = Rows(x, patch_size, atoms)
    total = torch.zeros(rows.blocks, atoms, rows.width)
    pooled = grad.permute(0, 2, 3, 1).contiguous()
    size = min(ATOMS_TOGETHER, -(-atoms // get_num_threads()))  # the more at once, the fewer tables
    for part, patches in rows:
        _add_gradient(patches.numpy(), pooled[part].numpy(), gates[part].numpy(), pool, size, total.numpy())
    return total.transpose(0, 1).reshape(atoms, -1)[:, : rows.numbers].T.contiguous()


def _results(rows: Rows, pool: int) -> tuple[Tensor, Tensor]:
    """Room for averages (B, h', w', N) and gates."""
    tall, wide = -(-rows.h // pool), -(-rows.w // pool)
    out = torch.empty(len(rows.x), tall, wide, rows.atoms)
    return out, torch.empty(len(rows.x), tall, wide, -(-pool * pool // 8), rows.atoms, dtype=torch.uint8)


def lowest(scores: Tensor) -> tuple[Tensor, Tensor]:
    """Index and score of the lowest score in each row; of equal ones the first."""
    index, least = torch.empty(len(scores), dtype=torch.long), torch.empty(len(scores))
    _lowest(scores.numpy(), index.numpy(), least.numpy())
    return index, least


def add_up(points: Tensor, index: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Sum and number of the points of each cluster."""
    sums, sizes = torch.zeros(count, points.shape[1]), torch.zeros(count, dtype=torch.long)
    _add_up(points.numpy(), index.numpy(), sums.numpy(), sizes.numpy())
    return sums, sizes
