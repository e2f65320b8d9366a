from collections.abc import Iterable, Iterator

import pytest
import torch
from sklearn.cluster import KMeans

from layerwise.nn.kmeans import _drawn, _rounds, at_random, begin, kmeans, nearest, spread


def inertia(points: torch.Tensor, centroids: torch.Tensor) -> float:
    return float(torch.cdist(points.double(), centroids.double()).min(1).values.square().mean())


def test_nearest__agrees_with_brute_force(generator: torch.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("layerwise.nn.kmeans.ROWS", 30)
    monkeypatch.setattr("layerwise.nn.kmeans.NUMBERS", 100)  # many chunks, of 3 centroids, the last ones not full
    points, centroids = torch.randn(99, 5, generator=generator), torch.randn(7, 5, generator=generator)
    index, distance = nearest(points, centroids)
    brute = torch.cdist(points, centroids).square()
    assert torch.equal(index, brute.argmin(1))
    torch.testing.assert_close(distance, brute.min(1).values, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("together", [1, 2, 3, 1000])
def test_nearest__takes_the_first_of_equals(together: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("layerwise.nn.kmeans.ROWS", 1)
    monkeypatch.setattr("layerwise.nn.kmeans.NUMBERS", together)
    centroids = torch.tensor([[2.0], [1.0], [-1.0], [1.0], [2.0]])
    assert nearest(torch.zeros(2, 1), centroids)[0].tolist() == [1, 1]


@pytest.mark.parametrize("clustered", [True, False])
def test_kmeans__is_as_good_as_scikit_learn(clustered: bool, generator: torch.Generator) -> None:
    points = torch.randn(8000, 10, generator=generator)
    if clustered:
        points = points * 0.1 + torch.randn(50, 10, generator=generator).repeat_interleave(160, 0)
    ours = [inertia(points, kmeans(points, 50, 100, generator, tolerance=0)) for _ in range(3)]
    theirs = [KMeans(50, n_init=1, random_state=seed).fit(points.numpy()).inertia_ / 8000 for seed in range(3)]
    assert min(ours) <= min(theirs) * 1.01


def test_kmeans__finds_separate_points_exactly(generator: torch.Generator) -> None:
    places = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0], [10.0, 10.0]])
    centroids = kmeans(places.repeat(50, 1), 4, 10, generator)
    assert sorted(centroids.tolist()) == sorted(places.tolist())


