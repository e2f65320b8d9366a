"""Pictures of what was learned: which pixels go where."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import layerwise
from layerwise.config import Layer, Whitening
from layerwise.data.images import Images
from layerwise.nn.dictionary import PatchDictionary
from layerwise.nn.layer import build_layer
from layerwise.nn.stack import FrozenStack
from layerwise.nn.whitening import fit_whitening
from layerwise.parsing import parse
from layerwise.report.pictures import (
    answers_picture,
    as_picture,
    atoms_picture,
    chosen_atoms,
    field_of,
    grid,
    some_of_each,
    usage,
)
from layerwise.run.run import Run
from tests.conftest import SMALL as TINY
from tests.nn.layers import SMALL, make_layer


def test_grid__puts_tiles_in_rows_with_gaps_that_are_transparent() -> None:
    tiles = torch.arange(5, dtype=torch.uint8)[:, None, None, None].expand(5, 2, 2, 3) + 100
    picture = grid(tiles, 3, width=6)  # too narrow to enlarge them
    assert picture.shape == (2 + 2 * 4, 2 + 3 * 4, 4)
    assert picture[2:4, 2:4, :3].tolist() == [[[100] * 3] * 2] * 2 and (picture[2:4, 2:4, 3] == 255).all()
    assert (picture[2:4, 6:8, :3] == 101).all() and (picture[6:8, 6:8, :3] == 104).all()
    assert int(picture[..., 3].sum()) == 255 * 5 * 4 and (picture[6:8, 10:12] == 0).all()
    assert grid(tiles, 3, width=18).shape == (2 + 2 * 8, 2 + 3 * 8, 4)
    grouped = grid(tiles, 4, width=8, group=2)
    assert (grouped[2, :, 3] > 0).nonzero()[0].tolist() == [8, 9, 12, 13, 22, 23, 26, 27]


def test_atoms_picture__shows_each_atom_at_its_own_contrast() -> None:
    patches = torch.tensor([[0.0, 0, 0, 1], [2, -2, 0, 0]])  # of 2×2 gray pixels
    picture = atoms_picture(patches, 1, width=4)
    assert picture[2:4, 2:4, 0].tolist() == [[128, 128], [128, 255]]
    assert picture[2:4, 6:8, 0].tolist() == [[255, 0], [128, 128]]


def test_atoms_picture__of_many_channels__shows_the_directions_that_differ_most() -> None:
    patches = torch.zeros(4, 5)  # of 1×1 pixel with five channels, of which one varies
    patches[:, 3] = torch.tensor([1.0, -1, 1, -1])
    red = atoms_picture(patches, 5, width=2)[..., 0]
    assert red[2, 2] in (0, 255) and red[2, 2] == red[5, 2] and red[2, 5] == red[5, 5] == 255 - red[2, 2]


def test_whitened__are_the_atoms_in_pixels_whatever_rotation_the_whitening_has() -> None:
    patches = torch.randn(500, 6) @ torch.randn(6, 6)
    turned = torch.linalg.qr(torch.randn(6, 6))[0]
    whiten = fit_whitening(patches, 0.01, Whitening().kind)
    points = whiten(patches[:3])
    plain = PatchDictionary(whiten.mean, whiten.matrix, points).whitened()
    rotated = PatchDictionary(whiten.mean, whiten.matrix @ turned, points @ turned).whitened()
    assert torch.allclose(plain, rotated, atol=1e-4)
    # the symmetric root of the inverse covariance needs no turning back
    covariance = torch.cov(patches.double().T)
    values, vectors = torch.linalg.eigh(covariance + 0.01 * covariance.diag().mean() * torch.eye(6))
    root = (vectors @ torch.diag(values**-0.5) @ vectors.T).float()
    assert torch.allclose(plain, (patches[:3] - patches.mean(0)) @ root, atol=2e-2)


def test_field_of__is_what_a_pixel_can_change(trained: Path) -> None:
    stack, shape = Run(trained).stack(), Run(trained).records[0].input_shape
    step, side = field_of(stack)
    below, size = stack.below(len(stack)), stack.layers[-1].layer.embedding.gate.patch_size
    plain = torch.zeros(1, *shape)
    reached = []
    for row in range(shape[1]):
        x = plain.clone()
        x[:, :, row] = 1
        changed = (below(x)[0] - below(plain)[0]).abs().sum((0, 1, 3)) > 0  # rows of the features
        reached.append({int(r) - i for r in changed.nonzero() for i in range(size)})
    for start in range(3):
        rows = [row for row in range(shape[1]) if start in reached[row]]
        assert min(rows) >= step * start and max(rows) < step * start + side
    # and no larger than need be
    assert any(0 in reached[row] for row in (0, 1)) and any(0 in reached[row] for row in (side - 1, side - 2))


def test_answers_picture__finds_the_part_of_an_image_that_an_atom_is_made_of() -> None:
    # one bright pixel in each image, at a place of its own; an atom for a bright left upper corner, one for dark
    pixels = torch.zeros(4, 1, 8, 8, dtype=torch.uint8)
    places = [(1, 2), (5, 0), (3, 5), (0, 4)]
    for image, (row, column) in zip(pixels, places, strict=True):
        image[0, row, column] = 255
        image[0, row + 1, column + 1] = 90
    atoms = torch.full((2, 9), -1.0)
    atoms[0, 0], atoms[0, 4] = 1, 90 / 127.5 - 1
    settings = replace(Layer(), patch_size=3, atoms=2, neighbors=1, pool=2, channels=None)
    layer = build_layer(settings, PatchDictionary(torch.zeros(9), torch.eye(9), atoms), (1, 8, 8), 2)
    images = Images(pixels, torch.tensor([0, 0, 1, 1]))
    stack = FrozenStack([layer])
    shares = usage(stack, images)
    assert shares.sum() == 1 and chosen_atoms(shares).tolist() == shares.argsort(descending=True).tolist() == [1, 0]
    picture = answers_picture(stack, images, width=3 * 12)
    second = picture[2:5, 2 + 4 * 5 + 6 - 2 :, :3]  # of the group of the rarer atom, behind one of four tiles
    found = np.argwhere(second[:, :, 0] == 255)
    assert len(found) == 4 and (found[:, 0] == 0).all()


def test_answers_picture__of_two_channels__shows_the_first() -> None:
    pixels = torch.full((4, 2, 8, 8), 30, dtype=torch.uint8)
    pixels[:, 0, 2, 2] = 255
    settings = replace(Layer(), patch_size=3, atoms=2, neighbors=1, pool=2, channels=None)
    atoms = torch.stack([torch.ones(18), -torch.ones(18)])
    layer = build_layer(settings, PatchDictionary(torch.zeros(18), torch.eye(18), atoms), (2, 8, 8), 2)
    picture = answers_picture(FrozenStack([layer]), Images(pixels, torch.tensor([0, 0, 1, 1])), width=3 * 12)
    assert {30, 255} <= set(np.unique(picture[..., :3]))


def test_chosen_atoms__are_spread_from_the_most_to_the_least_used() -> None:
    shares = torch.arange(100) / 100
    chosen = chosen_atoms(shares)
    assert len(chosen) == len(set(chosen.tolist())) == 48
    assert chosen[0] == 99 and chosen[-1] == 0 and (chosen[:-1] > chosen[1:]).all()


def test_some_of_each__takes_as_many_of_each_class_as_there_are() -> None:
    labels = torch.tensor([0] * 10 + [1] * 2 + [2] * 10)
    some = some_of_each(Images(torch.arange(22, dtype=torch.uint8).reshape(22, 1, 1, 1), labels), 8)
    assert some.labels.bincount().tolist() == [3, 2, 3]
    assert sorted(some.pixels[:].flatten().tolist()) == [0, 1, 2, 10, 11, 12, 13, 14]


def test_usage__is_that_of_all_images_at_once__with_room_for_what_atoms_say_of_each(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    layers = [make_layer(SMALL, (2, 12, 12)), make_layer(SMALL, (5, 5, 5))]
    stack = FrozenStack(layers)
    images = Images(torch.randint(0, 256, (40, 2, 12, 12), dtype=torch.uint8), torch.zeros(40, dtype=torch.long))
    features = stack.below(2)(images.pixels[:] / 127.5 - 1)[0]
    expected, sizes = layers[1].layer.embedding.usage(features), list[int]()
    assert torch.allclose(usage(stack, images), expected, atol=1e-6)
    layers[0].register_forward_hook(lambda _, given, __: None if given[0].is_meta else sizes.append(len(given[0])))
    monkeypatch.setattr("layerwise.data.batches.ROOM", 4 * 288 * 15)  # the image has most numbers, 2×12×12
    assert torch.allclose(usage(stack, images), expected, atol=1e-6) and sizes == [15, 15, 10]
    monkeypatch.setattr(layers[1].layer.embedding.dictionary, "atoms", torch.zeros(100, 45))  # at 5×5 positions
    usage(stack, images)
    assert sizes[3:5] == [1, 1]  # 4320 / 2500


def test_a_layer_that_begins_a_column__is_drawn_as_a_first_one(tmp_path: Path) -> None:
    own = Layer(patch_size=4, atoms=8, channels=5, pool=1, input="images")
    above = make_layer(SMALL, (2, 12, 12)), make_layer(SMALL, (5, 5, 5)), make_layer(own, (2, 12, 12))
    stack, pixels = FrozenStack(above), torch.randint(0, 256, (9, 2, 12, 12), dtype=torch.uint8)
    assert field_of(stack) == (1, 4) and field_of(stack.below(3)) == (2, 8)
    expected = above[2].layer.embedding.usage(pixels / 127.5 - 1)
    assert torch.allclose(usage(stack, Images(pixels, torch.zeros(9, dtype=torch.long))), expected, atol=1e-6)

    options = ["--depth=3", "--layer.probe.logits=averaged", "--layers.2.input=images"]
    layerwise.train(parse([*TINY, "--wandb.mode=disabled", *options])[0], tmp_path / "run")
    drawn = {path.name for path in (tmp_path / "run").glob("layer-*.png")}
    kinds = {1: ("atoms", "usage", "whitened"), 2: ("atoms", "usage", "whitened"), 3: ("answers", "atoms", "usage")}
    assert drawn == {f"layer-{number}-{kind}.png" for number, own in kinds.items() for kind in own}
    page = (tmp_path / "run" / "report.html").read_text()
    assert page.count("whitening undone") == 2 and page.count("as they are compared with patches: whitened") == 2


def test_as_picture__is_gray_or_color__and_no_larger_than_need_be() -> None:
    assert as_picture(torch.full((1, 4, 6), 7, dtype=torch.uint8)).tolist() == [[[7] * 3] * 6] * 4
    large = as_picture(torch.full((3, 300, 600), 9, dtype=torch.uint8))
    assert large.shape == (64, 128, 3) and (large == 9).all()
