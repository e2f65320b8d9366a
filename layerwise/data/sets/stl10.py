"""STL-10."""

from layerwise.config import Data
from layerwise.config.choices import DATASETS
from layerwise.data.splits import BY_SPLIT, RawData, from_torchvision


@DATASETS("stl10")
def stl10(config: Data) -> RawData:
    """5,000 + 8,000 color 96×96 photographs of 10 classes."""
    return from_torchvision(config, "STL10", "stl10_binary/train_X.bin (and its companions)", BY_SPLIT)