def test_kmeans__starts_an_empty_cluster_anew(generator: torch.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    points = torch.cat([torch.zeros(100, 2), torch.full((10, 2), 50.0)])
    start = torch.tensor([[0.0, 0.0], [1000.0, 1000.0]])  # nothing is near the second
    monkeypatch.setattr("layerwise.nn.kmeans.begin", lambda *_: start)
    centroids = kmeans(points, 2, 10, generator)
    torch.testing.assert_close(centroids, torch.tensor([[0.0, 0.0], [50.0, 50.0]]))


def test_kmeans__starts_an_empty_cluster_by_its_own_generator(generator: torch.Generator) -> None:
    points = torch.randn(40, 2, generator=generator)
    far = torch.tensor([[0.0, 0.0], [99.0, 99.0], [-99.0, 99.0]])
    found = []
    for seed in (1, 2):
        torch.manual_seed(seed)  # of others
        found.append(_rounds(points, far, 1, 0.0, torch.Generator().manual_seed(5), iter))
    assert torch.equal(*found) and found[0].abs().max() < 9


def test_kmeans__finds_every_one_of_separate_clusters(generator: torch.Generator) -> None:
    places = 100 * torch.randn(64, 8, generator=generator)
    points = places.repeat_interleave(200, 0) + torch.randn(12_800, 8, generator=generator)
    assert inertia(points, kmeans(points, 64, 25, generator)) < 1.1 * 8


def test_kmeans__wastes_few_centroids_on_outliers(generator: torch.Generator) -> None:
    points = torch.randn(20_000, 20, generator=generator)
    points /= torch.randn(20_000, 6, generator=generator).square().mean(1, keepdim=True).sqrt()  # Student's t
    centroids = kmeans(points, 100, 25, generator)
    sizes = torch.bincount(nearest(points, centroids)[0], minlength=100)
    assert int((sizes < 20).sum()) < 25
    assert (
        inertia(points, centroids) <= KMeans(100, n_init=1, random_state=0).fit(points.numpy()).inertia_ / 20_000 * 1.01
    )


def test_at_random__takes_different_points_where_it_can(generator: torch.Generator) -> None:
    points = torch.cat([torch.zeros(300, 2), torch.arange(100.0)[:, None].expand(100, 2)])
    drawn = at_random(points, 20, generator)
    assert len({tuple(row) for row in drawn.tolist()}) == 20
    assert at_random(torch.zeros(9, 2), 5, generator).shape == (5, 2)


def test_kmeans__of_fewer_distinct_points_than_centroids_ends(generator: torch.Generator) -> None:
    centroids = kmeans(torch.tensor([[1.0], [2.0]]).repeat(10, 1), 5, 10, generator)
    assert centroids.shape == (5, 1)
    assert {1.0, 2.0} <= set(centroids.flatten().tolist())


def test_kmeans__is_the_same_with_the_same_seed(generator: torch.Generator) -> None:
    points = torch.randn(500, 4, generator=generator)
    first, second = (kmeans(points, 10, 20, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, second)


def test_drawn__is_in_proportion_to_the_mass() -> None:
    mass, draws = torch.tensor([0.0, 1.0, 0.0, 3.0, 0.0]), torch.tensor([0.0, 0.2499, 0.25, 0.999]).double()
    assert _drawn(mass, draws).tolist() == [1, 1, 3, 3]
    assert _drawn(torch.zeros(5), draws).tolist() == [4] * 4  # nowhere is as good as anywhere


def test_kmeans__of_too_many_centroids_to_seek_a_start_begins_at_random(
    generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("layerwise.nn.kmeans.SUBSET", 79)
    points, state = torch.randn(1000, 3, generator=generator), generator.get_state()
    found = begin(points, 20, generator)
    assert torch.equal(found, at_random(points, 20, generator.set_state(state)))
    assert len(begin(points, 19, generator)) == 19


def test_spread__takes_far_points_one_after_another(generator: torch.Generator) -> None:
    points = torch.tensor([[0.0, 0.0], [0.1, 0.0], [100.0, 0.0], [100.1, 0.0], [0.0, 300.0], [0.1, 300.0]])
    for _ in range(20):
        chosen = spread(points, 3, generator)
        assert torch.equal(chosen[0], points[0]) and {int(row.round().sum()) for row in chosen} == {0, 100, 300}
    # with two places for three clusters, the one is taken that leaves the least: the third, far from both
    assert {int(spread(points, 2, generator)[1].round().sum()) for _ in range(20)} == {300}


@pytest.mark.parametrize("tolerance", [0.0, 1e-3, 0.02, 1e9])
def test_rounds__are_lloyd_s__and_end_once_the_inertia_hardly_falls(
    tolerance: float, generator: torch.Generator
) -> None:
    points, start = torch.randn(500, 3, generator=generator), torch.randn(8, 3, generator=generator)
    expected, inertias = start.double(), [torch.inf]
    while True:
        squares = (points.double()[:, None] - expected).square().sum(2)
        inertias.append(float(squares.min(1).values.mean()))
        if inertias[-2] - inertias[-1] <= tolerance * inertias[-1]:
            break
        nearest_one = squares.argmin(1)
        expected = torch.stack([points[nearest_one == j].double().mean(0) for j in range(8)])
    seen: list[int] = []

    def counted(steps: Iterable[int]) -> Iterator[int]:
        for step in steps:
            seen.append(step)
            yield step

    found = _rounds(points, start, 100, tolerance, generator, counted)
    assert len(seen) == len(inertias) - 1 and 1 < len(seen) < 100
    torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=1e-5)
