"""Labeled pictures, wherever their bytes are, as the images of a data set: each is decoded once, if there is room.

Of several processes each decodes a part, into a file that those of its machine share.

Shapes: n images, C channels (1 gray, 3 color), H W side.
"""

import math
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from layerwise import memory, processes
from layerwise.config import Data, SettingError
from layerwise.data.images import Images
from layerwise.data.reading import Header, Place, each, pixels_of, read_both, read_header, read_picture
from layerwise.data.rows import Places, Rows, Stored, allocate, is_held, kept
from layerwise.data.splits import RawData

T = TypeVar("T")
SEVERAL = 256
"""pictures that memory must hold"""
BLOCK, ROOM = 64, 1 << 22
"""pictures and bytes, at most, that are written at once"""
SPLITS = {"train": "train", "val": "val", "validation": "val", "valid": "val", "test": "test"}
"""names of folders and shards, and what they hold"""


@dataclass(frozen=True, slots=True)
class Picture:
    """One of them."""

    place: Place
    split: str
    label: int
    name: str
    """which decides whether it is held out"""


class Decoded(Rows):
    """Pictures (n, C, H, W) uint8, decoded anew whenever they are asked for, in threads."""

    def __init__(self, pictures: Sequence[Picture], mode: str, shape: tuple[int, int, int]) -> None:
        super().__init__((len(pictures), *shape), torch.uint8)
        self._pictures, self._mode, self._size = pictures, mode, shape

    def _read(self, places: Places) -> Tensor:
        found = np.empty((len(places), *self._each), np.uint8)

        def store(row: int) -> None:
            place = self._pictures[int(places[row])].place
            try:
                found[row] = pixels_of(read_picture(place, self._mode), self._size)
            except Exception as error:  # a damaged file can make a decoder raise anything
                raise SettingError(f"data.root: {place} is no longer a readable image; bring it back") from error

        with ThreadPoolExecutor() as pool:
            list(pool.map(store, range(len(places))))
        return torch.from_numpy(found)


class _InColor(Exception):
    """A picture is, where all before were gray."""


def decoded(config: Data, classes: list[str], pictures: list[Picture]) -> RawData:
    """The images of pictures, one or more of each split that there is, which come split by split.

    They are gray if all pictures are, else color. Each is decoded once and kept, in memory or in a temporary file;
    where the disk has no room for that, it is decoded anew each time, and a line says so.

    Raises:
        SettingError: a picture is unreadable, sizes differ, or a class or a split is left without any.
    """
    first = processes.agreed(_first, pictures, config)
    try:
        pixels, told = _read(pictures, *first, "L" if first[1].is_gray else "RGB", config)
    except _InColor:
        pixels, told = _read(pictures, *first, "RGB", config)
    read = [row for row, reason in enumerate(told) if reason is None]
    present = {pictures[row].label for row in read if pictures[row].split == "train"}
    for label, name in enumerate(classes):
        reasons = [reason for picture, reason in zip(pictures, told, strict=True) if reason and picture.label == label]
        if reasons:
            lost = f"{len(reasons)} files of class {name} that are not readable images ({reasons[0]})"
            print(f"data.root: excluded {lost}")
        if label not in present:
            raise SettingError(
                f"data.root: no training image of class {name} under {config.root} is readable; add some"
            )

    def images(split: str) -> Images:
        rows = [row for row in read if pictures[row].split == split]
        if not rows:
            raise SettingError(
                f"data.root: no {split} image under {config.root} is readable; mend or remove its folder"
            )
        labels, names = [pictures[row].label for row in rows], [pictures[row].name for row in rows]
        return Images(kept(pixels, rows), torch.tensor(labels), names)

    splits = {split: images(split) for split in sorted({picture.split for picture in pictures})}
    return RawData(classes, splits["train"], splits.get("test"), splits.get("val"))


