"""Which atoms are near, by a product of half the precision: exact, since what it leaves open is computed anew.

A number rounded to bfloat16 is off by at most 2^-9 of itself. So the product of a patch z and an atom's weights w, of
rounded numbers and rounded once more, is off by at most 3·2^-9·|z|·|w| (Cauchy and Schwarz), and what float32 adds:
each score has a lower and an upper bound. The k-th lowest score lies between the k-th lowest of the lower and that of
the upper bounds; an atom whose bounds are both below, or both above, is settled. Of the others, few, the scores are
computed in float32.

Shapes: b images of a chunk, h w positions, N atoms, P+1 ≤ width numbers of a row.
"""

from collections.abc import Iterator

import numpy as np
import torch
from numba import njit
from torch import Tensor

from layerwise.ops.launch import parallel
from layerwise.ops.rows import Part, aligned, cut_rows
from layerwise.ops.selection import mark_lowest, select
from layerwise.ops.vectors import dot
from layerwise.ops.windows import keep

LONG = 128
"""numbers of a patch from which on the product takes most of the time"""
ROUNDED, ADDED = 3.02 * 2**-9, 2**-22
"""by how much, relative to |z|·|w|, rounding to bfloat16 can be off; and what float32 can for each number of a patch"""


def pays(patch: int) -> bool:
    """Whether products of bfloat16 are faster here, for patches of so many numbers; the same for every process."""
    tests = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return patch >= LONG and any(test() for test in tests if test is not None)


def times(x: Tensor, scorer: Tensor, patch_size: int) -> Iterator[tuple[Part, tuple[np.ndarray, ...]]]:
    """Multiply the patches of (B, C, H, W) with a scorer (P+1, N): yield positions of the batch, what `mark` takes."""
    patch, atoms = len(scorer) - 1, scorer.shape[1]
    exact, weight = aligned(scorer), scorer[:-1].bfloat16().T.contiguous().T
    # a row's length is at least 1, by the 1 in it, so that what adding an offset rounds is held, too
    slack = scorer[:-1].norm(dim=0) * (ROUNDED + ADDED * patch) + scorer[-1].abs() * ADDED
    for part, rows in cut_rows(x, patch_size, exact.shape[1], atoms):
        product = rows[..., :patch].bfloat16().flatten(0, 2) @ weight
        numbers = product.view(torch.int16).view(*rows.shape[:3], atoms).numpy()
        yield part, (numbers, rows.numpy(), exact, scorer[-1].contiguous().numpy(), slack.numpy())


@njit(cache=True)
def _listed(marks, chosen):  # type: ignore[no-untyped-def]
    """List which marks, (8n,) of which few are 1, are so; returns how many."""
    words, n = marks.view(np.uint64), 0
    for word in range(words.shape[0]):
        if words[word]:
            for j in range(8 * word, 8 * word + 8):
                chosen[n] = j
                n += marks[j]
    return n


@parallel
def mark(first, last, products, rows, scorer, offsets, slack, k, quantile, bits, indices):  # type: ignore[no-untyped-def]
    """Write which k atoms have the lowest score, of equal ones those with the lowest index: bits, or indices.

    Products are (b, h, w, N), bfloat16 as int16; rows (b, h, w, width) and the scorer (N, width) float32; offsets and
    slack (N,), by how much an atom's product can be off for a patch of length 1.
    """
    _, h, w, atoms = products.shape
    patches = rows.reshape(-1, rows.shape[3])
    low, high, exact = np.empty(atoms, np.float32), np.empty(atoms, np.float32), np.empty(atoms, np.float32)
    values, candidates = high.view(np.int32), np.empty(atoms + 1, np.int32)
    marks = np.zeros((atoms + 7) // 8 * 8, np.uint8)
    unsettled = np.zeros_like(marks)
    for task in range(first, last):
        i, y = task // h, task % h
        for x in range(w):
            patch = np.uintp(task * w + x)
            length = np.sqrt(dot(patches, (patch,), patches, patch))
            for j in range(atoms):
                values[j] = np.int32(products[i, y, x, j]) << np.int32(16)
            for j in range(atoms):
                score, off = high[j] + offsets[j], slack[j] * length
                low[j], high[j] = score - off, score + off
            least = select(low, k - 1, quantile)[0] if k > 1 else -np.float32(np.inf)
            most = select(high, k, quantile)[0]
            settled = np.uint32(0)
            for j in range(atoms):
                marks[j] = high[j] < least
                unsettled[j] = (low[j] <= most) & (high[j] >= least)
                settled = np.uint32(settled + marks[j])
            n, room = _listed(unsettled, candidates), np.int32(k - settled)
            if n > room:
                for m in range(n):
                    exact[m] = dot(patches, (patch,), scorer, np.uintp(candidates[m]))
                unsettled[:n] = 0
                mark_lowest(exact[:n], room, np.float32(0), np.uint8(1), unsettled)
                for m in range(n):
                    marks[candidates[m]] = unsettled[m]
            else:
                for m in range(n):
                    marks[candidates[m]] = 1
            keep(marks, atoms, bits, indices, i, y, x)
