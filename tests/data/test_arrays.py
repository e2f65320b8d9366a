"""A data set of one's own arrays: how it is read, what is refused, and what a run records of it."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

import layerwise
from layerwise.config import Data, SettingError
from layerwise.data.arrays import shape_of
from layerwise.data.images import Augmentation
from layerwise.data.splits import load_data
from layerwise.parsing import parse
from layerwise.run.run import Run
from tests.conftest import SMALL, Command
from tests.run.test_run import hashes
from tests.training.worlds import world

PIXELS = np.random.default_rng(0).integers(0, 256, (40, 3, 6, 8), np.uint8)
NUMBERS = np.arange(40)
LABELS = NUMBERS % 2
QUICK = [*SMALL, "--optimizer.epochs=1", "--optimizer.batch_size=16", "--layer.atoms=4", "--wandb.mode=disabled"]

LAYOUTS: dict[str, tuple[Callable[[npt.NDArray[Any]], Any], int]] = {
    "channels first": (lambda x: x, 3),
    "channels last": (lambda x: x.transpose(0, 2, 3, 1), 3),
    "gray": (lambda x: x[:, 0], 1),
    "gray, with the channel": (lambda x: x[:, :1], 1),
    "gray, with the channel last": (lambda x: x[:, 0, :, :, None], 1),
    "a tensor": (lambda x: torch.from_numpy(x.copy()), 3),
    "not contiguous": (lambda x: x[:, :, ::-1][:, :, ::-1], 3),
    "a list of images": (lambda x: list(x), 3),
    "float32": (lambda x: x / np.float32(255), 3),
    "float64 of the other byte order": (lambda x: (x / 255).astype(">f8"), 3),
    "a tensor of float16": (lambda x: torch.from_numpy(x.copy()).half() / 255, 3),
}


@pytest.mark.parametrize("kind", LAYOUTS)
def test_dataset__holds_the_pixels__whatever_the_layout(kind: str) -> None:
    change, channels = LAYOUTS[kind]
    pixels = PIXELS[:, :channels]
    data = layerwise.dataset(change(PIXELS), LABELS, (change(pixels[:4]), LABELS[:4]), (change(pixels[4:]), LABELS[4:]))
    for split, expected in ((data.train, pixels), (data.val, pixels[:4]), (data.test, pixels[4:])):
        assert split.shape == (channels, 6, 8) and split.pixels.dtype == torch.uint8
        assert torch.equal(split.pixels[:], torch.from_numpy(expected))
    assert data.train.labels.tolist() == LABELS.tolist()


def test_dataset__does_not_warn_of_what_cannot_be_written__and_rounds(recwarn: pytest.WarningsRecorder) -> None:
    images = np.array([0, 0.1, 0.5, 0.9, 1.0] * 4).reshape(20, 1, 1) + np.zeros((1, 2, 2))
    images.flags.writeable = False
    given = images[:5], [0, 1, 0, 1, 0]
    data = layerwise.dataset(images, [0, 1] * 10, given, given)
    assert data.test.pixels[:][:, 0, 0, 0].tolist() == [0, 26, 128, 230, 255]  # 25.5 and 127.5 go to the even number
    assert not recwarn.list


@pytest.mark.parametrize(
    "given, expected",
    [
        ((28, 28), (1, 28, 28)),
        ((3, 32, 32), (3, 32, 32)),
        ((32, 32, 3), (3, 32, 32)),
        ((1, 28, 1), (1, 28, 1)),
        ((28, 28, 1), (1, 28, 28)),
        ((16, 4, 4), (16, 4, 4)),
        ((20, 1, 1), (20, 1, 1)),
        ((32, 32, 4), (4, 32, 32)),
    ],
)
def test_shape_of__takes_the_shortest_axis__if_it_is_last__for_channels(
    given: tuple[int, ...], expected: tuple[int, int, int]
) -> None:
    assert shape_of(np.zeros((5, *given))) == expected


@pytest.mark.parametrize(
    "labels, names",
    [
        (["b", "a", "c"], ["a", "b", "c"]),
        (np.array(["b", "a", "c"]), ["a", "b", "c"]),
        ([10, 9, 11], ["9", "10", "11"]),
        (np.array([10, 9, 11], np.int16), ["9", "10", "11"]),
        (torch.tensor([1, -1, 2]), ["-1", "1", "2"]),
        (list(torch.tensor([1, -1, 2])), ["-1", "1", "2"]),
        (list(np.array([1, -1, 2])), ["-1", "1", "2"]),
        ([(1, "x"), (0, "y"), (2, "a")], ["(0, 'y')", "(1, 'x')", "(2, 'a')"]),
        (np.array([True, False, True]), ["False", "True"]),
    ],
)
def test_dataset__numbers_the_labels_in_their_order(labels: Any, names: list[str]) -> None:
    three, several = (PIXELS[:3], labels), (labels if isinstance(labels, list) else labels.tolist()) * 10
    data = layerwise.dataset(PIXELS[:30], several, three, three)
    expected = [1, 0, len(names) - 1]
    assert data.classes == names and data.val.labels.tolist() == data.test.labels.tolist() == expected
    assert data.train.labels.tolist() == expected * 10


def test_dataset__holds_out_shares_by_seed() -> None:
    names = [f"{i:02}" for i in NUMBERS]  # so that the labels, which are sorted, tell which image it is
    first, again, other = (layerwise.dataset(PIXELS, names, 0.25, 0.2, seed=seed) for seed in (3, 3, 4))
    assert [len(first.train), len(first.val), len(first.test)] == [24, 8, 8]  # a quarter of the 32 that are no test
    splits = first.train, first.val, first.test
    assert sorted(label for split in splits for label in split.labels.tolist()) == NUMBERS.tolist()
    for split in splits:
        assert torch.equal(split.pixels[:], torch.from_numpy(PIXELS)[split.labels])
    assert first.digest == again.digest
    assert not torch.equal(first.test.labels, other.test.labels)


def test_dataset__augments_as_it_is_told() -> None:
    assert layerwise.dataset(PIXELS, LABELS).augmentation == Augmentation(False, 0, "mirrored")  # an eighth of 6
    told = layerwise.dataset(PIXELS, LABELS, flip=True, crop=2, border="black").augmentation
    assert told == Augmentation(True, 2, "black")


REFUSED: dict[str, dict[str, Any]] = {
    "images: shape (40,); give (n, H, W), (n, C, H, W) or (n, H, W, C)": {"images": PIXELS[:, 0, 0, 0]},
    "images: shape (40, 0, 8); give (n, H, W)": {"images": PIXELS[:, 0, :0]},
    "images: values from 0 to 255; floating point images range from 0 to 1": {"images": PIXELS.astype(float)},
    "images: type torch.int64; give uint8 in [0, 255]": {"images": PIXELS.astype(int)},
    "images: type bool; give uint8 in [0, 255]": {"images": PIXELS > 9},
    "labels: 39 for 40 images; give one for each": {"labels": LABELS[1:]},
    "labels: shape (40, 1); give one for each image, (n,)": {"labels": LABELS[:, None]},
    "labels: int, str cannot be hashed and sorted; give labels of one kind": {"labels": [1, "a"] * 20},
    "labels: list cannot be hashed and sorted": {"labels": [[1], [2]] * 20},
    "labels: list cannot be hashed and sorted; give labels": {"labels": list(torch.zeros(40, 1))},
    "labels: None is no list; give one label for each image": {"labels": None},
    "seed: -1 is no seed; give a whole number of at least 0": {"seed": -1},
    "seed: 1.5 is no seed": {"seed": 1.5},
    "seed: None is no seed": {"seed": None},
    "images: there are none; give some": {"images": PIXELS[:0], "labels": []},
    "images: there are none; give": {"validation": (PIXELS[:0], [])},
    "images: a tensor with torch.sparse_coo layout; give a dense one": {"images": torch.eye(40)[:, None].to_sparse()},
    "images: type torch.float8_e4m3fn; give uint8": {"images": torch.zeros(40, 6, 8).to(torch.float8_e4m3fn)},
    "images: type float128; give uint8": {"images": (PIXELS / 255).astype(np.longdouble)},
    "labels: 7 is none of the training images'": {"test": (PIXELS[:2], [0, 7])},
    "data: val has images of (3, 6, 4), train of (3, 6, 8); give one shape": {"validation": (PIXELS[..., :4], LABELS)},
    "data.name: arrays has 1 class in its training split": {"labels": [1] * 40},
    "data.validation: 1.5 is out of range; give a number between 0 and 1": {"validation": 1.5},
    "test: 1 values; give a pair, images and labels, or a share": {"test": (PIXELS,)},
    "data.crop: 6 is not below the side of the 6×8 images": {"crop": 6},
    "data.border: pink is not one of mirrored, black": {"border": "pink"},
    "data.name: all training images of arrays are the same": {"images": np.zeros((40, 4, 4))},
}


@pytest.mark.parametrize("message", REFUSED)
def test_dataset__refuses_in_a_line_what_is_no_data(message: str) -> None:
    with pytest.raises(SettingError, match=f"^{re.escape(message)}") as error:
        layerwise.dataset(**{"images": PIXELS, "labels": LABELS} | REFUSED[message])
    assert "\n" not in str(error.value)


@pytest.fixture
def learned(command: Command, tmp_path: Path) -> Path:
    """A run on arrays, as r in the folder of `command`."""
    return layerwise.train(parse(QUICK)[0], tmp_path / "r", layerwise.dataset(PIXELS, LABELS, 0.2)).path


def test_a_run_on_arrays__says_so__and_goes_on_with_them_alone(learned: Path) -> None:
    config, data = parse([*QUICK, "--depth=2"])[0], layerwise.dataset(PIXELS, LABELS, 0.2)
    assert Run(learned).config.data == Data("arrays", flip=False, validation=0.2)
    before = hashes(learned)
    assert len(layerwise.train(config, learned, data).records) == 2
    assert hashes(learned).items() > before.items()

    changed = PIXELS.copy()
    changed[3, 0, 0, 0] ^= 1
    cases = [
        (layerwise.dataset(changed, LABELS, 0.2), r"data: the arrays hold other images than .* \(1 changed\) in .*/r:"),
        (layerwise.dataset(PIXELS, LABELS, 0.2, flip=True), "data.flip: True, but the run was trained with False"),
        (None, "data.name: digits, but the run was trained with arrays"),
    ]
    for other, message in cases:
        with pytest.raises(SettingError, match=f"^{message}"):
            layerwise.train(config, learned, other)


def test_a_run_on_arrays__is_evaluated_from_python(learned: Path, command: Command) -> None:
    said = command("evaluate", "r")
    assert said.returncode == 2 and said.stdout == ""
    assert said.stderr.startswith("error: data.name: arrays are kept nowhere; give them from Python: ")
    assert said.stderr.count("\n") == 1 and "layerwise.load(RUN).predict(images)" in said.stderr
    assert command("train", "--data.name=arrays", "--run_dir=s").stderr == said.stderr
    stack = layerwise.load(learned)
    assert stack.input_shape == (3, 6, 8) and stack.predict(PIXELS).shape == (40,)
    exported = command("export", "r", "folder")
    assert exported.returncode == 0 and "trained on arrays" in Path("folder/README.md").read_text()


def test_arrays__that_differ_have_directories_of_their_own(command: Command) -> None:
    config = parse(QUICK)[0]
    runs = [layerwise.train(config, data=layerwise.dataset(pixels, LABELS)).path for pixels in (PIXELS, 255 - PIXELS)]
    assert runs[0] != runs[1] and {run.parent.name for run in runs} == {"runs"}
    assert layerwise.train(config, data=layerwise.dataset(PIXELS, LABELS)).path == runs[0]


def test_data_that_the_configuration_does_not_describe__is_recorded_as_what_it_is(tmp_path: Path) -> None:
    config = parse([*QUICK, "--layer.patch_size=1"])[0]
    teacher = Data("teacher", teacher=layerwise.config.run.Teacher(images=40))
    run = layerwise.train(config, tmp_path / "t", load_data(teacher, 0))
    assert config.data.name == "digits" and run.config.data == teacher
    assert run.data().digest == load_data(teacher, 0).digest  # so that it can be evaluated
    made = world(40, Augmentation(flip=True, crop=1, border="black"), 2)
    run = layerwise.train(config, tmp_path / "w", made)
    assert run.config.data == Data("arrays", flip=True, crop=1, border="black")


def test_train__refuses_what_is_no_data_set(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"^data: tuple is none; give layerwise.dataset\(images, labels\), or None"):
        layerwise.train(parse(QUICK)[0], tmp_path / "r", (PIXELS, LABELS))  # type: ignore[arg-type]
