"""Patches as rows, a few images at a time: what the CPU's matrix products and tables of sums read."""

from collections.abc import Iterator

import torch
from numba import prange
from torch import Tensor

from layerwise.ops.launch import parallel
from layerwise.ops.vectors import LANES

CHUNK_NUMBERS = 1 << 21  # entries of a chunk's score matrix: 8 MiB of float32, so that it stays in the cache


@parallel
def _cut_rows(x, size, channels, rows):  # type: ignore[no-untyped-def]
    """Cut every patch of x, (b, H, W*C), into `rows`, (b, h, w, at least P+1): the patch, 1, and zeros."""
    images, h, w, _ = rows.shape
    run = size * channels
    for task in prange(images * h):
        i, y = task // h, task % h
        for left in range(w):
            row = rows[i, y, left]
            for dy in range(size):
                for q in range(run):
                    row[dy * run + q] = x[i, y + dy, left * channels + q]
            row[size * run] = 1
            row[size * run + 1 :] = 0


class Rows:
    """The patches of (B, C, H, W) float32, cut into rows, to be multiplied with N atoms, for a few images at a time."""

    def __init__(self, x: Tensor, patch_size: int, atoms: int) -> None:
        b, c, height, width = x.shape
        self.x = x.permute(0, 2, 3, 1).contiguous().flatten(2).numpy()
        self.size, self.channels, self.atoms = patch_size, c, atoms
        self.h, self.w = height - patch_size + 1, width - patch_size + 1
        self.numbers = patch_size * patch_size * c + 1
        self.step = max(1, min(b, CHUNK_NUMBERS // (self.h * self.w * atoms)))
        self.width = -(-self.numbers // LANES) * LANES
        self.rows = torch.empty(self.step, self.h, self.w, self.width)

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
