"""Fashion-MNIST."""

from layerwise.config import Data
from layerwise.config.choices import DATASETS
from layerwise.data.splits import RawData, from_torchvision


@DATASETS("fashion_mnist")
def fashion_mnist(config: Data) -> RawData:
    """60,000 + 10,000 gray 28×28 pictures of clothes in 10 classes."""
    expected = "FashionMNIST/raw/train-images-idx3-ubyte (and its three companions)"
    return from_torchvision(config, "FashionMNIST", expected)
