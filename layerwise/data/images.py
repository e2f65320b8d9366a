"""Images as uint8, in memory or not, how pixels become a first layer's input, and augmentation.

Shapes: n images, B batch, C channels, H W image side.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from layerwise import processes
from layerwise.config.choices import BORDERS, PIXELS, SHIFTS
from layerwise.data.parts import Part
from layerwise.data.rows import Rows, Stored, allocate
from layerwise.errors import SettingError

TOGETHER = 1024
"""images that are gone through at a time"""


@dataclass(frozen=True)
class Images:
    """Images and their classes; SettingError where they are of another kind."""

    pixels: Tensor | Rows
    """(n, C, H, W) uint8; `pixels[:]` is a tensor wherever they lie"""
    labels: Tensor
    """(n,) int64, from 0"""
    names: list[str] | None = None
    """class/path of each: what is held out then follows from the name, and one more image moves no other"""

    def __post_init__(self) -> None:
        if self.pixels.dtype != torch.uint8 or len(self.pixels.shape) != 4:
            found = f"{len(self.pixels.shape)} dimensions of {self.pixels.dtype}"
            raise SettingError(f"images: {found}; give (n, C, H, W) of uint8, from 0 to 255")
        if self.labels.dtype != torch.int64 or len(self.labels) != len(self.pixels):
            found = f"{len(self.labels)} of {self.labels.dtype} for {len(self.pixels)} images"
            raise SettingError(f"labels: {found}; give one int64 for each image")
        if self.names is not None and len(self.names) != len(self.labels):
            raise SettingError(f"names: {len(self.names)} for {len(self.labels)} images; give one for each, or None")

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of an image."""
        c, h, w = self.pixels.shape[1:]
        return c, h, w

    def subset(self, index: Tensor) -> "Images":
        """The images at `index`, (m,) int64."""
        names = self.names and [self.names[i] for i in index.tolist()]
        if isinstance(self.pixels, Rows):
            return Images(self.pixels.at(index), self.labels[index], names)
        pixels = allocate((len(index), *self.shape))
        for start in range(0, len(index), TOGETHER):
            pixels[start : start + TOGETHER] = self.pixels[index[start : start + TOGETHER]]
        return Images(pixels, self.labels[index], names)

    def placed(self, device: torch.device) -> "Images":
        """The same, where a device that computes with them has them at hand, if it has room (`place_for`)."""
        if device.type == "cpu":
            return self
        pixels = self.pixels
        if isinstance(pixels, Tensor):
            pixels = pixels.to(place_for(pixels.numel(), device))
        return Images(pixels, self.labels.to(device), self.names)

    def parts(self, size: int = TOGETHER) -> Iterator[Tensor]:
        """The pixels of all images in order, so many at a time."""
        return (self.pixels[start : start + size] for start in range(0, len(self), size))


def allocate_for_all(shape: tuple[int, ...], dtype: torch.dtype, count: int, device: torch.device) -> Tensor | Stored:
    """As `allocate`, of what all processes of this machine make and read: of several, in a file that they share.

    All of them have to call it. What a GPU needs of such a file comes to it anew with each batch.
    """
    return allocate(shape, dtype, count, device) if processes.count() == 1 else processes.shared(shape, dtype)


def place_for(size: int, device: torch.device) -> torch.device:
    """Where to keep so many bytes that a device will need again: on it, if half of what is free there suffices."""
    fits = device.type == "cuda" and size < torch.cuda.mem_get_info(device)[0] // 2
    return device if fits else torch.device("cpu")


def moved(values: Tensor, device: torch.device | str) -> Tensor:
    """Values on a device. What comes from the CPU comes by pinned memory, so that no step waits for it."""
    if values.device.type == "cpu" and torch.device(device).type == "cuda":
        return values.pin_memory().to(device, non_blocking=True)
    return values.to(device)


@PIXELS("input")
def to_input(pixels: Tensor) -> Tensor:
    """From -1 to 1, as every first layer sees them, in sampling, training and use alike."""
    return pixels.float() / 127.5 - 1


@PIXELS("unit")
def to_unit(pixels: Tensor) -> Tensor:
    """From 0 to 1, on which the authors learn their dictionaries, though they train on -1 to 1."""
    return (to_input(pixels) + 1) / 2


@BORDERS("mirrored")
def mirrored(pixels: Tensor, rows: Tensor, columns: Tensor, crop: int) -> tuple[Tensor, Tensor, Tensor]:
    """The image mirrored."""
    return pixels, _reflect(rows, pixels.shape[2]), _reflect(columns, pixels.shape[3])


@BORDERS("black")
def black(pixels: Tensor, rows: Tensor, columns: Tensor, crop: int) -> tuple[Tensor, Tensor, Tensor]:
    """Black."""
    return F.pad(pixels, (crop,) * 4), rows + crop, columns + crop


