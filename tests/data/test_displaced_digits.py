"""Displaced digits: each image shows a whole scan of its class, among fragments of others."""

from functools import cache

import numpy as np
import numpy.typing as npt
import pytest
import torch
from sklearn.datasets import load_digits

from layerwise.config import Data
from layerwise.data.images import Images
from layerwise.data.sets.displaced_digits import displaced_digits
from layerwise.data.splits import RawData

Pixels = npt.NDArray[np.uint8]


@pytest.fixture(scope="module")
def raw() -> RawData:
    """The data set, made once."""
    return displaced_digits(Data())


@cache
def scans() -> dict[bytes, int]:
    """The number of each of scikit-learn's scans, by its pixels at twice the side, linear between pixels' centers."""

    def doubled(rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Twice as many rows: a quarter of the way from each old one to its neighbors."""
        above, below = rows[[0, *range(7)]], rows[[*range(1, 8), 7]]
        return np.stack([0.75 * rows + 0.25 * above, 0.75 * rows + 0.25 * below], 1).reshape(16, -1)

    found = {}
    for number, scan in enumerate(load_digits().images):
        pixels = np.round(scan * 255 / 16).astype(np.uint8).astype(float)
        found[np.round(doubled(doubled(pixels).T).T).astype(np.uint8).tobytes()] = number
    return found


def shown(image: Pixels) -> tuple[int, int, int]:
    """The scan that an image shows as a whole, and where: number, row, column."""
    windows = np.lib.stride_tricks.sliding_window_view(image, (16, 16))
    (found,) = {
        (scans()[window], i // 13, i % 13)
        for i, window in enumerate(part.tobytes() for part in windows.reshape(169, 16, 16))
        if window in scans()
    }
    return found


def test_displaced_digits__have_the_sizes_that_are_documented__always_the_same(raw: RawData) -> None:
    own, again = raw, displaced_digits(Data())
    assert own.test is not None and own.val is not None and again.test is not None
    assert [len(images) for images in (own.train, own.val, own.test)] == [4600, 1152, 1436]
    assert own.train.shape == (1, 28, 28) and own.classes == list("0123456789") and not own.flip
    assert torch.equal(own.train.pixels[:], again.train.pixels[:]) and torch.equal(own.test.labels, again.test.labels)


def test_displaced_digits__show_a_whole_scan_of_their_class_somewhere__no_two_splits_the_same(raw: RawData) -> None:
    own, target = raw, load_digits().target
    assert own.val is not None and own.test is not None
    numbers, places = [], set()
    for images in (own.train, own.val, own.test):
        found = [shown(image[0].numpy()) for image in images.pixels[::4]]
        assert [target[number] for number, _, _ in found] == images.labels[::4].tolist()
        numbers.append({number for number, _, _ in found})
        places |= {(row, column) for _, row, column in found}
    assert not numbers[0] & numbers[1] and not numbers[0] & numbers[2] and not numbers[1] & numbers[2]
    assert places == {(row, column) for row in range(13) for column in range(13)}


def test_displaced_digits__show_each_scan_four_times_elsewhere(raw: RawData) -> None:
    test = raw.test
    assert test is not None
    found = [shown(image[0].numpy()) for image in test.pixels[:]]
    numbers = [number for number, _, _ in found]
    assert numbers == numbers[:359] * 4 and len(set(numbers)) == 359
    assert len(set(found)) > 1400  # of 169 places four are seldom the same


def outside(images: Images) -> list[Pixels]:
    """What of each image lies outside its digit; the digit is 0."""
    rest = []
    for image in images.pixels[:][:300, 0].numpy():
        _, row, column = shown(image)
        left = image.copy()
        left[row : row + 16, column : column + 16] = 0
        rest.append(left)
    return rest


def test_displaced_digits__lie_among_five_fragments_of_8_by_8(raw: RawData) -> None:
    rest = outside(raw.train)
    drawn = [int((image > 0).sum()) for image in rest]
    assert max(drawn) <= 5 * 64 and 60 < np.mean(drawn) < 160  # half of a fragment is ink, and half is covered
    assert sum(count == 0 for count in drawn) < 10
    borders = np.stack(rest)
    assert all(side.any() for side in (borders[:, 0], borders[:, -1], borders[:, :, 0], borders[:, :, -1]))
