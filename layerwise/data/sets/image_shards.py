"""The user's own images in tar files, as WebDataset lays them out: KEY.jpg and KEY.cls, which is a class's number."""

import os
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from layerwise.config import Data, SettingError
from layerwise.config.choices import DATASETS
from layerwise.console import progress
from layerwise.data.decoding import SPLITS, Picture, decoded
from layerwise.data.reading import files_below
from layerwise.data.splits import RawData
from layerwise.data.tar import Member, members
from layerwise.processes import agreed

IMAGES = {"bmp", "gif", "jpeg", "jpg", "pbm", "pgm", "png", "pnm", "ppm", "tif", "tiff", "webp"}
COMPRESSED = re.compile(r"\.(tgz|tbz|txz|tar\.\w+)$")


@dataclass(slots=True)
class _Sample:
    """What goes by one key in a shard."""

    image: Member | None = None
    label: str | None = None


@DATASETS("image_shards")
def image_shards(config: Data) -> RawData:
    """Your own images in tar files like WebDataset's, KEY.jpg and KEY.cls, below root; train, val or test in paths.

    A member KEY.cls holds a class, a number from 0; of members of other kinds none is used. The file root/classes.txt,
    if there is one, names the classes, a line each. Without any split in their paths all shards are for training. They
    are read where they lie, and decoded as an image_folder is; what is held out follows from shard and key.

    Raises:
        SettingError: root has no shards, one of them or a member is unreadable, a class has no image, or sizes differ.
    """
    return decoded(config, *agreed(_listed, config))


def _listed(config: Data) -> tuple[list[str], list[Picture]]:
    """The classes, and every image of every shard, split by split."""
    root = Path(os.path.expanduser(config.root))
    found, lost = list[tuple[str, int, str, Member]](), list[str]()
    shards = _shards(root)
    for split, shard in progress(shards, "reading shards"):
        for key, sample in _samples(shard, config, lost):
            label = sample.label or ""
            if sample.image is None or not re.fullmatch(r"[0-9]{1,9}", label):
                lacks = "no image" if sample.image is None else f"class {label!r}" if label else "no class"
                reason = f"{key} in {shard} has {lacks}, but KEY.jpg or the like and KEY.cls, a number, are expected"
                if not config.skip_unreadable:
                    raise SettingError(f"data.root: {reason}; mend it, or give --data.skip_unreadable true")
                lost.append(reason)
                continue
            found.append((split, int(label), f"{shard.relative_to(root).as_posix()}/{key}", sample.image))
    if lost:
        print(f"data.root: excluded {len(lost)} samples that are none ({lost[0]})")
    classes = _classes(root, {label for split, label, _, _ in found if split == "train"})
    for _, number, _, image in found:
        if number >= len(classes):
            told = f"{image} is of class {number}, but there are {len(classes)}, from 0"
            raise SettingError(f"data.root: {told}; mend it, or name all in {root}/classes.txt")
    for split in dict.fromkeys(split for split, _ in shards):
        if not any(own == split for own, _, _, _ in found):
            raise SettingError(f"data.root: no {split} shard under {root} holds an image; mend or remove them")
    return classes, [Picture(image, split, label, name) for split, label, name, image in found]


def _shards(root: Path) -> list[tuple[str, Path]]:
    """The tar files, with what they are for, split by split and in alphabetical order."""
    if not root.is_dir():
        raise SettingError(f"data.root: {root} is not a folder; give the folder that holds train-*.tar")
    try:
        files = files_below(root)
    except OSError as error:
        reason = f"{error.filename} cannot be read ({error.strerror}); let it be read, or remove it"
        raise SettingError(f"data.root: {reason}") from error
    if packed := [path for path in files if COMPRESSED.search(path.name.lower())]:
        raise SettingError(
            f"data.root: {packed[0]} is compressed, but is to be read in place; unpack it to a .tar file"
        )
    shards = [path for path in files if path.suffix.lower() == ".tar"]
    if not shards:
        raise SettingError(f"data.root: {root} has no .tar files; give the folder that holds train-*.tar")
    splits = {path: _split(path.relative_to(root)) for path in shards}
    told = {split for split in splits.values() if split}
    if told and "train" not in told:
        raise SettingError(f"data.root: {shards[0]} is for {splits[shards[0]]}, but none is for train; add such shards")
    if told and (untold := [path for path in shards if not splits[path]]):
        raise SettingError(f"data.root: {untold[0]} says neither train nor val nor test, as others do; rename it")
    order = ["train", "val", "test"]
    return sorted(((split or "train", path) for path, split in splits.items()), key=lambda own: order.index(own[0]))


def _split(path: Path) -> str | None:
    """What a shard is for, by the words of its path, if they say so."""
    found = {SPLITS[word] for word in re.split(r"[^a-z]+", path.as_posix().lower()) if word in SPLITS}
    if len(found) > 1:
        raise SettingError(f"data.root: the name of {path} says both {' and '.join(sorted(found))}; rename it")
    return found.pop() if found else None


def _samples(shard: Path, config: Data, lost: list[str]) -> Iterator[tuple[str, _Sample]]:
    """What a shard holds, by key: the path up to the first dot of the file's name."""
    samples, doubled = dict[str, _Sample](), dict[str, None]()
    try:
        with shard.open("rb", buffering=0) as file:
            for member in members(shard):
                folder, slash, name = member.name.rpartition("/")
                base, _, kind = name.partition(".")
                kind, key = kind.lower(), folder + slash + base
                if kind in IMAGES:
                    sample = samples.setdefault(key, _Sample())
                    if sample.image is not None:
                        doubled[key] = None
                    sample.image = member
                elif kind == "cls":
                    content = member.bytes_of(file.fileno()) if member.size <= 20 else b"too long"
                    samples.setdefault(key, _Sample()).label = content.decode("ascii", "replace").strip()
    except (OSError, tarfile.TarError, ValueError) as error:
        if not config.skip_unreadable:
            reason = f"{shard} is not a readable tar file ({error})"
            raise SettingError(f"data.root: {reason}; mend or remove it") from error
        print(f"data.root: excluded what is left of {shard}, which is not a readable tar file ({error})")
    for key in doubled:
        if not config.skip_unreadable:
            raise SettingError(f"data.root: {shard} has two images by the name {key}; rename one of them")
        lost.append(f"{shard} has two images by the name {key}")
        del samples[key]
    yield from samples.items()


def _classes(root: Path, present: set[int]) -> list[str]:
    """The classes' names, or their numbers."""
    if (path := root / "classes.txt").is_file():
        try:
            classes = path.read_text(encoding="utf-8-sig").splitlines()  # as some editors mark it
        except ValueError as error:
            raise SettingError(f"data.root: {path} is no text of UTF-8; give a class's name a line") from error
        if len(classes) < 2:
            raise SettingError(f"data.root: {path} names {len(classes)} classes; give two or more, a name a line")
        if "" in classes or len(set(classes)) < len(classes):
            raise SettingError(f"data.root: {path} has an empty line, or a name twice; give a class's name a line")
        return classes
    missing = [label for label in range(len(present)) if label not in present]
    if missing:
        highest = f"no training image is of class {missing[0]}, but one is of {max(present)}"
        raise SettingError(f"data.root: {highest}; number classes from 0, or name all in {path}")
    if len(present) < 2:
        raise SettingError(f"data.root: the training images of {root} have {len(present)} class; give at least two")
    return [str(label) for label in range(len(present))]
