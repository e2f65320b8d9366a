"""A part of what is stored of each image.

Shapes: n images, B inputs, S numbers of a position, H W side of what is stored, h w of a part.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from layerwise.data.rows import Stored


class Part(NamedTuple):
    """Which part of what is stored each input is."""

    places: Tensor
    """(B,) int64, among what is stored"""
    tops: Tensor
    """(B, 1) int64, the first row"""
    lefts: Tensor
    """(B, 1) int64, the first column"""
    less: int
    """by how many rows, and columns, it is smaller"""

    def of(self, values: Tensor | Stored) -> Tensor:
        """(n, H, W, S) to (B, h, w, S)."""
        _, height, width, _ = values.shape
        places = self.places
        if isinstance(values, Stored):
            values, places = values[places], torch.arange(len(places))
        h, w = (torch.arange(side - self.less, device=values.device) for side in (height, width))
        rows = places[:, None] * height + self.tops + h
        positions = rows[:, :, None] * width + (self.lefts + w)[:, None]
        return values.flatten(0, 2).index_select(0, positions.flatten()).view(*positions.shape, -1)
