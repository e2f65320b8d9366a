import torch

from layerwise.ops import extract_patches, sample_patches


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
