import pytest
import torch

from layerwise.config.choices import PIXELS
from layerwise.data import rows
from layerwise.data.images import Images, to_input
from layerwise.data.rows import allocate


def test_pixels__range_from_minus_1_to_1__or_from_0() -> None:
    pixels = torch.tensor([0, 51, 255], dtype=torch.uint8)
    assert PIXELS["input"] is to_input
    torch.testing.assert_close(to_input(pixels), torch.tensor([-1.0, -0.6, 1.0]))
    torch.testing.assert_close(PIXELS["unit"](pixels), torch.tensor([0.0, 0.2, 1.0]))
    assert to_input(pixels[[0, 2]]).tolist() == [-1.0, 1.0]


def test_subset__holds_pixels_and_labels_together() -> None:
    number = torch.arange(3000)
    some = Images((number % 251).byte()[:, None, None, None].expand(-1, 2, 3, 4), number)
    index = torch.randperm(3000)[:2500]  # more than are copied at a time
    subset = some.subset(index)
    assert subset.shape == some.shape == (2, 3, 4) and len(subset) == 2500
    assert torch.equal(subset.labels, index)
    assert torch.equal(subset.pixels[:], some.pixels[:][index])


def test_subset__of_images_in_a_file__is_no_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "HELD", 0)
    pixels = allocate((40, 2, 3, 4))
    pixels[:] = torch.arange(40).byte()[:, None, None, None].expand(-1, 2, 3, 4)
    some = Images(pixels, torch.arange(40), [f"{i}" for i in range(40)]).subset(torch.tensor([31, 4, 5]))
    again = some.subset(torch.tensor([2, 0]))
    assert again.names == ["5", "31"] and again.labels.tolist() == [5, 31] and again.shape == (2, 3, 4)
    pixels[5] = torch.full((2, 3, 4), 77)
    assert again.pixels[:].amax((1, 2, 3)).tolist() == again.pixels[:].amin((1, 2, 3)).tolist() == [77, 31]
    assert [len(part) for part in some.parts(2)] == [2, 1]
