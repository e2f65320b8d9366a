"""Pictures from files: the one reader, for training, statistics and use."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
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
    with _opened(path) as image:
        turned = image.getexif().get(ORIENTATION, 1) >= 5
        size = (image.height, image.width) if turned else (image.width, image.height)
        return size, image.mode in ("1", "L", "LA") or image.mode.startswith("I;16")


def read_picture(path: Path, mode: str, shorter: int | None = None) -> Image.Image:
    """Decode a picture: upright, 16 bits brought to 8, what is transparent on white, of several frames the first.

    Args:
        path: of the file.
        mode: L for gray, or RGB.
        shorter: shrink it until its shorter side is so long; a JPEG file is then decoded no finer than that takes.

    Raises:
        Exception: of any kind, as decoders raise; it is not a picture that can be read.
    """
    with _opened(path) as image:
        if shorter is not None:
            share = shorter / min(image.size)
            size = max(1, round(image.width * share)), max(1, round(image.height * share))
            image.draft(mode, size)  # a JPEG decoder can skip what would be shrunk away
        picture = _flat(ImageOps.exif_transpose(image)).convert(mode)
    if shorter is not None and min(picture.size) != shorter:
        share = shorter / min(picture.size)
        size = max(1, round(picture.width * share)), max(1, round(picture.height * share))
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    return picture


def each(what: str, read: Callable[[T], S], items: Sequence[T]) -> list[S]:
    """Call `read` on every item in threads, behind a progress bar."""
    with ThreadPoolExecutor() as pool:
        return list(progress(pool.map(read, items), what, total=len(items)))


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    # as a stream: from a path, Pillow maps an uncompressed TIFF into memory, and garbles one that is to be turned
    with path.open("rb") as file, Image.open(file) as image:
        if image.mode in ("I", "F"):
            raise ValueError(f"its {image.mode} pixels have no known range; save it with 8 or 16 bits a channel")
        if image.format == "TIFF":
            image.load()  # which turns it
        yield image


def _flat(picture: Image.Image) -> Image.Image:
    """Without transparency, and with 8 bits a channel: Pillow itself would cut 16 off at 255."""
    if picture.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(picture) // 257).astype(np.uint8))
    if picture.has_transparency_data:
        colors = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", colors.size, "white"), colors)
    return picture
