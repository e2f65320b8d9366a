"""The embedding on a CPU: what costs is the atoms that are near, not all there are.

The average over a window of gated maps, sum_p g_jp (u_j . z_p), is u_j . s_j with s_j = sum_p g_jp z_p, the sum of
those patches in the window that atom j is near to; and the gradient of u_j is its pooled gradient times the same s_j.
The sums are looked up: for each four positions of a window all 16 subset sums of their patches are tabled, so that a
window costs each atom that is near to any of its positions one dot product. Which atoms those are takes a product for
each position, a few images at a time; or it is known, since a dictionary never changes: see `layerwise.ops.near`.

Patches are rows with a 1 appended, so that an affine map is one product.

Shapes: b images of a chunk, h w positions, R C windows, N atoms, P+1 ≤ width numbers of a row, S numbers that say which
atoms are near; windows of more than 16 positions are taken 16 at a time.
"""

from statistics import NormalDist

import numpy as np
import torch
from numba import njit, prange
from torch import Tensor

from layerwise.ops.clusters import add_up, lowest
from layerwise.ops.launch import parallel
from layerwise.ops.near import layout
from layerwise.ops.rows import Rows
from layerwise.ops.selection import FASTMATH, mark_lowest

__all__ = ["add_up", "backward", "convolve", "forward", "kept", "lowest", "near"]

PARTS = 8
"""of a batch, whose gradients are added up apart: the same whatever the number of threads"""
GRADIENTS = 1 << 26
"""bytes, at most, of more than one of them"""
SPREAD = np.array([sum(1 << 8 * bit for bit in range(8) if byte >> bit & 1) for byte in range(256)], np.uint64)
"""of a byte each bit as a byte"""


