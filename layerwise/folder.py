"""Any folder of images, root/{train,val,test}/<class>/*, decoded once into uint8 tensors."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from layerwise.batches import Images, allocate
from layerwise.config import SettingError
from layerwise.progress import progress

T = TypeVar("T")


@dataclass(frozen=True)
class FolderSplits:
    """The splits that a folder has."""

    classes: list[str]
    train: Images
    val: Images | None
    test: Images | None


def read_folder(root: Path, image_size: int | None, skip_unreadable: bool) -> FolderSplits:
    """Read a folder of images; classes are the subfolders of root/train, in alphabetical order.

    Images are grey if all files are, else colour. What does not fit in memory lies in a temporary file.

    Args:
        root: the folder.
        image_size: shrink each image until its shorter side is this long, and cut out the centre square.
        skip_unreadable: leave out files that are not readable images.

    Raises:
        SettingError: root is missing or empty, has one class, an unreadable file, or images of different sizes.
    """
    if not root.is_dir():
        raise SettingError(f"data.root: {root} is not a folder; give the folder that holds train/<class>/*")
    if not (root / "train").is_dir():
        raise SettingError(f"data.root: {root} has no folder train; images are expected in {root}/train/<class>/*")
    classes = sorted(path.name for path in _visible(root / "train") if path.is_dir())
    if len(classes) < 2:
        found = f"one class, {classes[0]}" if classes else "no class folders"
        raise SettingError(f"data.root: {root}/train has {found}; classification needs at least two, one folder each")
    files: list[tuple[str, Path, int]] = []
    for split in ("train", "val", "test"):
        folder = root / split
        if not folder.is_dir():
            continue
        for path in _visible(folder):
            if path.is_dir() and path.name not in classes:
                raise SettingError(
                    f"data.root: {path} is a class that {root}/train does not have; add it there or remove it"
                )
        for label, name in enumerate(classes):
            found_files = _visible(folder / name) if (folder / name).is_dir() else []
            if split == "train" and not found_files:
                raise SettingError(
                    f"data.root: {folder / name} is empty; add images of this class or remove the folder"
                )
            files += [(split, path, label) for path in found_files]
        if not any(file[0] == split for file in files):
            raise SettingError(
                f"data.root: {folder} has no images in class folders; put them into {folder}/<class>/, or remove it"
            )

    headers = _each("reading headers", _header, [path for _, path, _ in files], skip_unreadable)
    kept = [(file, header) for file, header in zip(files, headers, strict=True) if header is not None]
    if not kept:
        raise SettingError(f"data.root: no file under {root} is a readable image")
    sizes = {size: file[1] for file, (size, _) in reversed(kept)}
    if image_size is None and len(sizes) > 1:
        (a, one), (b, other) = list(sizes.items())[-2:]
        raise SettingError(
            f"data.image_size: unset, but the images differ in size ({one} is {a[0]}×{a[1]}, {other} {b[0]}×{b[1]}); "
            "give the side to bring them all to, such as --data.image_size 64"
        )
    size = (image_size, image_size) if image_size else next(iter(sizes))
    grey = all(is_grey for _, (_, is_grey) in kept)

    pixels = allocate((len(kept), 1 if grey else 3, size[1], size[0]))

    def decode(item: tuple[int, Path]) -> bool:
        row, path = item
        with Image.open(path) as image:
            upright = ImageOps.exif_transpose(to_bytes(image)).convert("L" if grey else "RGB")
        if upright.size != size:
            upright = ImageOps.fit(upright, size, Image.Resampling.LANCZOS)
        array = np.asarray(upright)
        pixels[row] = torch.from_numpy((array[None] if grey else array.transpose(2, 0, 1)).copy())
        return True

    decoded = _each("reading images", decode, [(i, file[1]) for i, (file, _) in enumerate(kept)], skip_unreadable)
    labels = torch.tensor([file[2] for file, _ in kept])

    def select(split: str) -> Images | None:
        rows = [i for i, (file, _) in enumerate(kept) if file[0] == split and decoded[i]]
        if not rows:
            return None
        # files of a split follow one another, so that a slice, not a copy, will nearly always do
        whole = rows[-1] - rows[0] + 1 == len(rows)
        index: slice | Tensor = slice(rows[0], rows[-1] + 1) if whole else torch.tensor(rows)
        return Images(pixels[index], labels[index])

    train = select("train")
    if train is None:
        raise SettingError(f"data.root: no file under {root}/train is a readable image")
    return FolderSplits(classes, train, select("val"), select("test"))


def _visible(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _header(path: Path) -> tuple[tuple[int, int], bool]:
    """((width, height), whether it is grey) of an upright image, without decoding it."""
    with Image.open(path) as image:
        turned = image.getexif().get(0x0112, 1) >= 5
        size = (image.height, image.width) if turned else (image.width, image.height)
        if image.mode in ("I", "F"):
            raise ValueError(f"{image.mode} pixels have no known range")
        return size, image.mode in ("1", "L", "LA") or image.mode.startswith("I;16")


def to_bytes(image: Image.Image) -> Image.Image:
    """Bring 16-bit grey to 8 bits, which Pillow itself would cut off at 255."""
    if not image.mode.startswith("I;16"):
        return image
    return Image.fromarray((np.asarray(image) // 257).astype(np.uint8))


def _each(
    what: str, read: "Callable[..., T]", items: "Sequence[Path] | Sequence[tuple[int, Path]]", skip: bool
) -> list[T | None]:
    """Call `read` on every item in threads; None where the file is unreadable and `skip`."""

    def attempt(item: Path | tuple[int, Path]) -> T | None:
        try:
            return read(item)
        except Exception as error:  # a damaged file can make a decoder raise anything
            if skip:
                return None
            path = item if isinstance(item, Path) else item[1]
            raise SettingError(
                f"data.root: {path} is not a readable image; mend or remove it, or give --data.skip_unreadable true"
            ) from error

    with ThreadPoolExecutor() as pool:
        return list(progress(pool.map(attempt, items), what, total=len(items)))
