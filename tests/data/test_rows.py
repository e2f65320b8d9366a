"""Numbers in a file are those of a tensor, by row; and take memory only while they are in hand."""

import os
import resource
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch

from layerwise.data import rows
from layerwise.data.rows import Rows, Stored, allocate, kept
from tests.conftest import growth


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.float32])
def test_stored__is_indexed_and_written_as_a_tensor_is(dtype: torch.dtype, generator: torch.Generator) -> None:
    expected = torch.randint(0, 256, (50, 3, 4), generator=generator).to(dtype)
    stored = Stored((50, 3, 4), dtype)
    stored[:30], stored[torch.arange(30, 50)] = expected[:30], expected[30:]
    for index in (
        slice(None), slice(7, 9), slice(48, 99), slice(5, 5), torch.tensor([3, 4, 5, 40, 2, 2, 49, 0]),
        torch.empty(0, dtype=torch.long), expected.flatten(1).sum(1) > 1500, torch.randperm(50, generator=generator),
    ):  # fmt: skip
        assert torch.equal(stored[index], expected[index]) and stored[index].dtype == dtype
    assert torch.equal(stored[17], expected[17]) and torch.equal(stored[-1], expected[-1])
    part = stored.at(torch.tensor([9, 3, 44])).at(slice(1, None))
    assert part.shape == (2, 3, 4) and torch.equal(part[:], expected[[3, 44]]) and torch.equal(part[1], expected[44])
    index = torch.tensor([8, 20, 7])
    stored[index], expected[index] = expected[:3].clone(), expected[:3].clone()
    stored[4], expected[4] = torch.tensor(9.0), 9
    assert torch.equal(stored[:], expected) and np.array_equal(np.asarray(stored), expected.numpy())
    assert np.array_equal(np.asarray(part), part[:].numpy())
    assert (stored.numel(), stored.itemsize, len(part)) == (600, dtype.itemsize, 2)


def test_kept__is_uncopied__and_in_order() -> None:
    values, stored = torch.arange(10), Stored((10,), torch.int64)
    stored[:] = values
    for held in (values, stored):
        for chosen in ([2, 3, 4], [0, 3, 9], []):
            assert kept(held, chosen)[:].tolist() == chosen
    assert kept(values, [2, 3]).data_ptr() == values[2:].data_ptr()  # type: ignore[union-attr]


def test_allocate__beyond_a_limit_or_a_quarter_of_memory__is_a_file_without_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(os, "sysconf", lambda name: 64)  # a machine of 4 KiB
    assert isinstance(allocate((256, 2), torch.float16), torch.Tensor)
    values = allocate((300, 2), torch.float16, 2)
    assert isinstance(values, Stored) and values.shape == (300, 2)
    assert not list(tmp_path.iterdir())
    if (opened := Path("/proc/self/fd")).exists():
        assert any(str(tmp_path) in (name := os.readlink(path)) and "(deleted)" in name for path in opened.iterdir())
    monkeypatch.setattr(rows, "HELD", 1000)
    assert isinstance(allocate((500, 1)), torch.Tensor) and isinstance(allocate((500, 1), count=3), Rows)


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


def test_stored__takes_memory_for_what_is_in_hand_alone() -> None:
    stored = Stored((4096, 1 << 15), torch.uint8)  # 128 MiB

    def passes() -> None:
        for start in range(0, 4096, 64):
            stored[start : start + 64] = torch.full((64, 1 << 15), start // 64)
        order = torch.randperm(4096)
        for start in range(0, 4096, 64):
            assert torch.equal(stored[order[start : start + 64]][:, 0], (order[start : start + 64] // 64).byte())

    assert growth(passes) < 1 << 26


def test_stored__a_file_that_cannot_be_written_whole_is_an_error(tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, limits[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            Stored((1 << 17,), torch.uint8)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
