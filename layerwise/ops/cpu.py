"""The embedding on a CPU: what costs is the atoms that are near, not all there are.

The average over a window of gated maps, sum_p g_jp (u_j . z_p), is u_j . s_j with s_j = sum_p g_jp z_p, the sum of
those patches in the window that atom j is near to; and the gradient of u_j is its pooled gradient times the same s_j.
The sums are looked up: for each four positions of a window all 16 subset sums of their patches are tabled, so that a
window costs each atom that is near to any of its positions one dot product. Which atoms those are takes a product for
each position, a few images at a time; or it is known, since a dictionary never changes: see `layerwise.ops.near`.

Patches are rows with a 1 appended, so that an affine map is one product; they are cut where they are needed.

Shapes: b images of a chunk, h w positions, R C windows, N atoms, M places for those near to a window, P+1 ≤ width
numbers of a row, S numbers that say which atoms are near; windows of more than 16 positions are taken 16 at a time.
"""

from statistics import NormalDist

import numpy as np
import torch
from torch import Tensor

from layerwise.ops import pairs, prefilter, sparse
from layerwise.ops.clusters import add_up, lowest
from layerwise.ops.launch import parallel
from layerwise.ops.maps import unfolded
from layerwise.ops.near import layout, places
from layerwise.ops.rows import aligned, by_pixel, times
from layerwise.ops.selection import mark_lowest
from layerwise.ops.vectors import LANES
from layerwise.ops.windows import add_counts, add_gradients, choose, clear, cut, dots, keep, subset_sums

__all__ = ["add_up", "backward", "convolve", "forward", "gather", "lowest", "near", "unfolded"]

NONE = np.empty((0, 0, 0, 0), np.int32)
"""where all atoms have their place"""


