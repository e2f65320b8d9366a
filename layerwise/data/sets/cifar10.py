"""CIFAR-10."""

from layerwise.config import Data
from layerwise.config.choices import DATASETS
from layerwise.data.splits import RawData, from_torchvision


@DATASETS("cifar10")
def cifar10(config: Data) -> RawData:
    """50,000 + 10,000 color 32×32 photographs of 10 classes."""
    return from_torchvision(config, "CIFAR10", "cifar-10-batches-py/data_batch_1 (and its companions)")
