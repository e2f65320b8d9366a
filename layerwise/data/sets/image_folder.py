"""The user's own images, root/{train,val,test}/<class>/* or root/<class>/*, decoded once into uint8 tensors."""

from collections import Counter
from collections.abc import Callable, Sequence
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
SPLITS = {"train": "train", "val": "val", "validation": "val", "valid": "val", "test": "test"}
"""names of folders, and what they hold"""
NO_IMAGES = {"thumbs.db", "desktop.ini"}
"""files that systems leave in folders"""


@dataclass(frozen=True)
class _File:
    path: Path
    split: str
    label: int
    name: str
    """class and relative path, which decide whether it is held out"""
    row: int = 0


@DATASETS("image_folder")
def image_folder(config: Data) -> RawData:
    """Your own images, in root/{train,val,test}/<class>/*, or in root/<class>/* where nothing is split yet.

    Classes are the subfolders of root/train, in alphabetical order; images may lie deeper in them. Images are gray if
    all files are, else color. What does not fit in memory lies in a temporary file.

    Raises:
        SettingError: root is missing or empty, has one class, an unreadable file, or images of different sizes.
    """
    root = Path(config.root)
    classes, files = _listed(root)
    headers, excluded = _attempt("reading headers", lambda file: read_header(file.path), files, config)
    if not headers:
        raise SettingError(f"data.root: no file under {root} is a readable image")
    size = _common_size(config.image_size, {size: file.path for file, (size, _) in reversed(headers)})
    mode = "L" if all(is_gray for _, (_, is_gray) in headers) else "RGB"
    pixels = allocate((len(headers), len(mode), size[1], size[0]))

    def store(file: _File) -> None:
        picture = read_picture(file.path, mode)
        if picture.size != size:
            picture = ImageOps.fit(picture, size, Image.Resampling.LANCZOS)
        array = np.asarray(picture).reshape(size[1], size[0], len(mode))
        pixels[file.row] = torch.from_numpy(array.transpose(2, 0, 1).copy())

    numbered = [_File(file.path, file.split, file.label, file.name, row) for row, (file, _) in enumerate(headers)]
    stored, more = _attempt("reading images", store, numbered, config)
    kept = [file for file, _ in stored]
    _tell_excluded(root, classes, kept, [*excluded, *more], {file.split for file in files})

    def images(split: str) -> Images | None:
        own = [file for file in kept if file.split == split]
        if not own:
            return None
        # files of a split follow one another, so that a slice, not a copy, will nearly always do
        whole = own[-1].row - own[0].row + 1 == len(own)
        rows = [file.row for file in own]
        index: slice | Tensor = slice(rows[0], rows[-1] + 1) if whole else torch.tensor(rows)
        return Images(pixels[index], torch.tensor([file.label for file in own]))

    train = images("train")
    assert train is not None
    names = [file.name for file in kept if file.split == "train"]
    return RawData(classes, train, images("test"), images("val"), names=names)


def _listed(root: Path) -> tuple[list[str], list[_File]]:
    """The classes, and every file of every split, split by split and class by class."""
    if not root.is_dir():
        raise SettingError(f"data.root: {root} is not a folder; give the folder that holds train/<class>/*")
    folders = {split: path for path in _visible(root) if path.is_dir() and (split := SPLITS.get(path.name.lower()))}
    twice = [name for name, n in Counter(SPLITS.get(path.name.lower()) for path in _visible(root)).items() if n > 1]
    if "val" in twice:
        raise SettingError(f"data.root: {root} has several folders of validation images; keep one of them, as val")
    if "train" not in folders:
        if folders:
            raise SettingError(
                f"data.root: {root} has {next(iter(folders.values())).name}, but no folder train; images are expected "
                f"in {root}/train/<class>/*, or without any split in {root}/<class>/*"
            )
        folders = {"train": root}
    classes = sorted(path.name for path in _visible(folders["train"]) if path.is_dir())
    if len(classes) < 2:
        found = f"one class, {classes[0]}" if classes else "no class folders"
        raise SettingError(
            f"data.root: {folders['train']} has {found}; classification needs at least two, one folder each"
        )
    files = []
    for split in ("train", "val", "test"):
        if split not in folders:
            continue
        strange = [path for path in _visible(folders[split]) if path.is_dir() and path.name not in classes]
        if strange:
            raise SettingError(
                f"data.root: {strange[0]} is a class that {folders['train']} does not have; add it there or remove it"
            )
        for label, name in enumerate(classes):
            place = folders[split] / name
            paths = sorted(path for path in place.rglob("*") if path.is_file() and _is_visible(path, place))
            if split == "train" and not paths:
                raise SettingError(f"data.root: {place} is empty; add images of this class or remove the folder")
            files += [_File(path, split, label, f"{name}/{path.relative_to(place).as_posix()}") for path in paths]
        if not any(file.split == split for file in files):
            where = folders[split]
            raise SettingError(
                f"data.root: {where} has no images in class folders; put them into {where}/<class>/, or remove it"
            )
    return classes, files


def _visible(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if _is_visible(path, folder))


def _is_visible(path: Path, folder: Path) -> bool:
    hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
    return not hidden and path.name.lower() not in NO_IMAGES


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


def _attempt(
    what: str, read: Callable[[_File], T], files: Sequence[_File], config: Data
) -> tuple[list[tuple[_File, T]], list[tuple[_File, str]]]:
    """Call `read` on every file; what cannot be read is excluded, with the reason, where that is asked for."""

    def attempt(file: _File) -> tuple[tuple[_File, T] | None, str]:
        try:
            return (file, read(file)), ""
        except Exception as error:  # a damaged file can make a decoder raise anything
            reason = " ".join(str(error).split()) or type(error).__name__
            if config.skip_unreadable:
                return None, reason
            raise SettingError(
                f"data.root: {file.path} is not a readable image ({reason}); mend or remove it, or give "
                "--data.skip_unreadable true"
            ) from error

    done = each(what, attempt, files)
    excluded = [(file, reason) for file, (pair, reason) in zip(files, done, strict=True) if pair is None]
    return [pair for pair, _ in done if pair is not None], excluded


def _tell_excluded(
    root: Path, classes: list[str], kept: list[_File], excluded: list[tuple[_File, str]], splits: set[str]
) -> None:
    """Say what was not used, and why; refuse to go on without a class, or without a split that there was."""
    for label, name in enumerate(classes):
        own = [reason for file, reason in excluded if file.label == label]
        if own:
            print(f"data.root: excluded {len(own)} files of class {name} that are not readable images ({own[0]})")
        if not any(file.label == label and file.split == "train" for file in kept):
            raise SettingError(f"data.root: no training image of class {name} under {root} is readable; add some")
    for split in sorted(splits):
        if not any(file.split == split for file in kept):
            raise SettingError(f"data.root: no {split} image under {root} is readable; mend or remove its folder")
