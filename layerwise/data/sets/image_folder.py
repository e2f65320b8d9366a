"""The user's own images, root/{train,val,test}/<class>/* or root/<class>/*, each decoded once."""

import os
from pathlib import Path

from layerwise.config import Data, SettingError
from layerwise.config.choices import DATASETS
from layerwise.data.decoding import SPLITS, Picture, decoded
from layerwise.data.reading import files_below, listed
from layerwise.data.splits import RawData
from layerwise.processes import agreed


@DATASETS("image_folder")
def image_folder(config: Data) -> RawData:
    """Your own images, in root/{train,val,test}/<class>/*, or in root/<class>/* where nothing is split yet.

    Classes are the subfolders of root/train, in alphabetical order; images may lie deeper in them. Images are gray if
    all files are, else color. What would take much of the memory lies in a temporary file.

    Raises:
        SettingError: root is missing or empty, has one class, an unreadable file, or images of different sizes.
    """
    return decoded(config, *agreed(_listed, Path(os.path.expanduser(config.root))))


def _listed(root: Path) -> tuple[list[str], list[Picture]]:
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
            own += [Picture(path, split, label, f"{name}/{path.relative_to(place).as_posix()}") for path in paths]
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
