"""Dictionaries: where atoms come from, and what they are near to."""

from collections.abc import Iterable, Iterator

import pytest
import torch
import torch.nn.functional as F

from layerwise.config import Whitening
from layerwise.config.choices import DICTIONARIES
from layerwise.nn.dictionary import PatchDictionary, learn_dictionary
from layerwise.nn.kmeans import kmeans
from layerwise.ops import affine
from tests.conftest import growth


def test_gaussian_and_uniform_atoms__have_mean_0_and_variance_1(generator: torch.Generator) -> None:
    patches = torch.randn(100, 50, generator=generator)
    for kind in ("gaussian", "uniform"):
        atoms = DICTIONARIES[kind](patches, 400, generator, iter)
        assert atoms.shape == (400, 50)
        assert abs(float(atoms.mean())) < 0.03
        assert abs(float(atoms.var()) - 1) < 0.03


def test_clustered_gaussian_atoms__know_nothing_of_the_data__and_are_shorter(generator: torch.Generator) -> None:
    patches = 1000 + torch.randn(2000, 20, generator=generator)
    atoms = DICTIONARIES["kmeans_gaussian"](patches, 10, generator, iter)
    assert atoms.shape == (10, 20)
    assert 0.5 < float(atoms.norm(dim=1).mean()) < 0.5 * 20**0.5


def test_clustered_gaussian_atoms__are_of_as_many_numbers_as_gaussian_ones_would_be_drawn_from() -> None:
    atoms = DICTIONARIES["kmeans_gaussian"](torch.zeros(500, 3), 10, torch.Generator().manual_seed(4), iter)
    generator = torch.Generator().manual_seed(4)
    assert torch.equal(atoms, kmeans(torch.randn(500, 3, generator=generator), 10, 25, generator))


def test_sampled_atoms__are_patches(generator: torch.Generator) -> None:
    patches = torch.randn(30, 4, generator=generator)
    atoms = DICTIONARIES["sampled"](patches, 10, generator, iter)
    assert {tuple(row) for row in atoms.tolist()} < {tuple(row) for row in patches.tolist()}
    assert len({tuple(row) for row in atoms.tolist()}) == 10


def test_plus_minus__is_patches_of_unit_norm_and_their_negatives(generator: torch.Generator) -> None:
    patches = torch.randn(50, 6, generator=generator)
    atoms = DICTIONARIES["plus_minus"](patches, 10, generator, iter)
    assert torch.equal(atoms[5:], -atoms[:5])
    along = atoms[:5] @ (patches / patches.square().sum(1, keepdim=True).sqrt()).T
    torch.testing.assert_close(along.max(1).values, torch.ones(5))
    assert len(set(along.argmax(1).tolist())) == 5
    assert len(DICTIONARIES["plus_minus"](patches, 7, generator, iter)) == 7


def test_kmeans_atoms__are_centroids_after_at_most_25_rounds__and_show_their_progress() -> None:
    patches = torch.randn(2000, 5, generator=torch.Generator().manual_seed(3))
    rounds: list[int] = []

    def counted(steps: Iterable[int]) -> Iterator[int]:
        for step in steps:
            rounds.append(step)
            yield step

    atoms = DICTIONARIES["kmeans"](patches, 20, torch.Generator().manual_seed(1), counted)
    assert torch.equal(atoms, kmeans(patches, 20, 25, torch.Generator().manual_seed(1)))
    assert rounds == list(range(len(rounds))) and 1 < len(rounds) <= 25


@pytest.mark.parametrize("kind", DICTIONARIES)
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_learn_dictionary__atoms_are_whitened_patches__of_unit_norm_for_cosine(kind: str, metric: str) -> None:
    generator = torch.Generator().manual_seed(0)
    patches = torch.randn(400, 6, generator=generator) @ torch.randn(6, 6, generator=generator) + 2
    overwritten = patches.clone()
    dictionary = learn_dictionary(overwritten, 12, generator, kind, metric=metric)
    assert dictionary.atoms.shape == (12, 6)
    if metric == "cosine":
        torch.testing.assert_close(dictionary.atoms.norm(dim=1), torch.ones(12))
    whitened = dictionary.whiten(patches)
    points = F.normalize(whitened, dim=1) if metric == "cosine" else whitened
    if kind != "kmeans_gaussian":
        torch.testing.assert_close(overwritten, points)
    if kind == "sampled":
        away = (dictionary.atoms[:, None] - points).norm(dim=2).min(1).values
        torch.testing.assert_close(away, torch.zeros(12), atol=1e-5, rtol=0)