@parallel
def _mark(first, last, scores, k, quantile, bits, indices):  # type: ignore[no-untyped-def]
    """Write which k scores of each position, (b, h, w, N), are lowest: bits, or indices where there are no bits."""
    _, h, w, atoms = scores.shape
    marks = np.zeros((atoms + 7) // 8 * 8, np.uint8)
    for task in range(first, last):
        i, y = task // h, task % h
        for x in range(w):
            marks[:] = 0
            mark_lowest(scores[i, y, x], k, quantile, np.uint8(1), marks[:atoms])
            keep(marks, atoms, bits, indices, i, y, x)


@parallel
def _pool(first, last, x, size, bits, indices, maps, pool, out, which):  # type: ignore[no-untyped-def]
    """Average the near atoms' maps, (N, width), or without maps the marks, over windows, (B, R, C, N).

    Where `which` is not empty, (B, R, C, M), out holds only the atoms that are near, and `which` says which those are.
    """
    _, tall, wide, places = out.shape
    _, h, w, _ = bits.shape if bits.shape[0] else indices.shape
    atoms, width = maps.shape
    rows = np.empty((min(pool, h) if width else 0, w, width), np.float32)
    table = np.zeros((16 if pool <= 2 else 64, width), np.float32)
    marks = np.zeros((2, (atoms + 7) // 8 * 8), np.uint8)
    words, chosen = marks.view(np.uint64), np.empty(marks.shape[1] + 1, np.int32)
    for task in range(first, last):
        i, r = task // tall, task % tall
        top, bottom = r * pool, min(r * pool + pool, h)
        if width:
            cut(x[i], size, x.shape[2] // (w + size - 1), top, rows[: bottom - top])
        for c in range(wide):
            window = top, c * pool, bottom, min(c * pool + pool, w)
            pooled = out[i, r, c]
            pooled[:] = 0
            for start in range(0, pool * pool, 16):
                n = choose(bits, indices, i, window, pool, start, marks, words, chosen)
                if width:
                    subset_sums(rows, window, pool, start, table)
                    dots(table, marks, chosen, n, maps, which.shape[0] > 0, pooled)
                else:
                    add_counts(marks, chosen, n, pooled)
                if which.shape[0]:
                    for m in range(places):
                        which[i, r, c, m] = chosen[m] if m < n else 0
                clear(marks, chosen, n)
            share = np.float32(1) / np.float32((bottom - top) * (window[3] - window[1]))
            for j in range(places):
                pooled[j] *= share


@parallel
def _add_gradient(first, last, x, size, bits, indices, grad, pool, total):  # type: ignore[no-untyped-def]
    """Write the gradient of the maps, (parts, N, width): each part of the batch adds up that of its images."""
    images, tall, wide, _ = grad.shape
    _, h, w, _ = bits.shape if bits.shape[0] else indices.shape
    parts, atoms, width = total.shape
    rows = np.empty((min(pool, h), w, width), np.float32)
    table = np.zeros((16 if pool <= 2 else 64, width), np.float32)
    marks = np.zeros((2, (atoms + 7) // 8 * 8), np.uint8)
    words, chosen = marks.view(np.uint64), np.empty(marks.shape[1] + 1, np.int32)
    for part in range(first, last):
        total[part] = 0
        for i in range(part * images // parts, (part + 1) * images // parts):
            for r in range(tall):
                top, bottom = r * pool, min(r * pool + pool, h)
                cut(x[i], size, x.shape[2] // (w + size - 1), top, rows[: bottom - top])
                for c in range(wide):
                    window = top, c * pool, bottom, min(c * pool + pool, w)
                    share = np.float32(1) / np.float32((bottom - top) * (window[3] - window[1]))
                    for start in range(0, pool * pool, 16):
                        n = choose(bits, indices, i, window, pool, start, marks, words, chosen)
                        subset_sums(rows, window, pool, start, table)
                        add_gradients(table, marks, chosen, n, grad[i, r, c], share, total[part])
                        clear(marks, chosen, n)


@parallel
def _add_parts(first, last, total, out):  # type: ignore[no-untyped-def]
    """Add up the parts of a gradient, (parts, N, width), without what is beyond P+1: (N, P+1)."""
    for j in range(first, last):
        for q in range(out.shape[1]):
            out[j, q] = total[0, j, q]
        for part in range(1, total.shape[0]):
            for q in range(out.shape[1]):
                out[j, q] += total[part, j, q]


@parallel
def _rectify_and_pool(first, last, responses, pool, bits, indices, out):  # type: ignore[no-untyped-def]
    """Write bits where a response is above 0, (b, h, w, S), and average those that are, (b, R, C, N)."""
    _, h, w, atoms = responses.shape
    _, tall, wide, _ = out.shape
    marks = np.zeros((atoms + 7) // 8 * 8, np.uint8)
    for task in range(first, last):
        i, r = task // tall, task % tall
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
                    keep(marks, atoms, bits, indices, i, y, x)
            share = np.float32(1) / np.float32((bottom - top) * (right - left))
            for j in range(atoms):
                pooled[j] *= share


def forward(
    x: Tensor,
    scorer: Tensor,
    maps: Tensor | None,
    patch_size: int,
    neighbors: int,
    pool: int,
    known: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Pooled embedding of a batch, and what is near; see `layerwise.ops`. Without maps each near atom counts 1."""
    found = near(x, scorer, patch_size, neighbors) if known is None else known
    out = torch.empty(*_windows(found, pool), scorer.shape[1])
    inputs = *_inputs(x, patch_size, found), _rows_of(maps, scorer.shape[1]), pool
    _pool(len(x) * out.shape[1], *inputs, out.numpy(), NONE)
    return out.permute(0, 3, 1, 2), found


def gather(
    x: Tensor, scorer: Tensor, maps: Tensor, patch_size: int, neighbors: int, pool: int, known: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """As `forward`, but only of what is near: values and atoms, (B, h', w', M), and what is near."""
    found = near(x, scorer, patch_size, neighbors) if known is None else known
    out = torch.empty(*_windows(found, pool), places(scorer.shape[1], neighbors, pool))
    which = torch.empty(out.shape, dtype=torch.int32)
    inputs = *_inputs(x, patch_size, found), _rows_of(maps, scorer.shape[1]), pool
    _pool(len(x) * out.shape[1], *inputs, out.numpy(), which.numpy())
    return out, which, found


def near(x: Tensor, scorer: Tensor, patch_size: int, neighbors: int, mirror: Tensor | None = None) -> Tensor:
    """Which atoms are near each patch, (B, h, w, S)."""
    atoms = scorer.shape[1]
    found = _unknown(x, patch_size, atoms, neighbors)
    wanted = np.int32(neighbors), _quantile(neighbors, atoms)
    if prefilter.pays(len(scorer) - 1):
        for part, bounded in prefilter.times(x, scorer, patch_size):
            prefilter.mark(len(bounded[0]) * bounded[0].shape[1], *bounded, *wanted, *_views(found[part]))
    elif mirror is not None and len(scorer) > pairs.LONG:
        for part, even, odd in pairs.times(x, scorer, patch_size, mirror):
            pairs.mark(len(even) * even.shape[1], even, odd, *wanted, *_views(found[part]))
    else:
        for part, scores in times(x, scorer, patch_size):
            _mark(len(scores) * scores.shape[1], scores, *wanted, *_views(found[part]))
    return found


def convolve(x: Tensor, maps: Tensor, patch_size: int, pool: int) -> tuple[Tensor, Tensor]:
    """As `forward`, where the maps' own sign is the gate."""
    found = _unknown(x, patch_size, maps.shape[1], maps.shape[1])
    out = torch.empty(*_windows(found, pool), maps.shape[1])
    for (images, rows), responses in times(x, maps, patch_size, pool):
        pooled = out[images, rows.start // pool : -(-rows.stop // pool)]
        _rectify_and_pool(len(pooled) * pooled.shape[1], responses, pool, *_views(found[images, rows]), pooled.numpy())
    return out.permute(0, 3, 1, 2), found


def backward(
    x: Tensor, grad: Tensor, near: Tensor, patch_size: int, pool: int, gathered_of: int | None = None
) -> Tensor:
    """Gradient of the maps, (P+1, N); see `layerwise.ops`. The same whatever the number of threads.

    `gathered_of` is the number of atoms where `grad` is that of what `gather` gives.
    """
    if not len(x):
        return torch.zeros(patch_size * patch_size * x.shape[1] + 1, gathered_of or grad.shape[1])
    if gathered_of is not None:
        return sparse.gradient(by_pixel(x), patch_size, near.numpy(), grad.numpy(), pool, gathered_of).T
    pooled = grad.permute(0, 2, 3, 1).contiguous()
    atoms, numbers = grad.shape[1], patch_size * patch_size * x.shape[1] + 1
    width = -(-numbers // LANES) * LANES
    parts = min(len(x), sparse.parts(atoms * width))
    total, out = torch.empty(parts, atoms, width), torch.empty(atoms, numbers)
    _add_gradient(parts, *_inputs(x, patch_size, near), pooled.numpy(), pool, total.numpy())
    _add_parts(atoms, total.numpy(), out.numpy())
    return out.T


def _unknown(x: Tensor, patch_size: int, atoms: int, neighbors: int) -> Tensor:
    """Room for what is near, (B, h, w, S): zeros, as of scores that are no numbers fewer than k may be near."""
    size, dtype = layout(atoms, neighbors)
    h, w = (side - patch_size + 1 for side in x.shape[2:])
    return torch.zeros(len(x), h, w, size, dtype=dtype)


def _quantile(neighbors: int, atoms: int) -> np.float32:
    """Of k/N under the normal distribution: where the search for the k-th score begins."""
    return np.float32(NormalDist().inv_cdf(min(max(neighbors / atoms, 1e-3), 1 - 1e-3)))


def _views(near: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """What is near, as bits and as indices, of which there is one."""
    array = near.numpy()
    if near.dtype == torch.uint8:
        return array, np.empty((0, 0, 0, 0), np.int16)
    return np.empty((0, 0, 0, 0), np.uint8), array


def _rows_of(maps: Tensor | None, atoms: int) -> np.ndarray:
    """Maps as rows, (N, width); of width 0 without maps."""
    return np.empty((atoms, 0), np.float32) if maps is None else aligned(maps)


def _inputs(x: Tensor, patch_size: int, near: Tensor) -> tuple[np.ndarray, int, np.ndarray, np.ndarray]:
    """What the loops over windows take of a batch."""
    return by_pixel(x), patch_size, *_views(near)


def _windows(near: Tensor, pool: int) -> tuple[int, int, int]:
    """(B, h', w')."""
    b, h, w, _ = near.shape
    return b, -(-h // pool), -(-w // pool)
