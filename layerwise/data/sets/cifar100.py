"""CIFAR-100."""

from layerwise.config import Data
from layerwise.config.choices import DATASETS
from layerwise.data.splits import RawData, from_torchvision


@DATASETS("cifar100")
def cifar100(config: Data) -> RawData:
    """50,000 + 10,000 color 32×32 photographs of 100 classes."""
    return from_torchvision(config, "CIFAR100", "cifar-100-python/train (and its companions)")