def test_learn_dictionary__whitens_as_it_is_told(generator: torch.Generator) -> None:
    patches = torch.tensor([[5.0, 1.0], [-1.0, 1.0], [2.0, 2.0], [2.0, 0.0]])  # variances 9/2 and 1/2
    scale = 1 / (torch.tensor([4.5, 0.5]).sqrt() + 0.5)
    settings = Whitening(formula="deviation", epsilon=0.5, center=False)
    dictionary = learn_dictionary(patches.clone(), 4, generator, "sampled", settings)
    assert dictionary.mean.tolist() == [0, 0]
    torch.testing.assert_close(dictionary.whitening, torch.diag(scale))
    torch.testing.assert_close(dictionary.atoms.sort(0).values, (patches * scale).sort(0).values)
    with pytest.raises(ValueError, match="zero covariance"):
        learn_dictionary(torch.full((10, 4), 0.3), 2, generator)


def test_components__are_of_the_data__though_atoms_are_of_noise(generator: torch.Generator) -> None:
    """What they tell of patches varies as patches do, in the mean: of noise it would vary otherwise."""
    centers = torch.tensor([[4.0, 0, 0], [0, 4, 0], [0, 0, 4], [-2, -3, -5]])
    patches = centers.repeat(500, 1) + torch.randn(2000, 3, generator=generator) / 1000
    dictionary = learn_dictionary(patches.clone(), 12, generator, "kmeans_gaussian", neighbors=4, components=3)
    near = dictionary.distance(patches).topk(4, largest=False).indices
    gates = torch.zeros(2000, 12).scatter_(1, near, 1)
    assert dictionary.components is not None and len({*map(tuple, gates.tolist())}) == 4
    told = gates @ dictionary.components
    assert float(told.var(0).mean()) == pytest.approx(float(patches.var(0).mean()), rel=1e-3)


@pytest.mark.parametrize("kind, metric", [("kmeans", "cosine"), ("kmeans_gaussian", "euclidean")])
def test_learn_dictionary__takes_little_beside_the_sample(
    kind: str, metric: str, generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("layerwise.nn.dictionary.ITERATIONS", 2)
    monkeypatch.setattr("layerwise.ops.bounded.NUMBERS", 1 << 18)
    learn_dictionary(torch.randn(100, 75), 16, generator, kind, metric=metric)  # loads what is compiled
    patches = torch.randn(700_000, 75, generator=generator)
    taken = growth(lambda: learn_dictionary(patches, 16, generator, kind, metric=metric))
    assert taken < patches.nbytes / 2 == 105e6


def test_distance__is_half_the_squared_one__and_patterns_undo_the_whitening(generator: torch.Generator) -> None:
    patches = torch.randn(300, 6, generator=generator, dtype=torch.float64)
    patches = patches @ torch.randn(6, 6, generator=generator, dtype=torch.float64) - 1
    dictionary = learn_dictionary(patches.clone(), 9, generator)
    whitened = dictionary.whiten(patches)
    expected = torch.cdist(whitened, dictionary.atoms).square() / 2
    torch.testing.assert_close(dictionary.distance(patches), expected)
    torch.testing.assert_close(dictionary.whiten(dictionary.patterns() + dictionary.mean), dictionary.atoms)
    at_atoms = dictionary.distance(dictionary.patterns() + dictionary.mean)
    assert at_atoms.min() >= 0 and at_atoms.diag().max() < 1e-10


@pytest.mark.parametrize("turns", [True, False])
def test_unwhiten__turns_maps_of_whitened_patches_into_maps_of_patches(turns: bool, generator: torch.Generator) -> None:
    mean, matrix, atoms = (torch.randn(*s, generator=generator).double() for s in ((4,), (4, 4), (3, 4)))
    dictionary = PatchDictionary(mean, matrix if turns else matrix.diagonal().diag(), atoms)
    weight, bias = torch.randn(4, 5, generator=generator).double(), torch.randn(5, generator=generator).double()
    patches = torch.randn(7, 4, generator=generator).double()
    expected = (patches - dictionary.mean) @ dictionary.whitening @ weight + bias
    torch.testing.assert_close(affine(patches, dictionary.unwhiten(weight, bias)), expected)


def test_a_dictionary_as_it_is_learned__lies_in_memory_as_one_that_is_read(generator: torch.Generator) -> None:
    learned = learn_dictionary(torch.randn(200, 12, generator=generator), 7, generator)
    read = PatchDictionary(
        *(part.clone(memory_format=torch.contiguous_format) for part in learned.state_dict().values())
    )
    for (name, one), (_, other) in zip(learned.named_buffers(), read.named_buffers(), strict=True):
        assert one.stride() == other.stride() and torch.equal(one, other), name