@SHIFTS("uniform")
def uniform(margin: int, count: int, generator: torch.Generator) -> Tensor:
    """By every amount equally often."""
    return torch.randint(0, margin + 1, (2, count, 1), generator=generator)


@SHIFTS("middling")
def middling(margin: int, count: int, generator: torch.Generator) -> Tensor:
    """Small shifts more often than large ones, like the sum of two dice, as images are tested where they are."""
    halves = [torch.randint(0, part + 1, (2, count, 1), generator=generator) for part in (margin // 2, -(-margin // 2))]
    return halves[0] + halves[1]


def _reflect(index: Tensor, size: int) -> Tensor:
    """Mirror indices that lie up to size - 1 outside [0, size) back into it."""
    return (size - 1) - ((size - 1) - index.abs()).abs()


@dataclass(frozen=True)
class Drawn:
    """What becomes of B images."""

    shift: Tensor
    """(2, B, 1) int64: the row and the column that come to the upper left"""
    flipped: Tensor
    """(B, 1) bool"""
    beyond: int = 0
    """rows, and columns, that are seen beyond as many as there are"""

    def part(self, index: slice | Tensor) -> "Drawn":
        """What becomes of some of them."""
        return Drawn(self.shift[:, index], self.flipped[index], self.beyond)

    def to(self, device: torch.device | str) -> "Drawn":
        """The same on a device."""
        return Drawn(self.shift.to(device), self.flipped.to(device), self.beyond)


@dataclass(frozen=True)
class Augmentation:
    """Flips and shifts of training images, drawn for each image."""

    flip: bool
    """mirrored or not, with equal chance"""
    crop: int
    """shifted by up to so many pixels each way"""
    border: str = "mirrored"
    """a name in `BORDERS`: what enters there"""
    shifts: str = "uniform"
    """a name in `SHIFTS`, which draw (2, B, 1) from 0 to a margin"""

    @property
    def changes(self) -> bool:
        """Whether an image can come out differently."""
        return self.flip or self.crop > 0

    def draw(self, count: int, generator: torch.Generator) -> "Drawn":
        """Draw for so many images, with a CPU generator, so that the draw is the same on every device."""
        shift = SHIFTS[self.shifts](2 * self.crop, count, generator) - self.crop
        return Drawn(shift, (torch.rand(count, 1, generator=generator) < 0.5) & self.flip)

    def __call__(self, pixels: Tensor, drawn: "Drawn") -> Tensor:
        """Augment (B, C, H, W) as was drawn, which lies where they do."""
        h, w = (torch.arange(side + drawn.beyond, device=pixels.device) for side in pixels.shape[2:])
        columns = drawn.shift[1] + torch.where(drawn.flipped, w.flip(0), w)
        return self._taken(pixels, drawn.shift[0] + h, columns)

    def whole(self, count: int, flipped: bool, rows: int, columns: int, beyond: int) -> "Drawn":
        """All of so many images, mirrored or not, from a row and a column on: `beyond` more than an image has.

        Counted is with what may enter at the borders, from the upper left of what is shown.
        """
        left = self.crop - beyond - columns if flipped else columns - self.crop
        shift = torch.tensor([rows - self.crop, left])[:, None, None].expand(2, count, 1)
        return Drawn(shift, torch.full((count, 1), flipped), beyond)

    def part(self, index: Tensor, drawn: "Drawn", count: int) -> Part:
        """What images at `index` (B,) show, of so many that are stored as `bordered`: first all, then all mirrored."""
        left = torch.where(drawn.flipped, -drawn.shift[1] - drawn.beyond, drawn.shift[1])
        places = index + count * drawn.flipped[:, 0]
        return Part(places, self.crop + drawn.shift[0], self.crop + left, 2 * self.crop - drawn.beyond)

    def bordered(self, pixels: Tensor, flipped: Tensor) -> Tensor:
        """All that can be seen of (B, C, H, W), with what may enter at the borders, mirrored where `flipped` (B, 1)."""
        h, w = (torch.arange(-self.crop, side + self.crop, device=pixels.device) for side in pixels.shape[2:])
        return self._taken(pixels, h.expand(len(pixels), -1), torch.where(flipped, w.flip(0), w))

    def _taken(self, pixels: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """The pixels at rows and columns, (B, h) and (B, w), which may lie beyond the borders."""
        pixels, rows, columns = BORDERS[self.border](pixels, rows, columns, self.crop)
        places = rows[:, :, None] * pixels.shape[3] + columns[:, None, :]  # the same in each channel
        taken = pixels.flatten(2).gather(2, places.flatten(1)[:, None].expand(-1, pixels.shape[1], -1))
        return taken.view(*pixels.shape[:2], *places.shape[1:])
