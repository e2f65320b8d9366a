"""Products with atoms in pairs, by halves."""

import pytest
import torch
from torch import Tensor

from layerwise import ops
from layerwise.nn.kmeans import nearest
from layerwise.nn.mirror import Mirror, exchanged, patch_mirror
from layerwise.ops import pairs, reference
from layerwise.ops.near import mask_of
from layerwise.ops.pairs import halves


@pytest.fixture(autouse=True)
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """However short a patch is."""
    monkeypatch.setattr(pairs, "LONG", 0)


def test_halves__of_three_numbers_of_which_two_are_exchanged_and_one_changes_its_sign() -> None:
    even, odd = halves(torch.tensor([1, 0, 2]), torch.tensor([1.0, 1.0, -1.0]))
    row, weight = torch.tensor([[5.0, 3.0, 7.0]]), torch.tensor([[2.0, 4.0, 6.0]])
    assert even.of(row).tolist() == [[8]] and odd.of(row).tolist() == [[2, 7]]
    assert even.weights(weight).tolist() == [[3]] and odd.weights(weight).tolist() == [[-1, 6]]
    assert 8 * 3 + (2 * -1 + 7 * 6) == 5 * 2 + 3 * 4 + 7 * 6  # the atom, and the mirrored one
    assert 8 * 3 - (2 * -1 + 7 * 6) == 5 * 4 + 3 * 2 - 7 * 6


def test_halves__of_float64_are_the_same__by_plain_torch(generator: torch.Generator) -> None:
    order, rows = patch_mirror(3, 5, False), torch.randn(9, 80, generator=generator)  # five numbers more than a patch
    for half in halves(order):
        torch.testing.assert_close(half.of(rows.double()).float(), half.of(rows))
    assert [len(half.left) for half in halves(order)] == [45, 30]  # the middle column is even


def scorer_of(atoms: Tensor, order: Tensor) -> Tensor:
    whole = torch.cat([atoms, atoms[:, order]])
    return torch.cat([-whole.T, whole.square().sum(1)[None] / 2])


@pytest.mark.parametrize("neighbors", [1, 7, 40, 119, 120])
@pytest.mark.parametrize("paired", [False, True])
def test_near__is_that_of_float64(neighbors: int, paired: bool, generator: torch.Generator) -> None:
    x, order = torch.randn(3, 4, 7, 6, generator=generator) + 1, patch_mirror(4, 3, paired)
    scorer = scorer_of(torch.randn(60, 36, generator=generator), order)
    found = mask_of(ops.near(x, scorer, 3, neighbors, order), 120)
    scores = reference.affine(reference.extract_patches(x.double(), 3), scorer.double())
    assert torch.equal(found, reference.nearest_mask(scores, neighbors))
    maps = torch.randn(37, 120, generator=generator)
    near = ops.near(x, scorer, 3, neighbors, order)
    assert torch.equal(ops.embed(x, scorer, maps, 3, neighbors, 2, near), ops.embed(x, scorer, maps, 3, neighbors, 2))
    if ops.gathers(x, 120, neighbors, 2):
        gathered = ops.gather(x, scorer, maps, 3, neighbors, 2, near)
        assert torch.equal(gathered[0], ops.gather(x, scorer, maps, 3, neighbors, 2)[0])


def test_near__of_atoms_that_are_their_own_mirror_images__is_the_first(generator: torch.Generator) -> None:
    order = patch_mirror(2, 3, True)
    atoms = torch.randn(5, 18, generator=generator)
    scorer = scorer_of(atoms + atoms[:, order], order)
    near = mask_of(ops.near(torch.randn(2, 2, 5, 5, generator=generator), scorer, 3, 1, order), 10)
    assert near[..., :5].sum(-1).eq(1).all()


def test_nearest__with_mirror_images__is_that_of_all(
    generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("layerwise.nn.kmeans.ROWS", 16)
    monkeypatch.setattr("layerwise.nn.kmeans.NUMBERS", 160)  # 16 rows and 10 columns at a time
    order = torch.tensor([1, 0, 2, 3])
    mirror = Mirror(order, torch.tensor([-1.0, -1.0, 1.0, -1.0]))
    points, centroids = torch.randn(50, 4, generator=generator), torch.randn(25, 4, generator=generator)
    index, distance = nearest(points, centroids, mirror)
    expected = torch.cdist(points.double(), mirror.closed(centroids).double()).min(1)
    assert torch.equal(index, expected.indices)
    torch.testing.assert_close(distance.sqrt(), expected.values.float(), rtol=1e-5, atol=1e-5)
    assert torch.equal(exchanged(torch.arange(50), 0)[index], nearest(mirror(points), centroids, mirror)[0])
