"""Products with atoms in pairs, of which the second is the first, mirrored: for half of what N products take.

Mirroring exchanges numbers, or changes their signs. What it leaves of a patch z as it is, and what changes its sign,
are its even and its odd half; and z.c = E + O for an atom c, z.Mc = E - O for the mirrored one, if E is the product of
the even halves and O that of the odd ones: together as many numbers as a patch has, with half of the atoms.

Shapes: P numbers of a patch, E of its even and O of its odd half, E + O = P; n = N/2 pairs; m rows.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from layerwise.ops.exact import exactly
from layerwise.ops.launch import parallel
from layerwise.ops.rows import Part, cut_rows
from layerwise.ops.selection import mark_lowest
from layerwise.ops.vectors import LANES
from layerwise.ops.windows import keep

LONG = 128
"""numbers of a patch, and its 1, beyond which near atoms are sought so: with 75 that took longer, with 576 less time"""


class Half(NamedTuple):
    """What a half is made of: left + sign · right."""

    left: Tensor  # (E,) int64, places in a patch
    right: Tensor
    sign: Tensor  # (E,), 0 of a number that is one of the half by itself

    def of(self, rows: Tensor) -> Tensor:
        """That of rows, (m, P or more) to (m, E); by plain torch elsewhere than on a CPU in float32."""
        if rows.device.type != "cpu" or rows.dtype != torch.float32 or rows.stride(1) != 1:
            return rows[:, self.left] + rows[:, self.right] * self.sign.to(rows)
        out = torch.empty(len(rows), len(self.left))
        _add(len(rows), rows.numpy(), self.left.numpy(), self.right.numpy(), self.sign.numpy(), out.numpy())
        return out

    def weights(self, rows: Tensor) -> Tensor:
        """The same of what those are multiplied with: (n, P) to (n, E), so that halves add up to the whole."""
        exchanged = self.sign != 0
        return (rows[:, self.left] + rows[:, self.right] * self.sign.to(rows)) * torch.where(exchanged, 0.5, 1).to(rows)


def halves(order: Tensor, signs: Tensor | None = None) -> tuple[Half, Half]:
    """Even and odd, where mirroring is z_i -> signs_i z_order_i, which is its own inverse; without signs all are 1."""
    place, signs = torch.arange(len(order), device=order.device), torch.ones(len(order)) if signs is None else signs
    signs, alone = signs.to(order.device, torch.float32), order == place
    exchanged = place[place < order]

    def half(of: float) -> Half:
        own = place[alone & (signs == of)]
        left, right = torch.cat([exchanged, own]), torch.cat([order[exchanged], own])
        return Half(left, right, torch.cat([of * signs[exchanged], torch.zeros_like(own, dtype=torch.float32)]))

    return half(1.0), half(-1.0)


@parallel
def _add(first, last, rows, left, right, sign, out):  # type: ignore[no-untyped-def]
    for i in range(first, last):
        for q in range(len(left)):
            out[i, q] = rows[i, np.uintp(left[q])] + sign[q] * rows[i, np.uintp(right[q])]


def times(x: Tensor, weight: Tensor, patch_size: int, mirror: Tensor) -> Iterator[tuple[Part, np.ndarray, np.ndarray]]:
    """Apply an affine map of pairs, (P+1, N), to the patches of (B, C, H, W): yield positions, and (b, h, w, n) twice.

    These are E and O, whose sum is what the first of each pair has, and whose difference what the second has.
    """
    pairs, width = weight.shape[1] // 2, -(-len(weight) // LANES) * LANES
    both = halves(mirror)
    even, odd = (half.weights(weight[:-1, :pairs].T).T for half in both)
    offset, products = weight[-1, :pairs], torch.empty(2, 0, pairs)
    for part, rows in cut_rows(x, patch_size, width, weight.shape[1]):
        sides, flat = rows.shape[:3], rows.flatten(0, 2)
        if len(flat) > products.shape[1]:
            products = torch.empty(2, len(flat), pairs)
        first, second = (half.of(flat) for half in both)
        with exactly():
            torch.addmm(offset, first, even, out=products[0, : len(flat)])
            torch.mm(second, odd, out=products[1, : len(flat)])
        yield part, *(product[: len(flat)].view(*sides, pairs).numpy() for product in products)


@parallel
def mark(first, last, even, odd, k, quantile, bits, indices):  # type: ignore[no-untyped-def]
    """Write which k scores are lowest, of equal ones those of lowest index, from E and O, (b, h, w, n)."""
    _, h, w, pairs = even.shape
    scores, marks = np.empty(2 * pairs, np.float32), np.zeros((2 * pairs + 7) // 8 * 8, np.uint8)
    for task in range(first, last):
        i, y = task // h, task % h
        for x in range(w):
            for j in range(pairs):
                scores[j] = even[i, y, x, j] + odd[i, y, x, j]
                scores[pairs + j] = even[i, y, x, j] - odd[i, y, x, j]
            marks[:] = 0
            mark_lowest(scores, k, quantile, np.uint8(1), marks[: 2 * pairs])
            keep(marks, 2 * pairs, bits, indices, i, y, x)
