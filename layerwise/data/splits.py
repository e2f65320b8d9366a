"""A data set ready to learn from: read, also by torchvision; what is held out; what is checked before a run starts."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from layerwise.config import Data, SettingError
from layerwise.config.choices import DATASETS
from layerwise.data.content import Content, content_of
from layerwise.data.images import Augmentation, Images
from layerwise.processes import in_turn
from layerwise.seeds import fold_seed

BY_TRAIN: list[dict[str, Any]] = [{"train": True}, {"train": False}]
BY_SPLIT: list[dict[str, Any]] = [{"split": "train"}, {"split": "test"}]


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


@dataclass(frozen=True)
class DataSet:
    """A data set ready to learn from: never empty, at least two classes, all images of one shape; else SettingError."""

    classes: list[str]
    train: Images
    val: Images
    test: Images
    augmentation: Augmentation
    source: Data | None = None
    """the settings that it was read by; None: it was made otherwise"""

    def __post_init__(self) -> None:
        for name, images in (("train", self.train), ("val", self.val), ("test", self.test)):
            if not len(images):
                raise SettingError(f"data: {name} has no image; give at least one")
            if images.shape != self.shape:
                raise SettingError(f"data: {name} has images of {images.shape}, train of {self.shape}; give one shape")
            low, high = int(images.labels.min()), int(images.labels.max())
            if low < 0 or high >= len(self.classes):
                told = f"labels from {low} to {high} for {len(self.classes)} classes"
                raise SettingError(f"data: {name} has {told}; give positions in classes, from 0")
        if len(set(self.classes)) < 2 or len(set(self.classes)) < len(self.classes):
            raise SettingError(f"data: the classes are {self.classes}; give at least two, of different names")
        if self.augmentation.crop >= min(self.shape[1:]):
            told = f"{self.augmentation.crop} is not below the side of the {self.shape[1]}×{self.shape[2]} images"
            raise SettingError(f"data.crop: {told}; give less")

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of an image."""
        return self.train.shape

    @property
    def settings(self) -> Data:
        """What a run's settings say of it."""
        own = self.augmentation
        return self.source or Data("arrays", flip=own.flip, crop=own.crop, border=own.border, shifts=own.shifts)

    @cached_property
    def content(self) -> Content:
        """Every image of all splits, as a hash."""
        return content_of({"train": self.train, "val": self.val, "test": self.test})

    @cached_property
    def dimmest(self) -> int:
        """Of 99 in 100 training images, the brightest pixel is at least so bright."""
        brightest = torch.cat([pixels.flatten(1).amax(1) for pixels in self.train.parts()])
        return int(brightest.float().quantile(0.01))

    @cached_property
    def digest(self) -> str:
        """SHA-256 over every label and pixel of all splits; tells whether data changed."""
        about = repr((self.classes, self.shape, len(self.train), len(self.val)))
        return hashlib.sha256(about.encode() + self.content.images.numpy().tobytes()).hexdigest()


def load_data(config: Data, seed: int) -> DataSet:
    """Read a data set and hold out what it has no split for, by seed; data that is of no use raises SettingError.

    Of several processes all read it at once, so that they can divide the work (`processes.divided`); what but one may
    do, such as a download, is done `processes.in_turn`.
    """
    return prepared(DATASETS[config.name](config), config, seed)


