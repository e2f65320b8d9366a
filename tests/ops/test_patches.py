import pytest
import torch

from layerwise.ops import extract_patches, sample_patches
from tests.conftest import growth


def test_extract_patches__is_rows_then_columns_then_channels() -> None:
    x = torch.arange(2 * 3 * 4).reshape(1, 2, 3, 4)
    patches = extract_patches(x, 2)
    assert patches.shape == (1, 2, 3, 8)
    # pixels (1,1), (1,2), (2,1), (2,2), each with its two channels
    assert patches[0, 1, 1].tolist() == [5, 17, 6, 18, 9, 21, 10, 22]


def test_extract_patches__agrees_with_unfold(generator: torch.Generator) -> None:
    x = torch.randn(2, 3, 7, 6, generator=generator)
    expected = torch.nn.functional.unfold(x, 3).reshape(2, 3, 9, 5, 4).permute(0, 3, 4, 2, 1).flatten(3)
    assert torch.equal(extract_patches(x, 3), expected)


def test_sample_patches__draws_no_position_twice(generator: torch.Generator) -> None:
    x = torch.arange(2 * 16).reshape(2, 1, 4, 4).float()
    sample = sample_patches([x[:1], x[1:]], 3, 100, 2, generator)
    assert sample.shape == (8, 9)
    assert len({tuple(row) for row in sample.tolist()}) == 8


def test_sample_patches__takes_equally_many_of_each_image(generator: torch.Generator) -> None:
    x = torch.arange(5.0).reshape(5, 1, 1, 1).expand(5, 1, 8, 8)
    sample = sample_patches([x], 3, 50, 5, generator)
    assert torch.bincount(sample[:, 0].long()).tolist() == [10] * 5


def test_sample_patches__is_the_same_whatever_the_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.arange(7 * 2 * 36.0).reshape(7, 2, 6, 6)

    def sample(size: int) -> torch.Tensor:
        return sample_patches(torch.split(x, size), 3, 30, 7, torch.Generator().manual_seed(2))

    whole = sample(7)
    # five of each image, whose positions are drawn first; then their order
    again = torch.Generator().manual_seed(2)
    positions = torch.rand(7, 16, generator=again).argsort(1)[:, :5]
    order = torch.randperm(35, generator=again)[:30]
    patches = extract_patches(x, 3).flatten(1, 2)
    expected = torch.stack([patches[i, place] for i, row in enumerate(positions.tolist()) for place in row])[order]
    assert torch.equal(whole, expected)
    monkeypatch.setattr("layerwise.ops.reference.NUMBERS", 40)  # two images' positions at once
    assert torch.equal(sample(3), expected) and torch.equal(sample(1), expected)


def test_sample_patches__takes_little_beside_the_sample(generator: torch.Generator) -> None:
    x, samples = torch.rand(500, 3, 9, 9, generator=generator), list[torch.Tensor]()
    taken = growth(lambda: samples.append(sample_patches([x] * 100, 5, 700_000, 50_000, generator)))
    assert samples[0].nbytes == 210e6 and taken < 1.5 * 210e6
