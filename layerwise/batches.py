"""Batches of images from one uint8 tensor, shuffled and augmented on the device that holds it.

Shapes: n images, B batch, C channels, H W image side.
"""

import math
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

EVALUATION_BATCH = 256


@dataclass(frozen=True)
class Images:
    """Images and their classes."""

    pixels: Tensor
    """(n, C, H, W) uint8"""
    labels: Tensor
    """(n,) int64, from 0"""

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, index: Tensor) -> "Images":
        """The images at `index`, (m,) int64."""
        pixels = allocate((len(index), *self.pixels.shape[1:]))
        for start in range(0, len(index), 1024):
            pixels[start : start + 1024] = self.pixels[index[start : start + 1024]]
        return Images(pixels, self.labels[index])

    def to(self, device: torch.device) -> "Images":
        """The same on another device."""
        return Images(self.pixels.to(device), self.labels.to(device))


def allocate(shape: tuple[int, ...], dtype: torch.dtype = torch.uint8, count: int = 1) -> Tensor:
    """An uninitialised tensor, in memory; where `count` of them would take over a quarter of that, in a temporary file.

    The file has no name once it is open, so that it is gone with the process, however that ends.
    """
    size = math.prod(shape) * dtype.itemsize
    if count * size <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 4:
        return torch.empty(shape, dtype=dtype)
    file = tempfile.TemporaryFile()  # noqa: SIM115  (the mapping keeps it open)
    return torch.from_numpy(np.memmap(file, np.uint8, "w+", shape=size)).view(dtype).view(shape)


@dataclass(frozen=True)
class Augmentation:
    """What training images go through: each image has its own draw."""

    flip: bool
    """mirrored or not, with equal chance"""
    crop: int
    """shifted by up to so many pixels each way"""
    border: str = "mirrored"
    """what enters there: the image mirrored, or black"""

    @property
    def changes(self) -> bool:
        """Whether an image can come out differently."""
        return self.flip or self.crop > 0

    def __call__(self, pixels: Tensor, generator: torch.Generator) -> Tensor:
        """Augment (B, C, H, W), with a CPU generator, so that the draw is the same on every device."""
        b, c, h, w = pixels.shape
        shift = torch.randint(-self.crop, self.crop + 1, (2, b, 1), generator=generator)
        mirrored = (torch.rand(b, 1, generator=generator) < 0.5) & self.flip
        rows = shift[0] + torch.arange(h)
        columns = shift[1] + torch.where(mirrored, torch.arange(w).flip(0), torch.arange(w))
        if self.border == "black":
            pixels, rows, columns = F.pad(pixels, (self.crop,) * 4), rows + self.crop, columns + self.crop
        else:
            rows, columns = _reflect(rows, h), _reflect(columns, w)
        image = torch.arange(b, device=pixels.device)[:, None, None, None]
        channel = torch.arange(c, device=pixels.device)[:, None, None]
        rows, columns = rows.to(pixels.device), columns.to(pixels.device)
        return pixels[image, channel, rows[:, None, :, None], columns[:, None, None, :]]


def _reflect(index: Tensor, size: int) -> Tensor:
    """Mirror indices that lie up to size - 1 outside [0, size) back into it."""
    return (size - 1) - ((size - 1) - index.abs()).abs()


def to_input(pixels: Tensor) -> Tensor:
    """Scale uint8 pixels to the range [-1, 1] that every first layer sees, in sampling, training and use alike."""
    return pixels.float() / 127.5 - 1


class Batches:
    """One pass over images, as pairs of input (B, C, H, W) float32 in [-1, 1] and label (B,).

    A pass for training drops what does not fill the last batch, so that each step weighs the same.

    Args:
        images: where they lie is where the batches are made.
        size: images a batch.
        device: where the batches go.
        augmentation: for training; shuffles, too. Without it the order is that of the images.
        seed: of the shuffle and the augmentation; every epoch of every layer has its own.
    """

    def __init__(
        self,
        images: Images,
        size: int,
        device: torch.device | str = "cpu",
        augmentation: Augmentation | None = None,
        seed: int = 0,
    ) -> None:
        self.images = images
        self.size = size
        self.device = torch.device(device)
        self.augmentation = augmentation
        self.seed = seed

    def __len__(self) -> int:
        n = len(self.images)
        return n // self.size if self.augmentation else -(-n // self.size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        n, generator = len(self.images), torch.Generator().manual_seed(self.seed)
        order = torch.randperm(n, generator=generator) if self.augmentation else torch.arange(n)
        for index in torch.split(order[: len(self) * self.size], self.size):
            pixels = self.images.pixels[index.to(self.images.pixels.device)]
            if self.augmentation:
                pixels = self.augmentation(pixels, generator)
            labels = self.images.labels[index.to(self.images.labels.device)]
            yield to_input(pixels.to(self.device)), labels.to(self.device)


def fold_seed(*numbers: int) -> int:
    """One seed from several numbers, such as (seed, layer, epoch); different numbers give unrelated seeds."""
    mixed = 0
    for number in numbers:
        mixed = (mixed ^ (number & 0xFFFFFFFF)) * 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF
        mixed = (mixed ^ (mixed >> 29)) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
        mixed ^= mixed >> 32
    return mixed & 0x7FFFFFFFFFFFFFFF
