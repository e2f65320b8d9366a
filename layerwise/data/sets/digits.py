"""scikit-learn's bundled scans of digits."""

import numpy as np
import torch

from layerwise.config import Data
from layerwise.config.choices import DATASETS
from layerwise.data.images import Images
from layerwise.data.splits import RawData, hold_out


@DATASETS("digits")
def digits(config: Data) -> RawData:
    """1,797 bundled 8×8 scans of digits; a fifth of them, always the same, is the test split."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    pixels = torch.from_numpy(np.round(bunch.images * (255 / 16)).astype(np.uint8))[:, None]
    images = Images(pixels, torch.from_numpy(bunch.target.astype(np.int64)))
    train, test = hold_out(images, 0.2, 0, "data.test")
    return RawData([str(i) for i in range(10)], train, test, flip=False)
