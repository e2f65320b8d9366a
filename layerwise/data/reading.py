"""Pictures from files or from elsewhere: the one reader, for training, statistics and use.

Shapes: C channels (1 gray, 3 color), H W side.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import IO, Literal, NamedTuple, NoReturn, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from layerwise.console import progress
from layerwise.errors import SettingError

S = TypeVar("S")
T = TypeVar("T")
ORIENTATION = 0x0112
"""the EXIF tag that says how a picture is to be turned; from 5 on, rows and columns change places"""

BITS = 0x0102
"""the TIFF tag that says how many bits a channel has"""
TOGETHER = 64
"""items, at most, that a thread is given at once"""
NO_IMAGES = {"thumbs.db", "desktop.ini"}
"""files that systems leave in folders"""


class Header(NamedTuple):
    """What a picture is, once upright."""

    size: tuple[int, int]
    """(width, height)"""
    is_gray: bool


class Place(Protocol):
    """Where the bytes of a picture are: a `Path`, or a part of a file; `str` names it."""

    def open(self, mode: Literal["rb"]) -> IO[bytes]:
        """A stream of them."""


def read_header(place: Place) -> Header:
    """What the header of a picture says, undecoded; what is none raises any exception."""
    with _opened(place) as image:
        return _header(image)


def read_both(place: Place, mode: str) -> tuple[Header, Image.Image]:
    """What the header of a picture says, and the picture, in one reading; what is none raises any exception."""
    with _opened(place) as image:
        return _header(image), upright(image, mode)


def read_picture(place: Place, mode: str, shorter: int | None = None) -> Image.Image:
    """Decode a picture, as `upright` says, of several frames the first.

    It is shrunk until its shorter side is `shorter` pixels long, and a JPEG file is then decoded no finer than that
    takes. What is no picture that can be read raises any exception, as decoders do.
    """

    def shrunk(image: Image.Image, shorter: int) -> tuple[int, int]:
        share = shorter / min(image.size)
        return max(1, round(image.width * share)), max(1, round(image.height * share))

    with _opened(place) as image:
        if shorter is not None:
            image.draft(mode, shrunk(image, shorter))  # a JPEG decoder can skip what would be shrunk away
        picture = upright(image, mode)
    if shorter is not None and min(picture.size) != shorter:
        picture = picture.resize(shrunk(picture, shorter), Image.Resampling.LANCZOS)
    return picture


def upright(image: Image.Image, mode: str) -> Image.Image:
    """A picture in mode L for gray, or RGB: turned as it says, 16 bits brought to 8, what is transparent on white.

    Raises ValueError where the range of its pixels is unknown.
    """
    _check_range(image)
    picture = ImageOps.exif_transpose(image) if image.getexif().get(ORIENTATION, 1) != 1 else image
    if picture.mode.startswith("I"):  # Pillow itself would cut it off at 255
        deep = np.asarray(picture).astype(np.int64)
        gray = (deep * 255 // _highest(image)).clip(0, 255).astype(np.uint8)
        picture = Image.fromarray(np.where(deep == image.info.get("transparency", -1), 255, gray).astype(np.uint8))
    elif picture.has_transparency_data:
        colors = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", colors.size, "white"), colors)
    return picture.convert(mode)


def fitted(picture: Image.Image, shape: tuple[int, int, int]) -> Tensor:
    """The pixels (C, H, W) uint8 of a picture, shrunk or enlarged to cover H×W, of which the center is cut out."""
    return torch.from_numpy(pixels_of(picture, shape).copy())


def pixels_of(picture: Image.Image, shape: tuple[int, int, int]) -> npt.NDArray[np.uint8]:
    """What `fitted` gives, as a view of an array."""
    channels, height, width = shape
    if picture.size != (width, height):
        picture = ImageOps.fit(picture, (width, height), Image.Resampling.LANCZOS)
    return np.asarray(picture).reshape(height, width, channels).transpose(2, 0, 1)


def pictures_in(names: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Files as they are named, and of folders all within that are visible, in alphabetical order.

    Beside each is its class: the folder right below the one that was named, empty where it lies in none.
    """
    for name in names:
        if not Path(name).is_dir():
            yield name, ""
            continue
        for path in files_below(Path(name)):
            parts = path.relative_to(name).parts
            yield str(path), parts[0] if len(parts) > 1 else ""


