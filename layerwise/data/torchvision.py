"""Data sets that torchvision reads, and downloads where root does not hold them."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from layerwise.config import Data, SettingError
from layerwise.data.images import Images
from layerwise.data.splits import RawData

BY_TRAIN: list[dict[str, Any]] = [{"train": True}, {"train": False}]
BY_SPLIT: list[dict[str, Any]] = [{"split": "train"}, {"split": "test"}]


def from_torchvision(
    config: Data, class_name: str, expected: str, splits: list[dict[str, Any]] = BY_TRAIN, flip: bool = True
) -> RawData:
    """Read the training and test split of a data set.

    torchvision unpickles CIFAR files, but only once their checksums match the published ones.

    Args:
        config: says where the data lies.
        class_name: in `torchvision.datasets`.
        expected: files below root, for the message where they are missing.
        splits: arguments of the class for training and test images.
        flip: whether a mirrored image still shows its class.

    Raises:
        SettingError: torchvision or the data is missing.
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
