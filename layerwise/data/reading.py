"""Pictures from files: the one reader, for training, statistics and use."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image, ImageOps

from layerwise.console import progress

S = TypeVar("S")
T = TypeVar("T")
ORIENTATION = 0x0112
"""the EXIF tag that says how a picture is to be turned; from 5 on, rows and columns change places"""


def read_header(path: Path) -> tuple[tuple[int, int], bool]:
    """((width, height), whether it is gray) of the upright picture, without decoding it.

    Raises:
        Exception: of any kind, as decoders raise; it is not a picture that can be read.
    """
    with Image.open(path) as image:
        _refuse_unknown_range(image)
        turned = image.getexif().get(ORIENTATION, 1) >= 5
        size = (image.height, image.width) if turned else (image.width, image.height)
        return size, image.mode in ("1", "L", "LA") or image.mode.startswith("I;16")


def read_picture(path: Path, mode: str, shorter: int | None = None) -> Image.Image:
    """Decode a picture upright.

    Args:
        path: of the file.
        mode: L for gray, or RGB.
        shorter: shrink it until its shorter side is so long; a JPEG file is then decoded no finer than that takes.

    Raises:
        Exception: of any kind, as decoders raise; it is not a picture that can be read.
    """
    with Image.open(path) as image:
        _refuse_unknown_range(image)
        size = image.size
        if shorter is not None:
            share = shorter / min(size)
            size = max(1, round(image.width * share)), max(1, round(image.height * share))
            image.draft(mode, size)  # a JPEG decoder can skip what would be shrunk away
        picture = ImageOps.exif_transpose(_to_bytes(image)).convert(mode)
    if shorter is not None and min(picture.size) != shorter:
        share = shorter / min(picture.size)
        upright = max(1, round(picture.width * share)), max(1, round(picture.height * share))
        picture = picture.resize(upright, Image.Resampling.LANCZOS)
    return picture


def each(what: str, read: Callable[[T], S], items: Sequence[T]) -> list[S]:
    """Call `read` on every item in threads, behind a progress bar."""
    with ThreadPoolExecutor() as pool:
        return list(progress(pool.map(read, items), what, total=len(items)))


def _refuse_unknown_range(image: Image.Image) -> None:
    if image.mode in ("I", "F"):
        raise ValueError(f"{image.mode} pixels have no known range")


def _to_bytes(image: Image.Image) -> Image.Image:
    """Bring 16-bit gray to 8 bits, which Pillow itself would cut off at 255."""
    if not image.mode.startswith("I;16"):
        return image
    return Image.fromarray((np.asarray(image) // 257).astype(np.uint8))
