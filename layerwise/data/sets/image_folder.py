"""The user's own images, root/{train,val,test}/<class>/*, decoded once into uint8 tensors."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from layerwise.config import Data, SettingError
from layerwise.config.choices import DATASETS
from layerwise.data.images import Images, allocate
from layerwise.data.reading import each, read_header, read_picture
from layerwise.data.splits import RawData

T = TypeVar("T")


@dataclass(frozen=True)
class _File:
    split: str
    path: Path
    label: int


@DATASETS("image_folder")
def image_folder(config: Data) -> RawData:
    """Your own images, in root/{train,val,test}/<class>/*.

    Classes are the subfolders of root/train, in alphabetical order. Images are gray if all files are, else color.
    What does not fit in memory lies in a temporary file.

    Raises:
        SettingError: root is missing or empty, has one class, an unreadable file, or images of different sizes.
    """
    root = Path(config.root)
    classes = _classes(root)
    listed = [file for split in ("train", "val", "test") for file in _files(root / split, split, classes)]
    headers = _attempt("reading headers", lambda file: read_header(file.path), listed, config.skip_unreadable)
    if not headers:
        raise SettingError(f"data.root: no file under {root} is a readable image")
    size = _common_size(config.image_size, {size: file.path for file, (size, _) in reversed(headers)})
    mode = "L" if all(is_gray for _, (_, is_gray) in headers) else "RGB"
    pixels = allocate((len(headers), len(mode), size[1], size[0]))

    def store(item: tuple[int, _File]) -> None:
        row, file = item
        picture = read_picture(file.path, mode)
        if picture.size != size:
            picture = ImageOps.fit(picture, size, Image.Resampling.LANCZOS)
        array = np.asarray(picture).reshape(size[1], size[0], len(mode))
        pixels[row] = torch.from_numpy(array.transpose(2, 0, 1).copy())

    numbered = [(row, file) for row, (file, _) in enumerate(headers)]
    stored = [item for item, _ in _attempt("reading images", store, numbered, config.skip_unreadable)]

    def images(split: str) -> Images | None:
        rows = [row for row, file in stored if file.split == split]
        if not rows:
            return None
        # files of a split follow one another, so that a slice, not a copy, will nearly always do
        whole = rows[-1] - rows[0] + 1 == len(rows)
        index: slice | Tensor = slice(rows[0], rows[-1] + 1) if whole else torch.tensor(rows)
        return Images(pixels[index], torch.tensor([file.label for _, file in stored if file.split == split]))

    train = images("train")
    if train is None:
        raise SettingError(f"data.root: no file under {root}/train is a readable image")
    return RawData(classes, train, images("test"), images("val"))


def _classes(root: Path) -> list[str]:
    if not root.is_dir():
        raise SettingError(f"data.root: {root} is not a folder; give the folder that holds train/<class>/*")
    if not (root / "train").is_dir():
        raise SettingError(f"data.root: {root} has no folder train; images are expected in {root}/train/<class>/*")
    classes = sorted(path.name for path in _visible(root / "train") if path.is_dir())
    if len(classes) < 2:
        found = f"one class, {classes[0]}" if classes else "no class folders"
        raise SettingError(f"data.root: {root}/train has {found}; classification needs at least two, one folder each")
    return classes


def _files(folder: Path, split: str, classes: Sequence[str]) -> Iterator[_File]:
    """The files of a split, class by class; none where there is no such folder."""
    if not folder.is_dir():
        return
    for path in _visible(folder):
        if path.is_dir() and path.name not in classes:
            raise SettingError(
                f"data.root: {path} is a class that {folder.parent}/train does not have; add it there or remove it"
            )
    found = [_visible(folder / name) if (folder / name).is_dir() else [] for name in classes]
    for name, files in zip(classes, found, strict=True):
        if split == "train" and not files:
            raise SettingError(f"data.root: {folder / name} is empty; add images of this class or remove the folder")
    if not any(found):
        raise SettingError(
            f"data.root: {folder} has no images in class folders; put them into {folder}/<class>/, or remove it"
        )
    for label, files in enumerate(found):
        yield from (_File(split, path, label) for path in files)


def _common_size(side: int | None, examples: dict[tuple[int, int], Path]) -> tuple[int, int]:
    """(width, height) of all images, from an example of each size that there is."""
    if side is not None:
        return side, side
    if len(examples) > 1:
        (a, one), (b, other) = list(examples.items())[-2:]
        raise SettingError(
            f"data.image_size: null, but the images differ in size ({one} is {a[0]}×{a[1]}, {other} {b[0]}×{b[1]}); "
            "give the side to bring them all to, such as --data.image_size 64"
        )
    return next(iter(examples))


def _visible(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


Item = TypeVar("Item", _File, tuple[int, _File])


def _attempt(what: str, read: Callable[[Item], T], items: Sequence[Item], skip: bool) -> list[tuple[Item, T]]:
    """Call `read` on every file; what cannot be read is excluded if `skip`."""

    def attempt(item: Item) -> list[tuple[Item, T]]:
        try:
            return [(item, read(item))]
        except Exception as error:  # a damaged file can make a decoder raise anything
            if skip:
                return []
            path = item.path if isinstance(item, _File) else item[1].path
            raise SettingError(
                f"data.root: {path} is not a readable image; mend or remove it, or give --data.skip_unreadable true"
            ) from error

    return [pair for found in each(what, attempt, items) for pair in found]
