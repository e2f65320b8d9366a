"""Crops of what is stored of whole images: each input is a part of it, whose place is drawn.

Where a stack makes of a part of an image the same part of what it makes of the whole, as patches and windows do that
fall on the same places, all its crops come from one pass over the image with what may enter at its borders.

Shapes: B images.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor

from layerwise.config.choices import SHIFTS
from layerwise.data.images import Drawn
from layerwise.data.parts import Part


@dataclass(frozen=True)
class Shifts:
    """Crops of stored features, drawn for each image: as `Augmentation` is of images."""

    margin: int
    """positions that a crop can be shifted by, along each side"""
    shifts: str = "uniform"
    """a name in `SHIFTS`"""
    flip = False

    def draw(self, count: int, generator: torch.Generator) -> Drawn:
        """Draw for so many images, with a CPU generator."""
        return Drawn(SHIFTS[self.shifts](self.margin, count, generator), torch.zeros(count, 1, dtype=torch.bool))

    def part(self, index: Tensor, drawn: Drawn, count: int) -> Part:
        """Which part of the features of so many images those at `index` (B,) see."""
        return Part(index, drawn.shift[0], drawn.shift[1], self.margin)


class Origin(NamedTuple):
    """Where a view of a layer's output comes from."""

    parent: int
    """the view of its input, by number; of images, those that are mirrored are 1"""
    rows: int
    """of the input's whole that are left out before the first, and"""
    columns: int
    """columns"""
    margin: int
    """positions that a crop of it can be shifted by"""

    @property
    def crops(self) -> int:
        """How many different crops it holds."""
        return (self.margin + 1) ** 2


def origins(margins: Sequence[int], pool: int, wanted: int) -> list[Origin]:
    """Views of a layer's output that hold so many crops, or all there are, from views of its input with such margins.

    A shift by less than a window of side `pool` makes other windows, and so another view.
    """
    found: list[Origin] = []
    shifts = sorted(product(range(pool), repeat=2), key=lambda shift: (shift[0] != shift[1], shift))
    for rows, columns in shifts:
        if sum(one.crops for one in found) >= wanted:
            break
        left = [margin - max(rows, columns) for margin in margins]
        found += [Origin(i, rows, columns, rest // pool) for i, rest in enumerate(left) if rest >= 0]
    return found