def files_below(folder: Path) -> list[Path]:
    """What lies in a folder or deeper, links to folders included, and is visible; OSError where one can't be read."""
    found, seen = list[Path](), set[str]()

    def refuse(error: OSError) -> NoReturn:
        raise error

    for place, folders, names in os.walk(folder, onerror=refuse, followlinks=True):
        if (real := os.path.realpath(place)) in seen:  # a link to a folder above
            folders.clear()
            continue
        seen.add(real)
        folders[:] = [name for name in folders if not name.startswith(".")]
        within = Path(place)
        found += [within / name for name in names if not name.startswith(".") and name.lower() not in NO_IMAGES]
    return sorted(found, key=lambda path: path.parts)  # which are compared faster than paths


def listed(folder: Path) -> tuple[list[Path], list[Path]]:
    """The visible folders in a folder, and what else is visible; OSError where it can't be read."""
    found = sorted(path for path in folder.iterdir() if is_visible(path, folder))
    return [path for path in found if path.is_dir()], [path for path in found if not path.is_dir()]


def labeled_files(folder: Path, classes: Sequence[str]) -> list[tuple[Path, int]]:
    """Every file of folder/<class>/*, or deeper, with its position in `classes`.

    Raises SettingError where a folder is none of the classes, or there is no file.
    """
    if not folder.is_dir():
        raise SettingError(f"images: {folder} is not a folder; give one that holds <class>/*")
    folders, loose = listed(folder)
    for path in folders:
        if path.name not in classes:
            known = ", ".join(classes[:5]) + (f" and {len(classes) - 5} more" if len(classes) > 5 else "")
            raise SettingError(f"images: {path} is none of the classes {known}; rename it or move it away")
    files = [(file, classes.index(path.name)) for path in folders for file in files_below(path)]
    if not files:
        raise SettingError(f"images: {folder} has no images in class folders; put them into {folder}/<class>/")
    if loose:
        print(f"images: not used, as they lie in no class folder: {loose[0]} and {len(loose) - 1} more")
    return files


def is_visible(path: Path, folder: Path) -> bool:
    """Whether no part of a path below a folder is hidden, and it is no file that systems leave in folders."""
    hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
    return not hidden and path.name.lower() not in NO_IMAGES


def each(what: str, read: Callable[[T], S], items: Sequence[T]) -> list[S]:
    """Call `read` on every item in threads, behind a progress bar."""
    with ThreadPoolExecutor() as pool:
        # several at once, as handing over one takes about as long as decoding a small image does
        size = max(1, min(TOGETHER, len(items) // (16 * pool._max_workers)))
        parts = [items[start : start + size] for start in range(0, len(items), size)]
        try:
            done = pool.map(lambda part: [read(item) for item in part], parts)
            return list(progress(chain.from_iterable(done), what, total=len(items)))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)  # whoever is stopped does not wait for the rest


@contextmanager
def _opened(place: Place) -> Iterator[Image.Image]:
    if isinstance(place, Path) and not place.is_file() and not place.is_dir() and os.path.lexists(place):
        raise ValueError("it is no file")
    # as a stream: from a path, Pillow maps an uncompressed TIFF into memory, and garbles one that is to be turned
    with place.open("rb") as file:
        try:
            image = Image.open(file)
        except UnidentifiedImageError as error:  # whose text has an address in memory
            raise ValueError("cannot identify its format") from error
        with image:
            _check_range(image)
            if image.format == "TIFF":
                image.load()  # which turns it
            yield image


def _header(image: Image.Image) -> Header:
    turned = 5 <= image.getexif().get(ORIENTATION, 1) <= 8
    size = (image.height, image.width) if turned else (image.width, image.height)
    gray = image.mode in ("1", "L", "LA") or image.mode.startswith("I")
    if image.mode == "P" and (colors := image.getpalette()):
        gray = colors[::3] == colors[1::3] == colors[2::3]
    return Header(size, gray)


def _highest(image: Image.Image) -> int:
    """The highest value of a pixel of more than 8 bits; of 12 in a TIFF file, say, 4095."""
    bits = getattr(image, "tag_v2", {}).get(BITS, (16,))
    return int(2 ** bits[0] - 1)


def _check_range(image: Image.Image) -> None:
    known = image.mode == "I" and image.format == "PPM"  # which Pillow brings to 16 bits
    if image.mode in ("I", "F") and not known:
        raise ValueError(f"its {image.mode} pixels have no known range; save it with 8 or 16 bits a channel")
