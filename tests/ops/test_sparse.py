"""Embeddings without their zeros: the same numbers as `embed`, forward and backward, and the same bits every time."""

import pytest
import torch
from torch import Tensor

from layerwise import ops
from layerwise.ops import reference
from layerwise.ops.sparse import combine

CASES = [  # channels, side, patch, atoms, neighbors, window
    (16, 8, 3, 160, 5, 2),
    (5, 7, 2, 130, 3, 2),  # windows that cover a part, runs of no whole vectors
    (3, 9, 1, 200, 1, 3),
    (2, 6, 3, 64, 3, 1),
    (1, 10, 3, 300, 2, 4),
]


def made(channels: int, side: int, patch: int, atoms: int) -> tuple[Tensor, Tensor, Tensor]:
    """Images, scorer, maps."""
    torch.manual_seed(0)
    numbers = patch * patch * channels + 1
    return torch.randn(6, channels, side, side + 1), torch.randn(numbers, atoms), torch.randn(numbers, atoms)


def dense(values: Tensor, which: Tensor, atoms: int) -> Tensor:
    """(B, h', w', M) as (B, N, h', w')."""
    room = values.new_zeros(*values.shape[:3], atoms)
    return room.scatter_add(3, which.long(), values).permute(0, 3, 1, 2)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("known", [False, True])
def test_gather__is_embed_without_zeros(case: tuple[int, ...], known: bool) -> None:
    channels, side, patch, atoms, neighbors, pool = case
    x, scorer, maps = made(channels, side, patch, atoms)
    near = ops.near(x, scorer, patch, neighbors) if known else None
    assert ops.gathers(x, atoms, neighbors, pool)
    values, which = ops.gather(x, scorer, maps.requires_grad_(), patch, neighbors, pool, near)
    assert values.shape[3] == neighbors * pool * pool and which.dtype == torch.int32
    exact = maps.detach().double().requires_grad_()
    expected = reference.embed(x.double(), scorer.double(), exact, patch, neighbors, pool)
    found = dense(values, which, atoms)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)

    weight = torch.randn(expected.shape, dtype=torch.float64)
    (wanted,) = torch.autograd.grad((expected * weight).sum(), exact)
    (gradient,) = torch.autograd.grad((found * weight.float()).sum(), maps)
    torch.testing.assert_close(gradient.double(), wanted, rtol=1e-4, atol=1e-4)


def test_gather__is_for_few_near_atoms_alone() -> None:
    x = torch.randn(1, 3, 8, 8)
    assert ops.gathers(x, 128, 4, 2)  # 16 may be near to a window, an eighth of all
    assert not ops.gathers(x, 127, 4, 2)
    assert not ops.gathers(x.double(), 128, 4, 2)  # in plain torch


def test_gathered_gradient__of_more_images_than_are_gone_through_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    x, scorer, maps = made(4, 8, 3, 128)
    maps.requires_grad_()

    def gradient() -> Tensor:
        return torch.autograd.grad(ops.gather(x, scorer, maps, 3, 3, 2)[0].square().sum(), maps)[0]

    whole = gradient()
    monkeypatch.setattr("layerwise.ops.sparse.TOGETHER", 2 * x[0].numel())
    torch.testing.assert_close(gradient(), whole, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("width", [1, 16, 37])
def test_combine__is_a_product_with_the_dense_embedding(width: int) -> None:
    torch.manual_seed(1)
    which = torch.randint(0, 50, (21, 7), dtype=torch.int32)  # an atom may be named twice
    values, weight = torch.randn(21, 7, requires_grad=True), torch.randn(50, width, requires_grad=True)
    wanted = torch.zeros(21, 50).scatter_add(1, which.long(), values) @ weight
    out = combine(values, which, weight)
    torch.testing.assert_close(out, wanted)
    factor = torch.randn(21, width)
    found, expected = (torch.autograd.grad((y * factor).sum(), (values, weight)) for y in (out, wanted))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
