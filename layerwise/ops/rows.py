"""Patches as rows of a matrix, a few images at a time, for products with all atoms."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from layerwise.ops.bounded import NUMBERS
from layerwise.ops.exact import exactly
from layerwise.ops.launch import parallel
from layerwise.ops.vectors import LANES
from layerwise.ops.windows import cut

Part = tuple[slice, slice]
"""images of a batch, and rows of their positions: several images come with all their rows"""
MOST = 1 << 25
"""numbers that are made of an image at once, at most, unless a row of windows is more: 128 MiB of float32"""


@parallel
def _cut(first, last, x, size, channels, top, rows):  # type: ignore[no-untyped-def]
    for i in range(first, last):
        cut(x[i], size, channels, top, rows[i])


def times(x: Tensor, weight: Tensor, patch_size: int, pool: int = 1) -> Iterator[tuple[Part, np.ndarray]]:
    """Apply an affine map (P+1, N) to the patches of (B, C, H, W): yield positions of the batch and (b, h, w, N).

    The numbers are overwritten by the next. Windows of side `pool` stay whole.
    """
    products, weight = torch.empty(0), weight.T.contiguous().T  # the layout that matrix products are faster with
    for part, rows in cut_rows(x, patch_size, len(weight), weight.shape[1], pool):
        count = rows.shape[:3].numel()
        if not len(products):
            products = torch.empty(count, weight.shape[1])
        with exactly():
            product = torch.mm(rows.flatten(0, 2), weight, out=products[:count])
        yield part, product.view(*rows.shape[:3], -1).numpy()


def cut_rows(x: Tensor, patch_size: int, width: int, atoms: int, pool: int = 1) -> Iterator[tuple[Part, Tensor]]:
    """Cut the patches of (B, C, H, W): yield positions, and their patches, each with a 1 and zeros, (b, h, w, width).

    The numbers are overwritten by the next. As many images at a time as suit products with N atoms; of an image whose
    products with them are too many, some rows of positions, which do not cut windows of side `pool`.
    """
    b, c, *sides = x.shape
    h, w = (side - patch_size + 1 for side in sides)
    step = max(1, min(b, NUMBERS // (h * w * atoms)))
    tall = h if h * w * atoms <= MOST else max(1, MOST // (w * atoms * pool)) * pool
    images, rows = by_pixel(x), torch.empty(step, min(tall, h), w, width)
    for start in range(0, b, step):
        for top in range(0, h, tall):
            part = slice(start, min(start + step, b)), slice(top, min(top + tall, h))
            some = rows[: part[0].stop - start, : part[1].stop - top]
            _cut(len(some), images[part[0]], patch_size, c, top, some.numpy())
            yield part, some


def by_pixel(x: Tensor) -> np.ndarray:
    """(B, C, H, W) as (B, H, W*C): a patch is then as many runs of numbers as it has rows."""
    return x.permute(0, 2, 3, 1).contiguous().flatten(2).numpy()


def aligned(maps: Tensor) -> np.ndarray:
    """Maps (P+1, N) as rows of whole vectors, (N, width), with zeros behind; as they are where they are so already."""
    numbers, atoms = maps.shape
    width = -(-numbers // LANES) * LANES
    if maps.T.stride() == (width, 1) and maps.untyped_storage().nbytes() >= 4 * (maps.storage_offset() + atoms * width):
        whole = maps.detach().as_strided((atoms, width), (width, 1))
        if not whole[:, numbers:].any():
            return whole.numpy()
    rows = torch.empty(atoms, width)
    rows[:, :numbers], rows[:, numbers:] = maps.T, 0
    return rows.numpy()
