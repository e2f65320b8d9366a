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
from numba import prange
from torch import Tensor

from layerwise.ops.clusters import add_up, lowest
from layerwise.ops.launch import parallel
from layerwise.ops.near import layout
from layerwise.ops.rows import Rows
from layerwise.ops.selection import mark_lowest
from layerwise.ops.windows import add_counts, add_gradients, as_bits, choose, clear, dots, subset_sums

__all__ = ["add_up", "backward", "convolve", "forward", "kept", "lowest", "near"]

PARTS = 8
"""of a batch, whose gradients are added up apart: the same whatever the number of threads"""
GRADIENTS = 1 << 26
"""bytes, at most, of more than one of them"""


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
                as_bits(marks, bits[i, y, x])
            else:
                n = 0
                for j in range(atoms):
                    if marks[j]:
                        indices[i, y, x, n] = j
                        n += 1


@parallel
def _pool(rows, bits, indices, maps, pool, out):  # type: ignore[no-untyped-def]
    """Average the near atoms' maps, (N, width), or without maps the marks, over windows, (b, R, C, N)."""
    images, tall, wide, atoms = out.shape
    _, h, w, width = rows.shape
    for task in prange(images * tall):
        i, r = task // tall, task % tall
        table = np.zeros((16 if pool <= 2 else 64, width), np.float32)
        marks = np.zeros((2, (atoms + 7) // 8 * 8), np.uint8)
        words, chosen = marks.view(np.uint64), np.empty(marks.shape[1] + 1, np.int32)
        for c in range(wide):
            window = r * pool, c * pool, min(r * pool + pool, h), min(c * pool + pool, w)
            pooled = out[i, r, c]
            pooled[:] = 0
            for first in range(0, pool * pool, 16):
                n = choose(bits, indices, i, window, pool, first, marks, words, chosen)
                if maps.shape[1]:
                    subset_sums(rows[i], window, pool, first, table)
                    dots(table, marks, chosen, n, maps, pooled)
                else:
                    add_counts(marks, chosen, n, pooled)
                clear(marks, chosen, n)
            share = np.float32(1) / np.float32((window[2] - window[0]) * (window[3] - window[1]))
            for j in range(atoms):
                pooled[j] *= share


@parallel
def _add_gradient(rows, bits, indices, grad, pool, parts, total):  # type: ignore[no-untyped-def]
    """Add a chunk's gradient to total, (parts, N, width): that of image i to the part parts[i]."""
    images, tall, wide, atoms = grad.shape
    _, h, w, width = rows.shape
    for part in prange(total.shape[0]):
        table = np.zeros((16 if pool <= 2 else 64, width), np.float32)
        marks = np.zeros((2, (atoms + 7) // 8 * 8), np.uint8)
        words, chosen = marks.view(np.uint64), np.empty(marks.shape[1] + 1, np.int32)
        for i in range(images):
            if parts[i] != part:
                continue
            for r in range(tall):
                for c in range(wide):
                    window = r * pool, c * pool, min(r * pool + pool, h), min(c * pool + pool, w)
                    share = np.float32(1) / np.float32((window[2] - window[0]) * (window[3] - window[1]))
                    for first in range(0, pool * pool, 16):
                        n = choose(bits, indices, i, window, pool, first, marks, words, chosen)
                        subset_sums(rows[i], window, pool, first, table)
                        add_gradients(table, marks, chosen, n, grad[i, r, c], share, total[part])
                        clear(marks, chosen, n)


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
                    as_bits(marks, bits[i, y, x])
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
            _pool(patches.numpy(), *_views(near[part]), aligned.numpy(), pool, out[part].numpy())
    else:
        for part, patches in rows:
            _pool(patches.numpy(), *_views(near[part]), aligned.numpy(), pool, out[part].numpy())
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
        inputs = patches.numpy(), *_views(near[part]), pooled[part].numpy(), pool, parts[part]
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
