"""A data set ready to learn from: what is held out, and what is checked before a run starts."""

import hashlib
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from layerwise.config import Data, SettingError
from layerwise.config.choices import DATASETS
from layerwise.data.augmentation import Augmentation
from layerwise.data.images import Images
from layerwise.seeds import fold_seed


@dataclass(frozen=True)
class RawData:
    """A data set as its source gives it."""

    classes: list[str]
    train: Images
    test: Images | None
    """None where the source has no test split"""
    val: Images | None = None
    flip: bool = True
    """whether a mirrored image still shows its class"""
    names: list[str] | None = None
    """of the training images, class/path: what is held out of them then follows from the name, and one more image
    moves no other; None: from the position"""


@dataclass(frozen=True)
class DataSet:
    """A data set ready to learn from: never empty, at least two classes, all images of one shape."""

    classes: list[str]
    train: Images
    val: Images
    test: Images
    augmentation: Augmentation

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of an image."""
        return self.train.shape

    @cached_property
    def digest(self) -> str:
        """SHA-256 over every label and pixel of all splits; tells whether data changed."""
        sha = hashlib.sha256(repr((self.classes, self.shape)).encode())
        for images in (self.train, self.val, self.test):
            sha.update(repr(len(images)).encode() + images.labels.numpy().tobytes())
            for chunk in torch.split(images.pixels, 1024):
                sha.update(chunk.numpy().tobytes())
        return sha.hexdigest()


def load_data(config: Data, seed: int) -> DataSet:
    """Read a data set and hold out what it has no split for, by seed.

    Raises:
        SettingError: the data is missing, damaged, or cannot be learned from.
    """
    raw: RawData = DATASETS[config.name](config)
    train, test, val, names = raw.train, raw.test, raw.val, raw.names
    if test is None:  # by name, the test does not depend on the seed
        held = _chosen(train, config.test, fold_seed(seed, 0, 2), names, "test")
        train, test = _split(train, held, config.test, "data.test", raw.classes)
        names = names and [name for name, is_held in zip(names, held.tolist(), strict=True) if not is_held]
    elif config.test != Data.test:
        raise SettingError(f"data.test: {config.test}, but {config.name} has test images of its own; omit it")
    if val is not None and config.validation != Data.validation:
        share = config.validation
        raise SettingError(f"data.validation: {share}, but {config.name} has validation images of its own; omit it")
    if val is None:
        held = _chosen(train, config.validation, fold_seed(seed, 1, 2), names, f"validation {seed}")
        train, val = _split(train, held, config.validation, "data.validation", raw.classes)
    present = len(set(train.labels.tolist()))
    if present < 2:
        raise SettingError(
            f"data.name: {config.name} has {present} class in its training split; classification needs at least 2"
        )
    if all(bool((chunk == train.pixels[:1]).all()) for chunk in torch.split(train.pixels, 1024)):
        raise SettingError(
            f"data.name: all training images of {config.name} are the same (zero covariance); check the data"
        )
    side = min(train.shape[1:])
    crop = config.crop if config.crop is not None else side // 8
    flip = config.flip if config.flip is not None else raw.flip
    return DataSet(raw.classes, train, val, test, Augmentation(flip, crop, config.border))


def hold_out(images: Images, share: float, seed: int, setting: str) -> tuple[Images, Images]:
    """Split images at random into those that stay and a share that is held out.

    Raises:
        SettingError: one of the two is empty.
    """
    return _split(images, _chosen(images, share, seed, None, ""), share, setting, [])


def _chosen(images: Images, share: float, seed: int, names: list[str] | None, salt: str) -> Tensor:
    """Which images are held out, (n,) bool: by a hash of the name, or a random share of the positions."""
    if names is not None:
        digests = (hashlib.sha256(f"{salt}\0{name}".encode()).digest() for name in names)
        return torch.tensor([int.from_bytes(digest[:8]) < share * 2**64 for digest in digests])
    held = torch.zeros(len(images), dtype=torch.bool)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    held[order[: round(len(images) * share)]] = True
    return held


def _split(images: Images, held: Tensor, share: float, setting: str, classes: list[str]) -> tuple[Images, Images]:
    """Those that stay, and those that are held out.

    Raises:
        SettingError: one of the two is empty, or a class is missing in one of them.
    """
    if held.all() or not held.any():
        raise SettingError(
            f"{setting}: {share} of {len(images)} images leaves a split empty; give more images or another share"
        )
    for label, name in enumerate(classes):
        own = held[images.labels == label]
        if len(own) and (own.all() or not own.any()):
            print(
                f"{setting}: class {name} has {len(own)} images, {int(own.sum())} of which are held out; "
                "give more of them for a fair measurement",
                flush=True,
            )
    return images.subset((~held).nonzero()[:, 0]), images.subset(held.nonzero()[:, 0])
