"""The user's own images, root/{train,val,test}/<class>/* or root/<class>/*, decoded once into uint8 tensors."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from layerwise.config import Data, SettingError
from layerwise.config.choices import DATASETS
from layerwise.data.images import Images, allocate
from layerwise.data.reading import each, files_below, fitted, listed, read_header, read_picture
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
    root = Path(config.root).expanduser()
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
    try:
        pixels = allocate((len(headers), *shape))
    except (OSError, MemoryError, RuntimeError) as error:
        size_told = (
            f"{len(headers)} images of {'×'.join(map(str, shape))} take {len(headers) * math.prod(shape) / 1e9:.1f} GB"
        )
        remedy = "give a smaller --data.image_size, or TMPDIR where there is room"
        raise SettingError(f"data.image_size: {config.image_size}, but {size_told} ({error}); {remedy}") from error

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
    top, loose = _content(root)
    folders: dict[str, Path] = {}
    for path in top:
        if split := SPLITS.get(path.name.lower()):
            if split in folders:
                both = f"both {folders[split].name} and {path.name}"
                raise SettingError(f"data.root: {root} has {both} for the {split} images; keep one of them")
            folders[split] = path
    if folders and "train" not in folders:
        found = f"{root} has {next(iter(folders.values())).name}, which is the name of a split, but no folder train"
        expected = f"{root}/train/<class>/*, or without any split in {root}/<class>/*"
        raise SettingError(f"data.root: {found}; images are expected in {expected}")
    if folders:
        loose += [path for path in top if path not in folders.values()]
    folders = folders or {"train": root}
    classes = [path.name for path in _content(folders["train"])[0]]
    if len(classes) < 2:
        found = f"{folders['train']} has {f'one class, {classes[0]}' if classes else 'no class folders'}"
        raise SettingError(f"data.root: {found}; classification needs at least two, one folder each")
    for name in classes:
        if any("\ud800" <= letter <= "\udfff" for letter in name):  # bytes that are not UTF-8
            raise SettingError(f"data.root: the name of class {name!r} can't be stored; rename its folder")
    files = []
    for split in sorted(folders, key=["train", "val", "test"].index):
        where = folders[split]
        own_classes, own_loose = _content(where)
        loose += own_loose if where != root else []
        for path in own_classes:
            if path.name not in classes:
                what = f"{path} is a class that {folders['train']} does not have"
                raise SettingError(f"data.root: {what}; add it there or remove it")
        own = []
        for label, name in enumerate(classes):
            place = where / name
            paths = _files(place) if place.exists() else []
            if split == "train" and not paths:
                raise SettingError(f"data.root: {place} is empty; add images of this class or remove the folder")
            if not paths:
                print(f"data.root: {where} has no image of class {name}")
            own += [_File(path, split, label, f"{name}/{path.relative_to(place).as_posix()}") for path in paths]
        if not own:
            remedy = f"put them into {where}/<class>/, or remove it"
            raise SettingError(f"data.root: {where} has no images in class folders; {remedy}")
        files += own
    if loose:
        print(f"data.root: not used, as they lie in no class folder: {loose[0]} and {len(loose) - 1} more")
    return classes, files


def _content(folder: Path) -> tuple[list[Path], list[Path]]:
    """The visible folders in a folder, and what else is visible."""
    try:
        return listed(folder)
    except OSError as error:
        raise _unreadable(error) from error


def _files(folder: Path) -> list[Path]:
    """What lies in a folder or deeper, links to folders included, and is visible."""
    try:
        return files_below(folder)
    except OSError as error:
        raise _unreadable(error) from error


def _unreadable(error: OSError) -> SettingError:
    return SettingError(f"data.root: {error.filename} cannot be read ({error.strerror}); let it be read, or remove it")


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
