"""A trained stack, loaded for use."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from torch import Tensor

import layerwise
from layerwise.config import Data
from layerwise.data.images import to_input
from layerwise.data.splits import load_data
from layerwise.export import export_files
from layerwise.parsing import parse
from tests.conftest import QUIET


def test_load__transforms_and_predicts_as_the_run_did(trained: Path) -> None:
    stack = layerwise.load(trained)
    test = load_data(Data(), 0).test
    predicted = stack.predict(test.pixels)
    summary = json.loads((trained / "summary.json").read_text())
    assert float((predicted == test.labels).float().mean()) == pytest.approx(summary["test_accuracy"], abs=1e-6)
    as_floats = (test.pixels[:] / 255).numpy()
    assert torch.equal(stack.predict(as_floats), predicted)
    assert stack.predict(test.pixels[:2]).shape == (2,)


def test_load__says_what_the_stack_is(trained: Path) -> None:
    stack = layerwise.load(str(trained))
    assert stack.input_shape == (1, 8, 8)
    assert stack.classes == [str(digit) for digit in range(10)]
    assert [record.layer for record in stack.records] == [1, 2]
    assert stack.to("cpu").device == torch.device("cpu")


@pytest.mark.parametrize(
    "images, message",
    [
        (np.zeros((2, 3, 8, 8), np.uint8), r"shape \(2, 3, 8, 8\), but the stack was trained on \(n, 1, 8, 8\)"),
        (np.full((2, 1, 8, 8), 200.0), r"values from 200 to 200; floating point images range from 0 to 1"),
        (np.full((2, 1, 8, 8), np.nan), r"values from nan to nan; floating point images range from 0 to 1"),
        (np.zeros((2, 1, 8, 8), np.int64), r"type torch\.int64; give uint8"),
    ],
)
def test_load__refuses_other_images(images: npt.NDArray[Any], message: str, trained: Path) -> None:
    with pytest.raises(ValueError, match=message):
        layerwise.load(trained).predict(images)


def test_transform__gives_all_layers_side_by_side__pooled_and_scaled(trained: Path) -> None:
    stack, data = layerwise.load(trained), load_data(Data(), 0)
    x = to_input(data.train.pixels[:])
    lower, upper = (stack.transform(data.train.pixels, layer=i, flatten=False, pool=None) for i in (1, 2))
    torch.testing.assert_close(lower, stack.stack.layers[0](x)[0])
    torch.testing.assert_close(upper, stack.stack.layers[1](lower)[0])
    assert lower.shape[1:] == (8, 6, 6) and upper.shape[1:] == (8, 4, 4)
    # 6×6 averaged to 4×4: positions 0 and 1, 1 and 2, 3 and 4, 4 and 5 of each side
    corner = lower[:, :, :2, 1:3].mean((2, 3))
    features = stack.transform(data.train.pixels)
    assert features.shape == (1294, 2 * 8 * 16)
    expected = (corner - lower.mean((0, 2, 3))) / lower.std((0, 2, 3), correction=0)
    torch.testing.assert_close(features[:, :128].reshape(-1, 8, 4, 4)[:, :, 0, 1], expected, atol=1e-4, rtol=1e-4)
    assert float(features[:, 128:].mean().abs()) < 1e-4 and float(features[:, 128:].std()) == pytest.approx(1, abs=1e-3)
    assert torch.equal(stack.transform(data.train.pixels, layer=2), features[:, 128:])
    torch.testing.assert_close(
        stack.transform(data.train.pixels[3], pool=2), stack.transform(data.train.pixels, pool=2)[3:4]
    )
    assert stack.transform([]).shape == (0, 256) and stack.transform([], 1, None, False).shape == (0, 8, 6, 6)
    with pytest.raises(ValueError, match="flatten: False, but layers differ in shape; give the number of one"):
        stack.transform(data.train.pixels, flatten=False)


def test_transform__gives_what_was_learned__of_layers_that_hand_on_something_else(tmp_path: Path) -> None:
    config = parse(["--depth=2", *QUIET, "--layer.output=gates", "--layer.channels=6"])[0]
    run = layerwise.train(config, tmp_path / "r")
    stack, data = layerwise.load(tmp_path / "r"), run.data(None)
    first, second = stack.stack.layers
    x = to_input(data.train.pixels[:])
    handed = first.layer.handed_on(x)
    assert not torch.allclose(first.layer(x), handed, atol=0.1)
    for layer, read in ((1, first.layer(x)), (2, second.layer(handed))):
        torch.testing.assert_close(stack.transform(data.train.pixels, layer, None, False), read.detach())
        features = stack.transform(data.train.pixels, layer, None)
        scaled = features.view(len(x), read.shape[1], -1).transpose(0, 1).flatten(1)
        torch.testing.assert_close(scaled.mean(1), torch.zeros(read.shape[1]), atol=1e-4, rtol=0)
        torch.testing.assert_close(scaled.std(1), torch.ones(read.shape[1]), atol=1e-3, rtol=0)


def test_a_stack__is_the_same_whatever_numbers_torch_makes_by_itself(trained: Path, tmp_path: Path) -> None:
    images, path = load_data(Data(), 0).test.pixels[:5], tmp_path / "image.png"
    Image.fromarray(images[0, 0].numpy()).save(path)
    stack = layerwise.load(trained)
    expected = stack.transform(images), stack.predict_proba(images), stack.predict_proba(str(path))
    torch.set_default_dtype(torch.float64)
    try:
        again = layerwise.load(trained)
        found = again.transform(images), again.predict_proba(images), again.predict_proba(str(path))
        ((_, alone),) = again.classified([str(path)])
    finally:
        torch.set_default_dtype(torch.float32)
    for one, other in zip(expected, found, strict=True):
        assert one.dtype == other.dtype == torch.float32 and torch.equal(one, other)
    assert isinstance(alone, torch.Tensor) and torch.equal(alone, expected[2][0])


@pytest.mark.parametrize("pool", [0, -1])
def test_transform__refuses_a_grid_without_positions(pool: int, trained: Path) -> None:
    with pytest.raises(ValueError, match=f"pool: {pool} is no side of a grid"):
        layerwise.load(trained).transform(np.zeros((2, 1, 8, 8), np.uint8), pool=pool)


def test_transform__takes_numpy_s_number_of_a_layer(trained: Path) -> None:
    stack, images = layerwise.load(trained), np.full((2, 1, 8, 8), 200, np.uint8)
    assert torch.equal(stack.transform(images, np.int64(2)), stack.transform(images, 2))  # type: ignore[arg-type]


@pytest.mark.parametrize("layer", [0, 3, -1])
def test_transform__refuses_a_layer_that_is_not_there(layer: int, trained: Path) -> None:
    with pytest.raises(ValueError, match=rf"layer: {layer} is not one of the layers 1 to 2"):
        layerwise.load(trained).transform(np.zeros((2, 1, 8, 8), np.uint8), layer)


KINDS: dict[str, Callable[[npt.NDArray[np.uint8]], Any]] = {
    "one array": lambda image: image,
    "channels last": lambda image: image.transpose(1, 2, 0),
    "no channels": lambda image: image[0],
    "floats": lambda image: image / 255,
    "a tensor": torch.from_numpy,
    "a batch": lambda image: image[None],
    "a batch, channels last": lambda image: image[None].transpose(0, 2, 3, 1),
    "a list": lambda image: [image],
    "a picture": lambda image: Image.fromarray(image[0]),
    "a picture in color": lambda image: Image.fromarray(image[0]).convert("RGB"),
    "nested numbers": lambda image: [image.tolist()],
}


@pytest.mark.parametrize("kind", KINDS)
def test_images__of_every_kind_are_the_same(kind: str, trained: Path) -> None:
    stack, image = layerwise.load(trained), load_data(Data(), 0).test.pixels[7].numpy()
    given = KINDS[kind](image)
    expected = torch.from_numpy(image[None]).float() / 255 * 2 - 1
    if kind == "nested numbers":
        with pytest.raises(ValueError, match=r"type torch\.int64; give uint8"):
            stack.preprocess(given)
        return
    torch.testing.assert_close(stack.preprocess(given), expected)
    torch.testing.assert_close(stack.predict_proba(given), stack.predict_proba(image))


def test_images__as_files_are_as_in_memory__of_any_size(trained: Path, tmp_path: Path) -> None:
    stack, image = layerwise.load(trained), load_data(Data(), 0).test.pixels[:][7, 0].numpy()
    large = Image.fromarray(image.repeat(3, 0).repeat(3, 1))
    large.save(tmp_path / "a.png")
    Image.fromarray(image).save(tmp_path / "b.png")
    several = stack.preprocess([tmp_path / "a.png", str(tmp_path / "b.png"), large, image])
    assert several.shape == (4, 1, 8, 8) and torch.equal(several[0], several[2]) and torch.equal(several[1], several[3])
    assert float((several[0] - several[1]).abs().mean()) < 0.1  # enlarged and shrunk again
    assert stack.predict([]).shape == (0,) and stack.predict_proba(()).shape == (0, 10)


@pytest.mark.parametrize("kind", [torch.Tensor, list, iter])
def test_images__are_computed_as_they_come__as_many_at_once_as_there_is_room_for(
    kind: Callable[[Tensor], Any], trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = load_data(Data(), 0).test.pixels[:100] / 255
    expected = layerwise.load(trained).predict_proba(images)
    monkeypatch.setattr("layerwise.data.batches.ROOM", 4 * (16 * 6 * 6) * 30)  # 16 atoms at 6×6 positions of an image
    stack, sizes = layerwise.load(trained), list[int]()
    stack.stack.layers[0].register_forward_hook(lambda _, given, __: sizes.append(len(given[0])))
    torch.testing.assert_close(stack.predict_proba(kind(images)), expected)
    assert sizes == [0, 30, 30, 30, 10]  # of none it is asked what is returned
    assert torch.equal(stack.predict(kind(images)), expected.argmax(1))


def test_predict__by_name_and_with_probabilities(trained: Path) -> None:
    stack, test = layerwise.load(trained), load_data(Data(), 0).test
    shares, found = stack.predict_proba(test.pixels), stack.predict(test.pixels)
    torch.testing.assert_close(shares.sum(1), torch.ones(len(test)))
    assert torch.equal(shares.argmax(1), found)
    assert stack.predict(test.pixels[:9], names=True) == [str(i) for i in found[:9].tolist()]


def test_images__that_cannot_be_what_was_trained_on__are_warned_of(trained: Path) -> None:
    stack, sixteenths = layerwise.load(trained), load_data(Data(), 0).test.pixels[:20] // 16
    told = (
        r"no pixel is above 15, but 99 in 100 images that the stack was trained on reach 2\d\d; pixels of uint8 range"
    )
    with pytest.warns(UserWarning, match=told) as warned:
        found = stack.predict(sixteenths)
    assert len(warned) == 1 and len(found) == 20


def test_a_file_that_is_no_picture__is_named(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("x")
    for path, reason in ((tmp_path / "a.png", "cannot identify"), (tmp_path / "b.png", "No such file")):
        with pytest.raises(ValueError, match=rf"images: {path} is not a readable image \(.*{reason}.*\)"):
            layerwise.load(trained).predict(path)
    with pytest.raises(ValueError, match="images: int is none; give paths"):
        layerwise.load(trained).predict(3)


@pytest.mark.parametrize("pool", [0, 1.5, "none"])
def test_transform__to_a_grid_that_is_none(pool: Any, trained: Path) -> None:
    with pytest.raises(ValueError, match=f"^pool: {pool} is no side of a grid; give a whole number from 1, or None"):
        layerwise.load(trained).transform([], pool=pool)


def test_load__of_a_folder_without_a_layer(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="^RUN: .* holds no finished layer"):
        layerwise.load(tmp_path)


def test_load__of_what_lies_at_home(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    shutil.copytree(trained, tmp_path / "r")
    export_files(layerwise.load("~/r"), tmp_path / "out")
    assert len(layerwise.load("~/out").records) == 2
