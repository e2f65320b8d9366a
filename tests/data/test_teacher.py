"""The theorem's world, and the sweep over it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from layerwise.config import Data, SettingError, Teacher
from layerwise.data.images import to_input
from layerwise.data.sets.teacher import EXTENT, draw, separated
from layerwise.data.splits import load_data
from tests.conftest import Command

WORLD = Teacher(images=500, clusters=8, dimension=6, side=3)


def patches(pixels: torch.Tensor) -> torch.Tensor:
    return to_input(pixels).permute(0, 2, 3, 1).flatten(0, 2) / EXTENT


def test_draw__patches_lie_in_clusters() -> None:
    train, test = draw(WORLD)
    assert train.pixels.shape == (500, 6, 3, 3) and len(test) == 4000
    centers = separated(8, 6, torch.Generator().manual_seed(0))
    distance = torch.cdist(patches(train.pixels[:]), centers)
    assert distance.min(1).values.max() < WORLD.radius + 0.02  # pixels are whole numbers
    assert set(distance.argmin(1).tolist()) == set(range(8))
    apart = torch.cdist(centers, centers) + 9 * torch.eye(8)
    assert apart.min() > 0.8


def test_draw__more_images_begin_with_the_same() -> None:
    train, test = draw(WORLD)
    more, same = draw(replace(WORLD, images=800))
    assert torch.equal(more.pixels[:][:500], train.pixels[:]) and torch.equal(more.labels[:500], train.labels)
    assert torch.equal(same.pixels[:], test.pixels[:])
    other, _ = draw(replace(WORLD, seed=1))
    assert not torch.equal(other.pixels[:], train.pixels[:])


def test_draw__no_image_is_drawn_twice__for_training_test_or_another_seed() -> None:
    drawn = [images for seed in range(3) for images in draw(replace(WORLD, seed=seed))]
    content = [image.numpy().tobytes() for images in drawn for image in images.pixels[:]]
    assert len(set(content)) == len(content) == 3 * 4500


def test_draw__both_classes_are_about_as_frequent__and_not_seen_in_a_pixel() -> None:
    train, test = draw(replace(WORLD, images=4000))
    assert 0.35 < float(train.labels.double().mean()) < 0.65
    means = [to_input(test.pixels[test.labels == label]).mean() for label in (0, 1)]
    assert abs(float(means[0] - means[1])) < 0.1


def test_draw__without_clusters_patches_have_every_direction() -> None:
    train, _ = draw(replace(WORLD, clusters=0))
    points = patches(train.pixels[:])
    torch.testing.assert_close(points.norm(dim=1), torch.ones(len(points)), atol=0.03, rtol=0)
    assert points.mean(0).abs().max() < 0.05


def test_draw__images_that_are_all_the_same_are_refused() -> None:
    with pytest.raises(SettingError, match="hardly be told apart"):
        draw(replace(WORLD, clusters=1, radius=0.0))


def test_teacher__is_a_data_set_of_two_classes_that_are_not_mirrored() -> None:
    data, (train, test) = load_data(Data(name="teacher", teacher=WORLD), 0), draw(WORLD)
    assert data.classes == ["low", "high"] and data.shape == (6, 3, 3)
    assert (len(data.train), len(data.val), len(data.test)) == (450, 50, 4000)
    assert torch.equal(data.test.pixels[:], test.pixels[:]) and torch.equal(data.test.labels, test.labels)
    assert sorted([*data.train.labels.tolist(), *data.val.labels.tolist()]) == sorted(train.labels.tolist())
    assert not data.augmentation.changes


@pytest.mark.parametrize("clusters", [0, 8])
def test_draw__labels_are_a_rectified_network_s__above_its_median(clusters: int) -> None:
    world = replace(WORLD, clusters=clusters, hidden=5)
    train, test = draw(world)
    # the network, by what is documented: after the centers, hidden units of norm 1, then outputs, by one generator
    generator = torch.Generator().manual_seed(world.seed)
    if clusters:
        separated(clusters, 6, generator)
    hidden = torch.randn(5, 6, generator=generator)
    hidden /= hidden.norm(dim=1, keepdim=True)
    output = torch.randn(5, 9, generator=generator)
    for images in (train, test):
        units = patches(images.pixels[:]).reshape(-1, 9, 6) @ hidden.T  # (n, positions, units)
        score = (units.clamp(min=0) * output.T).sum((1, 2))
        low, high = score[images.labels == 0], score[images.labels == 1]
        assert low.max() < high.min()  # images nearer than a tenth of a deviation to the threshold are not drawn
        assert 0.1 < float((high.min() - low.max()) / score.std()) < 0.25
        assert float(images.labels.double().mean()) == pytest.approx(0.5, abs=0.06)


@pytest.mark.slow
def test_theorem__sweeps_samples_and_atoms(command: Command, tmp_path: Path) -> None:
    done = command("theorem", "--quick", "--json=out.json")
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "out.json").read_text())
    assert [(row["panel"], row["learner"]) for row in rows] == [
        (panel, learner)
        for panel in ("clustered", "unclustered")
        for learner in ("N = N0/4", "N = N0", "N = 4 N0", "vanilla CNN")
    ]
    assert all(0 < error < 0.6 for row in rows for error in row["error"])
    assert (tmp_path / "runs/theorem-quick/theorem.png").stat().st_size > 5000
    assert "test error in %" in done.stdout and "epoch" not in done.stdout
