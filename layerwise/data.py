"""The data sets: one function each, registered in `DATASETS`; splits, and what is checked before a run starts."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from layerwise.batches import Augmentation, Images, fold_seed
from layerwise.config import DataConfig, SettingError
from layerwise.folder import read_folder
from layerwise.teacher import draw


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
    """A data set ready to learn from: never empty, at least two classes, all images of one shape."""

    classes: list[str]
    train: Images
    val: Images
    test: Images
    augmentation: Augmentation

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of an image."""
        c, h, w = self.train.pixels.shape[1:]
        return c, h, w

    def digest(self) -> str:
        """SHA-256 over every label and up to 10,000 evenly spaced training images; tells whether data changed."""
        sha = hashlib.sha256(repr((self.classes, tuple(self.train.pixels.shape))).encode())
        for images in (self.train, self.val, self.test):
            sha.update(images.labels.numpy().tobytes())
        step = -(-len(self.train) // 10_000)
        sha.update(self.train.pixels[::step].numpy().tobytes())
        return sha.hexdigest()


def load_data(config: DataConfig, seed: int) -> DataSet:
    """Read a data set and hold out what it has no split for, by seed.

    Raises:
        SettingError: the data is missing, damaged, or cannot be learned from.
    """
    raw = DATASETS[config.name](config)
    train, test, val = raw.train, raw.test, raw.val
    if test is None:
        train, test = _hold_out(train, config.test, fold_seed(seed, 1), "data.test")
    if val is None:
        train, val = _hold_out(train, config.validation, fold_seed(seed, 2), "data.validation")
    present = len(set(train.labels.tolist()))
    if present < 2:
        raise SettingError(
            f"data.name: {config.name} has {present} class in its training split; classification needs at least 2"
        )
    if all(bool((chunk == train.pixels[:1]).all()) for chunk in torch.split(train.pixels, 1024)):
        raise SettingError(
            f"data.name: all training images of {config.name} are the same (zero covariance); check the data"
        )
    side = min(train.pixels.shape[2:])
    crop = config.crop if config.crop is not None else side // 8
    flip = config.flip if config.flip is not None else raw.flip
    return DataSet(raw.classes, train, val, test, Augmentation(flip, crop, config.border))


def _hold_out(images: Images, share: float, seed: int, setting: str) -> tuple[Images, Images]:
    count = round(len(images) * share)
    if not 0 < count < len(images):
        raise SettingError(
            f"{setting}: {share} of {len(images)} images leaves a split empty; give more images or another share"
        )
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    return images.subset(order[count:].sort().values), images.subset(order[:count].sort().values)


def digits(config: DataConfig) -> RawData:
    """scikit-learn's bundled 1,797 scans of digits, 8×8; a fifth of them, always the same, is the test split."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    pixels = torch.from_numpy(np.round(bunch.images * (255 / 16)).astype(np.uint8))[:, None]
    images = Images(pixels, torch.from_numpy(bunch.target.astype(np.int64)))
    train, test = _hold_out(images, 0.2, 0, "data.test")
    return RawData([str(i) for i in range(10)], train, test, flip=False)


def teacher(config: DataConfig) -> RawData:
    """Images whose patches come from clusters, labelled by a random network: the setting of the paper's theorem."""
    train, test = draw(config.teacher)
    return RawData(["low", "high"], train, test, flip=False)


def image_folder(config: DataConfig) -> RawData:
    """The user's own images, in root/{train,val,test}/<class>/*."""
    splits = read_folder(Path(config.root), config.image_size, config.skip_unreadable)
    return RawData(splits.classes, splits.train, splits.test, splits.val)


def _from_torchvision(
    config: DataConfig, class_name: str, expected: str, splits: list[dict[str, Any]], flip: bool
) -> RawData:
    """Read the (train, test) splits of a data set of torchvision, downloading what root does not hold.

    torchvision unpickles CIFAR files, but only once their checksums match the published ones.
    """
    try:
        import torchvision.datasets
    except (ImportError, RuntimeError) as error:  # RuntimeError: built for another torch
        raise SettingError(
            f"data.name: {config.name} needs torchvision, which does not import here: {error}"
        ) from error
    source = getattr(torchvision.datasets, class_name)
    missing = SettingError(
        f"data.root: {config.root} does not hold {config.name}, and it could not be downloaded; "
        f"place {Path(config.root).absolute() / expected} there by hand, or set data.root to the folder that holds it"
    )
    read = []
    for split in splits:
        try:
            read.append(source(config.root, download=False, **split))
        except Exception as absent:
            if not config.download:
                raise missing from absent
            try:
                read.append(source(config.root, download=True, **split))
            except Exception as error:
                raise missing from error
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


def fashion_mnist(config: DataConfig) -> RawData:
    """60,000 + 10,000 grey 28×28 pictures of clothes."""
    expected = "FashionMNIST/raw/train-images-idx3-ubyte (and its three companions)"
    return _from_torchvision(config, "FashionMNIST", expected, [{"train": True}, {"train": False}], flip=True)


def cifar10(config: DataConfig) -> RawData:
    """50,000 + 10,000 colour 32×32 photographs of 10 classes."""
    expected = "cifar-10-batches-py/data_batch_1 (and its companions)"
    return _from_torchvision(config, "CIFAR10", expected, [{"train": True}, {"train": False}], flip=True)


def cifar100(config: DataConfig) -> RawData:
    """50,000 + 10,000 colour 32×32 photographs of 100 classes."""
    expected = "cifar-100-python/train (and its companions)"
    return _from_torchvision(config, "CIFAR100", expected, [{"train": True}, {"train": False}], flip=True)


def svhn(config: DataConfig) -> RawData:
    """73,257 + 26,032 colour 32×32 house numbers."""
    expected = "train_32x32.mat (and test_32x32.mat)"
    return _from_torchvision(config, "SVHN", expected, [{"split": "train"}, {"split": "test"}], flip=False)


def stl10(config: DataConfig) -> RawData:
    """5,000 + 8,000 colour 96×96 photographs of 10 classes."""
    expected = "stl10_binary/train_X.bin (and its companions)"
    return _from_torchvision(config, "STL10", expected, [{"split": "train"}, {"split": "test"}], flip=True)


DATASETS: dict[str, Callable[[DataConfig], RawData]] = {
    "digits": digits,
    "fashion_mnist": fashion_mnist,
    "cifar10": cifar10,
    "cifar100": cifar100,
    "svhn": svhn,
    "stl10": stl10,
    "image_folder": image_folder,
    "teacher": teacher,
}
