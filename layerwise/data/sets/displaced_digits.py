"""Displaced digits: scikit-learn's scans on a larger canvas, each somewhere else, among fragments of other scans."""

import numpy as np
import torch
import torch.nn.functional as F

from layerwise.config import Data
from layerwise.config.choices import DATASETS
from layerwise.data.images import Images
from layerwise.data.sets.digits import digits
from layerwise.data.splits import RawData, hold_out

CANVAS = 28
"""side of an image"""
SCAN = 16
"""side of a digit: the scans' own 8, doubled"""
FRAGMENT = 8
"""side of a fragment: a quarter of a digit's area, too little to be one"""
FRAGMENTS = 5
"""how many an image has; they may overlap, or lie hidden behind the digit"""
COPIES = 4
"""images of each scan, every one with a place and fragments of its own"""
VALIDATION = 0.2
"""share of the scans not for the test that are held out, always the same"""
SEED = 0
"""of places and fragments, and of what is held out"""


@DATASETS("displaced_digits")
def displaced_digits(config: Data) -> RawData:
    """The scans of digits, doubled, each at four random places of a 28×28 canvas over fragments of others.

    4,600 images for training, 1,152 for validation, 1,436 for the test, (n, 1, 28, 28), always the same; no two splits
    share a scan, be it as digit or as fragment.
    """
    scans = digits(config)
    assert scans.test is not None
    train, val = hold_out(scans.train, VALIDATION, SEED, "data.validation")
    rng = np.random.default_rng(SEED)
    train, test, val = (_displaced(images, rng) for images in (train, scans.test, val))
    return RawData(scans.classes, train, test, val, flip=False)


def _displaced(scans: Images, rng: np.random.Generator) -> Images:
    large = F.interpolate(scans.pixels[:].float(), (SCAN, SCAN), mode="bilinear").round().byte()[:, 0].numpy()
    canvases = np.zeros((COPIES * len(large), 1, CANVAS, CANVAS), np.uint8)
    for number, (canvas,) in enumerate(canvases):
        for scan in large[rng.integers(len(large), size=FRAGMENTS)]:
            y, x = rng.integers(SCAN - FRAGMENT + 1, size=2)
            top, left = rng.integers(CANVAS - FRAGMENT + 1, size=2)
            place = canvas[top : top + FRAGMENT, left : left + FRAGMENT]
            np.maximum(place, scan[y : y + FRAGMENT, x : x + FRAGMENT], out=place)
        top, left = rng.integers(CANVAS - SCAN + 1, size=2)
        canvas[top : top + SCAN, left : left + SCAN] = large[number % len(large)]
    return Images(torch.from_numpy(canvases), scans.labels.repeat(COPIES))
