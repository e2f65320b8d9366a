"""Street View House Numbers."""

from layerwise.config import Data
from layerwise.config.choices import DATASETS
from layerwise.data.splits import BY_SPLIT, RawData, from_torchvision


@DATASETS("svhn")
def svhn(config: Data) -> RawData:
    """73,257 + 26,032 color 32×32 house numbers."""
    return from_torchvision(config, "SVHN", "train_32x32.mat (and test_32x32.mat)", BY_SPLIT, flip=False)
