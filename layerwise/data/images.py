"""Images as one uint8 tensor, and how pixels become a first layer's input.

Shapes: n images, B batch, C channels, H W image side.
"""

import math
import os
import tempfile
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from layerwise.config.choices import PIXELS


@dataclass(frozen=True)
class Images:
    """Images and their classes."""

    pixels: Tensor
    """(n, C, H, W) uint8"""
    labels: Tensor
    """(n,) int64, from 0"""

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of an image."""
        c, h, w = self.pixels.shape[1:]
        return c, h, w

    def subset(self, index: Tensor) -> "Images":
        """The images at `index`, (m,) int64."""
        pixels = allocate((len(index), *self.pixels.shape[1:]))
        for start in range(0, len(index), 1024):
            pixels[start : start + 1024] = self.pixels[index[start : start + 1024]]
        return Images(pixels, self.labels[index])


def allocate(
    shape: tuple[int, ...],
    dtype: torch.dtype = torch.uint8,
    count: int = 1,
    device: torch.device = torch.device("cpu"),  # noqa: B008  (immutable)
) -> Tensor:
    """An uninitialized tensor, in memory; where `count` of them would take over a quarter of that, in a temporary file.

    The file has no name once it is open, so that it is gone with the process, however that ends.
    """
    size = math.prod(shape) * dtype.itemsize
    if device.type != "cpu":
        return torch.empty(shape, dtype=dtype, device=device)
    if count * size <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 4:
        return torch.empty(shape, dtype=dtype)
    file = tempfile.TemporaryFile()  # noqa: SIM115  (the mapping keeps it open)
    if hasattr(os, "posix_fallocate"):  # an error now, where the disk is too small, and no SIGBUS later
        os.posix_fallocate(file.fileno(), 0, size)
    return torch.from_numpy(np.memmap(file, np.uint8, "w+", shape=size)).view(dtype).view(shape)


@PIXELS("input")
def to_input(pixels: Tensor) -> Tensor:
    """From -1 to 1, as every first layer sees them, in sampling, training and use alike."""
    return pixels.float() / 127.5 - 1


@PIXELS("unit")
def to_unit(pixels: Tensor) -> Tensor:
    """From 0 to 1, on which the authors learn their dictionaries, though they train on -1 to 1."""
    return (to_input(pixels) + 1) / 2
