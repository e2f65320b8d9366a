"""Patches as rows of a matrix, a few images at a time, for products with all atoms."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from layerwise.ops.bounded import NUMBERS
from layerwise.ops.launch import parallel
from layerwise.ops.vectors import LANES
from layerwise.ops.windows import cut


@parallel
def _cut(first, last, x, size, channels, rows):  # type: ignore[no-untyped-def]
    for i in range(first, last):
        cut(x[i], size, channels, 0, rows[i])


def times(x: Tensor, weight: Tensor, patch_size: int) -> Iterator[tuple[slice, np.ndarray]]:
    """Apply an affine map (P+1, N) to the patches of (B, C, H, W): yield a slice of the batch and (b, h, w, N).

    The numbers are overwritten by the next.
    """
    products, weight = None, weight.T.contiguous().T  # the layout that matrix products are faster with
    for part, rows in cut_rows(x, patch_size, *weight.shape):
        if products is None:
            products = torch.empty(*rows.shape[:3], weight.shape[1])
        product = products[: len(rows)]
        torch.mm(rows.flatten(0, 2), weight, out=product.flatten(0, 2))
        yield part, product.numpy()


def cut_rows(x: Tensor, patch_size: int, width: int, atoms: int) -> Iterator[tuple[slice, Tensor]]:
    """Cut the patches of (B, C, H, W): yield a slice of the batch, and each patch, a 1, and zeros, (b, h, w, width).

    The numbers are overwritten by the next. As many images at a time as suit products with N atoms.
    """
    b, c, *sides = x.shape
    h, w = (side - patch_size + 1 for side in sides)
    step = max(1, min(b, NUMBERS // (h * w * atoms)))
    rows, images = torch.empty(step, h, w, width), by_pixel(x)
    for start in range(0, b, step):
        part = slice(start, min(start + step, b))
        some = rows[: part.stop - start]
        _cut(len(some), images[part], patch_size, c, some.numpy())
        yield part, some


def by_pixel(x: Tensor) -> np.ndarray:
    """(B, C, H, W) as (B, H, W*C): a patch is then as many runs of numbers as it has rows."""
    return x.permute(0, 2, 3, 1).contiguous().flatten(2).numpy()


def aligned(maps: Tensor) -> np.ndarray:
    """Maps (P+1, N) as rows of whole vectors, (N, width)."""
    numbers, atoms = maps.shape
    rows = torch.zeros(atoms, -(-numbers // LANES) * LANES)
    rows[:, :numbers] = maps.T
    return rows.numpy()
