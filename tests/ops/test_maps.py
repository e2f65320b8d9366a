"""The maps of all atoms, from those that are trained."""

import pytest
import torch

from layerwise import ops
from layerwise.ops.rows import aligned


def test_unfolded__undoes_mean_and_factors__and_adds_mirror_images() -> None:
    weight, bias = torch.tensor([[2.0], [3.0]]), torch.tensor([1.0])
    factors, mean = torch.tensor([0.5, 0.5]), torch.tensor([4.0, 2.0])
    alone = ops.unfolded(weight, bias, factors, mean, None)
    assert alone.tolist() == [[1], [1.5], [1 - 4 - 3]]
    both = ops.unfolded(weight, bias, factors, mean, torch.tensor([1, 0]))
    assert both.T.tolist() == [[1, 1.5, -6], [1.5, 1, 1 - 6 - 2]]


@pytest.mark.parametrize("count", [1, 64, 65, 200])
@pytest.mark.parametrize("mirrored", [False, True])
def test_unfolded__and_its_gradient__are_those_of_plain_torch(
    count: int, mirrored: bool, generator: torch.Generator
) -> None:
    size = 37  # numbers of a patch
    order = torch.arange(size).flip(0) if mirrored else None
    factors, mean = torch.rand(size, generator=generator) + 0.5, torch.randn(size, generator=generator)
    if mirrored:
        factors = factors + factors.flip(0)
    weight, bias = torch.randn(size, count, generator=generator), torch.randn(count, generator=generator)
    gradient = torch.randn(size + 1, 2 * count if mirrored else count, generator=generator)

    def at(dtype: torch.dtype) -> list[torch.Tensor]:
        own, offset = (one.to(dtype, copy=True).requires_grad_() for one in (weight, bias))
        maps = ops.unfolded(own, offset, factors.to(dtype), mean.to(dtype), order)
        return [maps.detach(), *torch.autograd.grad(maps, [own, offset], gradient.to(dtype))]

    for found, expected in zip(at(torch.float32), at(torch.float64), strict=True):
        torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)


def test_aligned__takes_maps_as_they_are__unless_something_else_lies_behind() -> None:
    rows = torch.zeros(3, 16)
    rows[:, :5] = torch.arange(15.0).view(3, 5)
    maps = rows[:, :5].T
    assert aligned(maps).__array_interface__["data"][0] == rows.data_ptr()
    rows[1, 9] = torch.nan
    copied = aligned(maps)
    assert copied.tolist() == [[*row, *[0] * 11] for row in torch.arange(15.0).view(3, 5).tolist()]
    assert aligned(torch.arange(6.0).view(2, 3)).shape == (3, 16)
