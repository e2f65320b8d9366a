"""Augmentation of training images: flips and shifts, drawn for each image.

Shapes: B batch, C channels, H W image side.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from layerwise.config.choices import BORDERS


@BORDERS("mirrored")
def mirrored(pixels: Tensor, rows: Tensor, columns: Tensor, crop: int) -> tuple[Tensor, Tensor, Tensor]:
    """The image mirrored."""
    return pixels, _reflect(rows, pixels.shape[2]), _reflect(columns, pixels.shape[3])


@BORDERS("black")
def black(pixels: Tensor, rows: Tensor, columns: Tensor, crop: int) -> tuple[Tensor, Tensor, Tensor]:
    """Black."""
    return F.pad(pixels, (crop,) * 4), rows + crop, columns + crop


def _reflect(index: Tensor, size: int) -> Tensor:
    """Mirror indices that lie up to size - 1 outside [0, size) back into it."""
    return (size - 1) - ((size - 1) - index.abs()).abs()


@dataclass(frozen=True)
class Augmentation:
    """Each image has its own draw."""

    flip: bool
    """mirrored or not, with equal chance"""
    crop: int
    """shifted by up to so many pixels each way"""
    border: str = "mirrored"
    """a name in `BORDERS`: what enters there"""

    @property
    def changes(self) -> bool:
        """Whether an image can come out differently."""
        return self.flip or self.crop > 0

    def __call__(self, pixels: Tensor, generator: torch.Generator) -> Tensor:
        """Augment (B, C, H, W), with a CPU generator, so that the draw is the same on every device."""
        b, c, h, w = pixels.shape
        shift = torch.randint(-self.crop, self.crop + 1, (2, b, 1), generator=generator)
        flipped = (torch.rand(b, 1, generator=generator) < 0.5) & self.flip
        rows = shift[0] + torch.arange(h)
        columns = shift[1] + torch.where(flipped, torch.arange(w).flip(0), torch.arange(w))
        pixels, rows, columns = BORDERS[self.border](pixels, rows, columns, self.crop)
        image = torch.arange(b, device=pixels.device)[:, None, None, None]
        channel = torch.arange(c, device=pixels.device)[:, None, None]
        rows, columns = rows.to(pixels.device), columns.to(pixels.device)
        return pixels[image, channel, rows[:, None, :, None], columns[:, None, None, :]]
