import os
import tempfile
from pathlib import Path

import pytest
import torch

from layerwise.config.choices import PIXELS
from layerwise.data.images import Images, allocate, to_input


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
    assert torch.equal(subset.pixels, some.pixels[index])


def test_allocate__beyond_a_quarter_of_memory__is_a_file_without_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(os, "sysconf", lambda name: 64)  # a machine of 4 KiB
    values = allocate((300, 2), torch.float16, 2)
    values[:] = torch.arange(300)[:, None]
    assert values.shape == (300, 2) and values[299].tolist() == [299, 299]
    assert not list(tmp_path.iterdir())
    mapped = Path("/proc/self/maps")
    if mapped.exists():
        assert any(str(tmp_path) in line and "(deleted)" in line for line in mapped.read_text().splitlines())


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="a system without it")
def test_allocate__fails_at_once_where_the_disk_is_too_small(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def full(file: int, offset: int, size: int) -> None:
        asked.append((offset, size))
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "sysconf", lambda name: 64)  # a machine of 4 KiB, a quarter of which is 1,024 bytes
    monkeypatch.setattr(os, "posix_fallocate", full)
    assert allocate((128, 2), torch.float16, 2).shape == (128, 2)
    for shape, count in (((128, 2), 3), ((257, 2), 1)):
        with pytest.raises(OSError, match="No space left"):
            allocate(shape, torch.float16, count)
    assert asked == [(0, 512), (0, 1028)]
