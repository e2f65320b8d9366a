"""The first pass in half the precision leaves the gates exactly as they are."""

import pytest
import torch
from torch import Tensor

from layerwise import ops
from layerwise.ops import prefilter, reference
from layerwise.ops.near import mask_of


@pytest.fixture(autouse=True)
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the processor, and however short a patch is."""
    monkeypatch.setattr(prefilter, "pays", lambda patch: True)


def found(x: Tensor, scorer: Tensor, neighbors: int) -> Tensor:
    return mask_of(ops.near(x, scorer, 3, neighbors), scorer.shape[1])


def wanted(x: Tensor, scorer: Tensor, neighbors: int) -> Tensor:
    """By brute force in float64."""
    scores = reference.affine(reference.extract_patches(x.double(), 3), scorer.double())
    return reference.nearest_mask(scores, neighbors)


@pytest.mark.parametrize("neighbors", [1, 2, 16, 150, 299, 300])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_gates__are_those_of_float64(neighbors: int, scale: float, generator: torch.Generator) -> None:
    x = scale * (torch.randn(3, 16, 7, 6, generator=generator) + 2)
    atoms = torch.randn(300, 144, generator=generator) * torch.rand(300, 1, generator=generator) * 2 * scale
    scorer = torch.cat([-atoms.T, atoms.square().sum(1)[None] / 2])
    assert torch.equal(found(x, scorer, neighbors), wanted(x, scorer, neighbors))


def test_of_atoms_that_are_the_same__those_of_lowest_index_are_near(generator: torch.Generator) -> None:
    x = torch.randn(2, 16, 5, 5, generator=generator)
    atoms = torch.randn(40, 144, generator=generator).repeat(4, 1)
    scorer = torch.cat([-atoms.T, atoms.square().sum(1)[None] / 2])
    near = found(x, scorer, 10)  # each of 2 atoms four times, and of the third the first two
    assert near.sum(-1).eq(10).all()
    copies = near.view(*near.shape[:-1], 4, 40).int()
    assert (copies.diff(dim=-2) <= 0).all() and (
        copies.sum(-2).sort(-1).values[..., -3:] == torch.tensor([2, 4, 4])
    ).all()


def test_bounds__hold_what_rounding_does(generator: torch.Generator) -> None:
    for _ in range(20):
        z, w = (
            torch.randn(200, 577, generator=generator) * torch.rand(577, generator=generator) ** 4 for _ in range(2)
        )
        off = (z.bfloat16() @ w.bfloat16().T).double() - z.double() @ w.double().T
        limit = (prefilter.ROUNDED + prefilter.ADDED * 577) * z.double().norm(dim=1)[:, None] * w.double().norm(dim=1)
        assert (off.abs() <= limit).all()


def test_numbers_that_are_none__end_nothing(generator: torch.Generator) -> None:
    x = torch.randn(1, 16, 5, 5, generator=generator)
    x[0, 3, 2, 2] = torch.nan
    assert found(x, torch.randn(145, 200, generator=generator), 5).shape == (1, 3, 3, 200)


def test_pays__only_for_long_patches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert not prefilter.pays(75)
