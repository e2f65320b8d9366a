"""The embedding on a CPU, by one matrix product instead of three.

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

from statistics import NormalDist

import numpy as np
import torch
from numba import get_num_threads, njit, prange
from torch import Tensor

from layerwise.ops.clusters import add_up, lowest
from layerwise.ops.launch import parallel
from layerwise.ops.rows import Rows
from layerwise.ops.selection import FASTMATH, mark_lowest

__all__ = ["add_up", "backward", "convolve", "forward", "lowest"]

ATOMS_TOGETHER = 512  # at most so many a task of the backward pass: their maps stay in the second cache


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


@parallel
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


@parallel
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


@parallel
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