@parallel
def _mark(scores, k, quantile, bits, indices):  # type: ignore[no-untyped-def]
    """Write which k scores of each position, (b, h, w, N), are lowest: bits, or indices where there are no bits."""
    images, h, w, atoms = scores.shape
    for task in prange(images * h):
        i, y = task // h, task % h
        marks = np.zeros((atoms + 7) // 8 * 8, np.uint8)
        for x in range(w):
            marks[:] = 0
            mark_lowest(scores[i, y, x], k, quantile, np.uint8(1), marks[:atoms])
            if bits.shape[0]:
                _as_bits(marks, bits[i, y, x])
            else:
                n = 0
                for j in range(atoms):
                    if marks[j]:
                        indices[i, y, x, n] = j
                        n += 1


@njit(cache=True)
def _as_bits(marks, out):  # type: ignore[no-untyped-def]
    """Write marks, 0 or 1, as bits."""
    for word in range(out.shape[0]):
        byte = np.uint8(0)
        for bit in range(8):
            byte |= np.uint8(marks[8 * word + bit] << bit)
        out[word] = byte


@njit(cache=True)
def _choose(bits, indices, i, window, pool, first, spread, low, high, chosen):  # type: ignore[no-untyped-def]
    """List in `chosen` the atoms near to any of the positions first … first+15 of a window; returns how many.

    Bit p of the byte low[j], from position 8 on of high[j], is set where atom j is near to position first+p. Both are
    zero before, and `_clear` makes them so.
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
def _clear(low, high, chosen, n):  # type: ignore[no-untyped-def]
    for i in range(n):
        low[np.uintp(chosen[i])] = 0
        high[np.uintp(chosen[i])] = 0


@njit(cache=True, fastmath=FASTMATH)
def _subset_sums(rows, window, pool, first, table):  # type: ignore[no-untyped-def]
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
def _dots(table, low, high, chosen, n, maps, out):  # type: ignore[no-untyped-def]
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
def _add(table, low, high, chosen, n, grad, share, total):  # type: ignore[no-untyped-def]
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
def _count(low, high, chosen, n, out):  # type: ignore[no-untyped-def]
    """Add to out, (N,), to how many positions each chosen atom is near."""
    for i in range(n):
        j = np.uintp(chosen[i])
        for bit in range(8):
            out[j] += np.float32((low[j] >> bit & 1) + (high[j] >> bit & 1))


@parallel
def _pool(rows, bits, indices, maps, pool, spread, out):  # type: ignore[no-untyped-def]
    """Average the near atoms' maps, (N, width), or without maps the marks, over windows, (b, R, C, N)."""
    images, tall, wide, atoms = out.shape
    _, h, w, width = rows.shape
    for task in prange(images * tall):
        i, r = task // tall, task % tall
        table = np.zeros((1 if pool <= 2 else 4, 16, width), np.float32)
        low, high = np.zeros((2, (atoms + 7) // 8 * 8), np.uint8)
        chosen = np.empty(len(low) + 1, np.int32)
        for c in range(wide):
            window = r * pool, c * pool, min(r * pool + pool, h), min(c * pool + pool, w)
            pooled = out[i, r, c]
            pooled[:] = 0
            for first in range(0, pool * pool, 16):
                n = _choose(bits, indices, i, window, pool, first, spread, low, high, chosen)
                if maps.shape[1]:
                    _subset_sums(rows[i], window, pool, first, table)
                    _dots(table, low, high, chosen, n, maps, pooled)
                else:
                    _count(low, high, chosen, n, pooled)
                _clear(low, high, chosen, n)
            share = np.float32(1) / np.float32((window[2] - window[0]) * (window[3] - window[1]))
            for j in range(atoms):
                pooled[j] *= share


@parallel
def _add_gradient(rows, bits, indices, grad, pool, spread, parts, total):  # type: ignore[no-untyped-def]
    """Add a chunk's gradient to total, (parts, N, width): that of image i to the part parts[i]."""
    images, tall, wide, atoms = grad.shape
    _, h, w, width = rows.shape
    for part in prange(total.shape[0]):
        table = np.zeros((1 if pool <= 2 else 4, 16, width), np.float32)
        low, high = np.zeros((2, (atoms + 7) // 8 * 8), np.uint8)
        chosen = np.empty(len(low) + 1, np.int32)
        for i in range(images):
            if parts[i] != part:
                continue
            for r in range(tall):
                for c in range(wide):
                    window = r * pool, c * pool, min(r * pool + pool, h), min(c * pool + pool, w)
                    share = np.float32(1) / np.float32((window[2] - window[0]) * (window[3] - window[1]))
                    for first in range(0, pool * pool, 16):
                        n = _choose(bits, indices, i, window, pool, first, spread, low, high, chosen)
                        _subset_sums(rows[i], window, pool, first, table)
                        _add(table, low, high, chosen, n, grad[i, r, c], share, total[part])
                        _clear(low, high, chosen, n)


@parallel
def _rectify_and_pool(responses, pool, bits, out):  # type: ignore[no-untyped-def]
    """Write bits where a response is above 0, (b, h, w, S), and average those that are, (b, R, C, N)."""
    images, h, w, atoms = responses.shape
    _, tall, wide, _ = out.shape
    for task in prange(images * tall):
        i, r = task // tall, task % tall
        marks = np.zeros((atoms + 7) // 8 * 8, np.uint8)
        top, bottom = r * pool, min(r * pool + pool, h)
        for c in range(wide):
            left, right = c * pool, min(c * pool + pool, w)
            pooled = out[i, r, c]
            pooled[:] = 0
            for y in range(top, bottom):
                for x in range(left, right):
                    response = responses[i, y, x]
                    for j in range(atoms):
                        pooled[j] += max(response[j], np.float32(0))
                        marks[j] = response[j] > 0
                    _as_bits(marks, bits[i, y, x])
            share = np.float32(1) / np.float32((bottom - top) * (right - left))
            for j in range(atoms):
                pooled[j] *= share


def kept(b: int, h: int, w: int, atoms: int, neighbors: int | None, pool: int) -> tuple[tuple[int, ...], torch.dtype]:
    """Shape and type of what `forward`, or without neighbors `convolve`, keeps for the backward pass."""
    size, dtype = layout(atoms, atoms if neighbors is None else neighbors)
    return (b, h, w, size), dtype


def forward(
    x: Tensor,
    scorer: Tensor,
    maps: Tensor | None,
    patch_size: int,
    neighbors: int,
    pool: int,
    near: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Pooled embedding of a batch, and what is near; see `layerwise.ops`. Without maps each near atom counts 1."""
    atoms = scorer.shape[1]
    rows = Rows(x, patch_size, atoms)
    out = _room(rows, pool)
    aligned = torch.zeros(atoms, rows.width if maps is not None else 0)
    if maps is not None:
        aligned[:, : rows.numbers] = maps.T
    if near is None:
        shape, dtype = kept(len(x), rows.h, rows.w, atoms, neighbors, pool)
        near = torch.empty(shape, dtype=dtype)
        for part, patches, scores in rows.times(scorer):
            _mark(scores.numpy(), np.int32(neighbors), _quantile(neighbors, atoms), *_views(near[part]))
            _pool(patches.numpy(), *_views(near[part]), aligned.numpy(), pool, SPREAD, out[part].numpy())
    else:
        for part, patches in rows:
            _pool(patches.numpy(), *_views(near[part]), aligned.numpy(), pool, SPREAD, out[part].numpy())
    return out.permute(0, 3, 1, 2), near


def near(x: Tensor, scorer: Tensor, patch_size: int, neighbors: int) -> Tensor:
    """Which atoms are near each patch, (B, h, w, S)."""
    atoms = scorer.shape[1]
    rows = Rows(x, patch_size, atoms)
    shape, dtype = kept(len(x), rows.h, rows.w, atoms, neighbors, 1)
    found = torch.empty(shape, dtype=dtype)
    for part, _, scores in rows.times(scorer):
        _mark(scores.numpy(), np.int32(neighbors), _quantile(neighbors, atoms), *_views(found[part]))
    return found


def convolve(x: Tensor, maps: Tensor, patch_size: int, pool: int) -> tuple[Tensor, Tensor]:
    """As `forward`, where the maps' own sign is the gate."""
    rows = Rows(x, patch_size, maps.shape[1])
    out = _room(rows, pool)
    shape, dtype = kept(len(x), rows.h, rows.w, rows.atoms, None, pool)
    near = torch.empty(shape, dtype=dtype)
    for part, _, responses in rows.times(maps):
        _rectify_and_pool(responses.numpy(), pool, near[part].numpy(), out[part].numpy())
    return out.permute(0, 3, 1, 2), near


def backward(x: Tensor, grad: Tensor, near: Tensor, patch_size: int, pool: int) -> Tensor:
    """Gradient of the maps, (P+1, N); see `layerwise.ops`. The same whatever the number of threads."""
    b, atoms = grad.shape[:2]
    rows = Rows(x, patch_size, atoms)
    size = atoms * rows.width * 4
    count = max(1, min(PARTS, b, GRADIENTS // size))
    parts = np.arange(b) * count // b
    total = torch.zeros(count, atoms, rows.width)
    pooled = grad.permute(0, 2, 3, 1).contiguous()
    for part, patches in rows:
        inputs = patches.numpy(), *_views(near[part]), pooled[part].numpy(), pool, SPREAD, parts[part]
        _add_gradient(*inputs, total.numpy())
    return total.sum(0)[:, : rows.numbers].T.contiguous()


def _quantile(neighbors: int, atoms: int) -> np.float32:
    """Of k/N under the normal distribution: where the search for the k-th score begins."""
    return np.float32(NormalDist().inv_cdf(min(max(neighbors / atoms, 1e-3), 1 - 1e-3)))


def _views(near: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """What is near, as bits and as indices, of which there is one."""
    array = near.numpy()
    if near.dtype == torch.uint8:
        return array, np.empty((0, 0, 0, 0), np.int16)
    return np.empty((0, 0, 0, 0), np.uint8), array


def _room(rows: Rows, pool: int) -> Tensor:
    """Room for averages (B, h', w', N)."""
    return torch.empty(len(rows.x), -(-rows.h // pool), -(-rows.w // pool), rows.atoms)