def _first(pictures: list[Picture], config: Data) -> tuple[Picture, Header]:
    """The first picture that can be read."""

    def whole(place: Place) -> Header:
        return read_both(place, "RGB")[0]

    # the header of one that is cut off, and will be excluded, says nothing of the others
    read = whole if config.skip_unreadable else read_header
    for picture in pictures:
        if isinstance(header := _attempt(picture, read, config), Header):
            return picture, header
    raise SettingError(f"data.root: no file under {config.root} is a readable image")


def _read(
    pictures: list[Picture], example: Picture, header: Header, mode: str, config: Data
) -> tuple[Tensor | Rows, list[str | None]]:
    """The pixels (n, C, H, W) of all, and why there are none of one; _InColor where `mode` is L and one is not gray."""
    side, size = config.image_size, header.size
    width, height = size if side is None else (side, side)
    shape = len(mode), height, width
    pixels = processes.agreed(_room, pictures, mode, shape, config)

    def one(out: npt.NDArray[np.uint8], place: Place) -> None:
        own, image = read_both(place, mode)
        if side is None and own.size != size:
            differ = f"{example.place} is {size[0]}×{size[1]}, {place} {own.size[0]}×{own.size[1]}"
            remedy = "give the side to bring them all to, such as --data.image_size 64"
            raise SettingError(f"data.image_size: null, but the images differ in size ({differ}); {remedy}")
        if mode == "L" and not own.is_gray:
            raise _InColor
        out[:] = pixels_of(image, shape)

    def store(some: range) -> list[str | None]:
        block = np.empty((len(some), *shape), np.uint8)
        told = [_attempt(pictures[row], partial(one, out), config) for row, out in zip(some, block, strict=True)]
        if not isinstance(pixels, Decoded):
            pixels[some.start : some.stop] = torch.from_numpy(block)
        return told

    step = max(1, min(BLOCK, len(pictures) // BLOCK, ROOM // math.prod(shape)))
    parts = [range(start, min(start + step, len(pictures))) for start in range(0, len(pictures), step)]
    told = processes.divided(partial(each, "reading images", store), parts)
    if isinstance(pixels, Stored) and is_held(pixels.numel()):  # the file was for sharing the work
        pixels = pixels[:]
    return pixels, list(chain.from_iterable(told))


def _room(pictures: list[Picture], mode: str, shape: tuple[int, int, int], config: Data) -> Tensor | Stored | Decoded:
    """Where the pixels of pictures will be, or what decodes them anew."""
    size = math.prod(shape)
    told = f"{len(pictures)} images of {'×'.join(map(str, shape))} take {len(pictures) * size / 1e9:.1f} GB"
    try:
        if processes.count() == 1:
            return allocate((len(pictures), *shape))
        file = processes.shared_file(len(pictures) * size)
        return Stored((len(pictures), *shape), torch.uint8, file)
    except (OSError, MemoryError, RuntimeError) as error:
        if not isinstance(error, OSError) or SEVERAL * size > memory.total() // 4:
            remedy = "give a smaller --data.image_size, or TMPDIR where there is room"
            raise SettingError(f"data.image_size: {config.image_size}, but {told} ({error}); {remedy}") from error
        place = f"for which {tempfile.gettempdir()} has no room ({error.strerror})"
        print(f"data.root: {told}, {place}: decoding them anew in every pass, which is slower", flush=True)
        return Decoded(pictures, mode, shape)


def _attempt(picture: Picture, read: Callable[[Place], T], config: Data) -> T | str:
    """What is read; or why it cannot be, where such pictures are to be excluded, else SettingError."""
    try:
        return read(picture.place)
    except (SettingError, _InColor):
        raise
    except Exception as error:  # a damaged file can make a decoder raise anything
        reason = " ".join(str(error).split()) or type(error).__name__
        if config.skip_unreadable:
            return reason
        remedy = "mend or remove it, or give --data.skip_unreadable true"
        raise SettingError(f"data.root: {picture.place} is not a readable image ({reason}); {remedy}") from error
