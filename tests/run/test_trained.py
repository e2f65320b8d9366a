"""A trained stack, loaded for use."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

import layerwise
from layerwise.config import Data
from layerwise.data.splits import load_data


def test_load__transforms_and_predicts_as_the_run_did(trained: Path) -> None:
    stack = layerwise.load(trained)
    test = load_data(Data(), 0).test
    predicted = stack.predict(test.pixels)
    summary = json.loads((trained / "summary.json").read_text())
    assert float((predicted == test.labels).float().mean()) == pytest.approx(summary["test_accuracy"], abs=1e-6)
    as_floats = (test.pixels / 255).numpy()
    assert torch.equal(stack.predict(as_floats), predicted)
    assert stack.transform(test.pixels).shape == (359, 8, 4, 4)
    assert stack.transform(test.pixels[:5], layer=1).shape == (5, 8, 6, 6)
    torch.testing.assert_close(stack.transform(test.pixels[3]), stack.transform(test.pixels)[3:4])
    assert stack.transform(test.pixels[:0]).shape == (0, 8, 4, 4)
    assert stack.predict(np.zeros((2, 1, 8, 8), np.uint8)).shape == (2,)


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


@pytest.mark.parametrize("layer", [0, 3, -1])
def test_transform__refuses_a_layer_that_is_not_there(layer: int, trained: Path) -> None:
    with pytest.raises(ValueError, match=rf"layer: {layer} is not one of the layers 1 to 2"):
        layerwise.load(trained).transform(np.zeros((2, 1, 8, 8), np.uint8), layer)


def test_load__of_a_folder_without_a_layer(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="holds no finished layer"):
        layerwise.load(tmp_path)
