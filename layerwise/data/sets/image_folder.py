"""The user's own images, root/{train,val,test}/<class>/* or root/<class>/*, decoded once into uint8 tensors."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from layerwise.config import Data, SettingError
from layerwise.config.choices import DATASETS
from layerwise.data.images import Images, allocate
from layerwise.data.reading import each, fitted, is_visible, read_header, read_picture
from layerwise.data.splits import RawData

T = TypeVar("T")
SPLITS = {"train": "train", "val": "val", "validation": "val", "valid": "val", "test": "test"}
"""names of folders, and what they hold"""


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
    sizes = {size: file.path for file, (size, _) in reversed(headers)}  # an example of each size (width, height)
    if config.image_size is None and len(sizes) > 1:
        (a, one), (b, other) = list(sizes.items())[-2:]
        differ = f"the images differ in size ({one} is {a[0]}×{a[1]}, {other} {b[0]}×{b[1]})"
        remedy = "give the side to bring them all to, such as --data.image_size 64"
        raise SettingError(f"data.image_size: null, but {differ}; {remedy}")
    size = next(iter(sizes)) if config.image_size is None else (config.image_size, config.image_size)
    mode = "L" if all(is_gray for _, (_, is_gray) in headers) else "RGB"
    shape = len(mode), size[1], size[0]
    pixels = allocate((len(headers), *shape))

    def store(file: _File) -> None:
        pixels[file.row] = fitted(read_picture(file.path, mode), shape)

    numbered = [replace(file, row=row) for row, (file, _) in enumerate(headers)]
    stored, more = _attempt("reading images", store, numbered, config)
    kept = [file for file, _ in stored]
    excluded += more
    for label, name in enumerate(classes):
        reasons = [reason for file, reason in excluded if file.label == label]
        if reasons:
            print(
                f"data.root: excluded {len(reasons)} files of class {name} that are not readable images ({reasons[0]})"
            )
        if not any(file.label == label and file.split == "train" for file in kept):
            raise SettingError(f"data.root: no training image of class {name} under {root} is readable; add some")

    def images(split: str) -> Images:
        own = [file for file in kept if file.split == split]
        if not own:
            raise SettingError(f"data.root: no {split} image under {root} is readable; mend or remove its folder")
        # files of a split follow one another, so that a slice, not a copy, will nearly always do
        rows = [file.row for file in own]
        whole = rows[-1] - rows[0] + 1 == len(own)
        index: slice | Tensor = slice(rows[0], rows[-1] + 1) if whole else torch.tensor(rows)
        return Images(pixels[index], torch.tensor([file.label for file in own]), [file.name for file in own])

    splits = {split: images(split) for split in sorted({file.split for file in files})}
    return RawData(classes, splits["train"], splits.get("test"), splits.get("val"))


def _listed(root: Path) -> tuple[list[str], list[_File]]:
    """The classes, and every file of every split, split by split and class by class."""
    if not root.is_dir():
        raise SettingError(f"data.root: {root} is not a folder; give the folder that holds train/<class>/*")
    known = [(split, path) for path in _folders(root) if (split := SPLITS.get(path.name.lower()))]
    folders = dict(known)
    if [split for split, _ in known].count("val") > 1:
        raise SettingError(f"data.root: {root} has several folders of validation images; keep one of them, as val")
    if folders and "train" not in folders:
        found = f"{root} has {next(iter(folders.values())).name}, but no folder train"
        expected = f"{root}/train/<class>/*, or without any split in {root}/<class>/*"
        raise SettingError(f"data.root: {found}; images are expected in {expected}")
    folders = folders or {"train": root}
    classes = [path.name for path in _folders(folders["train"])]
    if len(classes) < 2:
        found = f"{folders['train']} has {f'one class, {classes[0]}' if classes else 'no class folders'}"
        raise SettingError(f"data.root: {found}; classification needs at least two, one folder each")
    for name in classes:
        if any("\ud800" <= letter <= "\udfff" for letter in name):  # bytes that are not UTF-8
            raise SettingError(f"data.root: the name of class {name!r} can't be stored; rename its folder")
    files = []
    for split in sorted(folders, key=["train", "val", "test"].index):
        where = folders[split]
        for path in _folders(where):
            if path.name not in classes:
                what = f"{path} is a class that {folders['train']} does not have"
                raise SettingError(f"data.root: {what}; add it there or remove it")
        own = []
        for label, name in enumerate(classes):
            place = where / name
            paths = sorted(path for path in place.rglob("*") if path.is_file() and is_visible(path, place))
            if split == "train" and not paths:
                raise SettingError(f"data.root: {place} is empty; add images of this class or remove the folder")
            own += [_File(path, split, label, f"{name}/{path.relative_to(place).as_posix()}") for path in paths]
        if not own:
            remedy = f"put them into {where}/<class>/, or remove it"
            raise SettingError(f"data.root: {where} has no images in class folders; {remedy}")
        files += own
    return classes, files


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and is_visible(path, folder))


def _attempt(
    what: str, read: Callable[[_File], T], files: Sequence[_File], config: Data
) -> tuple[list[tuple[_File, T]], list[tuple[_File, str]]]:
    """Call `read` on every file; what cannot be read is excluded, with the reason, where that is asked for."""

    def attempt(file: _File) -> tuple[list[tuple[_File, T]], list[tuple[_File, str]]]:
        try:
            return [(file, read(file))], []
        except Exception as error:  # a damaged file can make a decoder raise anything
            reason = " ".join(str(error).split()) or type(error).__name__
            if config.skip_unreadable:
                return [], [(file, reason)]
            remedy = "mend or remove it, or give --data.skip_unreadable true"
            raise SettingError(f"data.root: {file.path} is not a readable image ({reason}); {remedy}") from error

    done = each(what, attempt, files)
    return [pair for was_read, _ in done for pair in was_read], [pair for _, lost in done for pair in lost]