def prepared(raw: RawData, config: Data, seed: int) -> DataSet:
    """Hold out what a source has no split for, by seed; data that is of no use raises SettingError."""
    train, test, val, share = raw.train, raw.test, raw.val, config.validation
    if test is None:  # by name, the test does not depend on the seed
        train, test = hold_out(train, config.test, fold_seed(seed, 0, 2), "data.test", raw.classes, "test")
    elif config.test != Data.test:
        raise SettingError(f"data.test: {config.test}, but {config.name} has test images of its own; omit it")
    if val is None:
        salt = f"validation {seed}"
        train, val = hold_out(train, share, fold_seed(seed, 1, 2), "data.validation", raw.classes, salt)
    elif share != Data.validation:
        raise SettingError(f"data.validation: {share}, but {config.name} has validation images of its own; omit it")
    name, present = config.name, len(set(train.labels.tolist()))
    if present < 2:
        what = f"{present} class in its training split; classification needs at least 2"
        raise SettingError(f"data.name: {name} has {what}")
    if all(bool((chunk == train.pixels[:1]).all()) for chunk in train.parts()):
        raise SettingError(f"data.name: all training images of {name} are the same (zero covariance); check the data")
    crop = config.crop if config.crop is not None else min(train.shape[1:]) // 8
    flip = config.flip if config.flip is not None else raw.flip
    return DataSet(raw.classes, train, val, test, Augmentation(flip, crop, config.border, config.shifts), config)


def hold_out(
    images: Images, share: float, seed: int, setting: str, classes: Sequence[str] = (), salt: str = ""
) -> tuple[Images, Images]:
    """Those that stay, and a share that is held out: by a hash of their names, or of the positions at random."""
    if images.names is not None:
        digests = (hashlib.sha256(os.fsencode(f"{salt}\0{name}")).digest() for name in images.names)
        held = torch.tensor([int.from_bytes(digest[:8]) < share * 2**64 for digest in digests])
    else:
        held = torch.zeros(len(images), dtype=torch.bool)
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
        held[order[: round(len(images) * share)]] = True
    if held.all() or not held.any():
        effect = f"{share} of {len(images)} images leaves a split empty"
        raise SettingError(f"{setting}: {effect}; give more images or another share")
    for label, name in enumerate(classes):
        own = held[images.labels == label]
        if len(own) and (own.all() or not own.any()):
            few = f"class {name} has {len(own)} images, {int(own.sum())} of which are held out"
            print(f"{setting}: {few}; give more of them for a fair measurement", flush=True)
    return images.subset((~held).nonzero()[:, 0]), images.subset(held.nonzero()[:, 0])


def from_torchvision(
    config: Data, class_name: str, expected: str, splits: list[dict[str, Any]] = BY_TRAIN, flip: bool = True
) -> RawData:
    """Read a class of `torchvision.datasets`, with the arguments `splits` for training and test images.

    `expected` names the files below root, for the SettingError where they are missing. torchvision unpickles CIFAR
    files, but only once their checksums match the published ones.
    """
    try:
        import torchvision.datasets
    except (ImportError, RuntimeError) as error:  # RuntimeError: built for another torch
        message = f"data.name: {config.name} needs torchvision, which does not import here: {error}"
        raise SettingError(message) from error
    root = os.path.expanduser(config.root)
    source, place = getattr(torchvision.datasets, class_name), Path(root).absolute() / expected
    lacks = f"{config.root} does not hold {config.name}, and it could not be downloaded"
    remedy = f"place {place} there by hand, or set data.root to the folder that holds it"

    def fetched(split: dict[str, Any], download: bool = False) -> Any:
        try:
            return source(root, download=download, **split)
        except Exception as error:
            if download or not config.download:
                raise SettingError(f"data.root: {lacks}; {remedy}") from error
        return fetched(split, download=True)

    read = in_turn(lambda: [fetched(split) for split in splits])  # what one has downloaded is the others'
    train, test = (_to_images(data) for data in read)
    classes = getattr(read[0], "classes", None) or [str(i) for i in range(int(train.labels.max()) + 1)]
    return RawData(list(classes), train, test, flip=flip)


def _to_images(data: Any) -> Images:
    pixels = torch.as_tensor(data.data)
    if pixels.ndim == 3:
        pixels = pixels[:, None]
    elif pixels.shape[-1] == 3:
        pixels = pixels.permute(0, 3, 1, 2)
    labels: Tensor = torch.as_tensor(np.asarray(data.targets if hasattr(data, "targets") else data.labels))
    return Images(pixels.contiguous(), labels.long())
