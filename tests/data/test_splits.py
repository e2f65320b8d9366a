"""What is held out, and data sets as torchvision has them."""

from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torchvision

from layerwise.config import Data, SettingError
from layerwise.config.choices import DATASETS
from layerwise.data.images import Images
from layerwise.data.splits import DataSet, RawData, hold_out, load_data
from tests.training.worlds import numbered, world

SOURCES: dict[str, tuple[str, list[dict[str, Any]], bool]] = {
    "cifar10": ("CIFAR10", [{"train": True}, {"train": False}], True),
    "cifar100": ("CIFAR100", [{"train": True}, {"train": False}], True),
    "fashion_mnist": ("FashionMNIST", [{"train": True}, {"train": False}], True),
    "svhn": ("SVHN", [{"split": "train"}, {"split": "test"}], False),
    "stl10": ("STL10", [{"split": "train"}, {"split": "test"}], True),
}
"""class in torchvision, its arguments for training and test images, and whether a mirrored image shows the same"""
PIXELS = np.random.default_rng(0).integers(0, 256, (6, 3, 4, 5), np.uint8)


def as_torchvision(name: str) -> Any:
    """Six color images of 4×5 pixels, or gray ones, in the layout that torchvision has for a data set."""
    labels = [0, 1, 2, 0, 1, 2]
    if name.startswith("cifar"):
        return SimpleNamespace(data=PIXELS.transpose(0, 2, 3, 1), targets=labels, classes=["x", "y", "z"])
    if name == "fashion_mnist":
        return SimpleNamespace(
            data=torch.from_numpy(PIXELS[:, 0]), targets=torch.tensor(labels), classes=["x", "y", "z"]
        )
    return SimpleNamespace(data=PIXELS, labels=np.array(labels))


@pytest.mark.parametrize("name", SOURCES)
def test_torchvision_sets__are_channels_rows_columns__and_labels(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class_name, splits, flip = SOURCES[name]
    asked: list[dict[str, Any]] = []

    def source(root: str, **given: Any) -> Any:
        asked.append({"root": root} | given)
        return as_torchvision(name)

    monkeypatch.setattr(torchvision.datasets, class_name, source)
    raw: RawData = DATASETS[name](Data(name=name, root="here"))
    assert asked == [{"root": "here", "download": False} | split for split in splits]
    assert raw.val is None and raw.flip == flip and raw.test is not None
    assert raw.classes == (["x", "y", "z"] if name in ("cifar10", "cifar100", "fashion_mnist") else ["0", "1", "2"])
    expected = torch.from_numpy(PIXELS[:, :1] if name == "fashion_mnist" else PIXELS)
    for images in (raw.train, raw.test):
        assert torch.equal(images.pixels[:], expected) and images.pixels[:].is_contiguous()
        assert images.labels.dtype == torch.int64 and images.labels.tolist() == [0, 1, 2, 0, 1, 2]


@pytest.mark.parametrize("allowed", [True, False])
def test_torchvision_sets__are_downloaded_where_they_are_missing__unless_that_is_forbidden(
    allowed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def source(root: str, download: bool, train: bool) -> Any:
        asked.append((train, download))
        if not download:
            raise RuntimeError("not found")
        return as_torchvision("cifar10")

    monkeypatch.setattr(torchvision.datasets, "CIFAR10", source)
    config = Data(name="cifar10", root="here", download=allowed)
    if allowed:
        assert len(DATASETS["cifar10"](config).train) == 6
        assert asked == [(True, False), (True, True), (False, False), (False, True)]
    else:
        with pytest.raises(SettingError, match="^data.root: here does not hold cifar10, .*; place .*/here/cifar-10"):
            DATASETS["cifar10"](config)
        assert asked == [(True, False)]


def test_hold_out__without_names_is_a_share_at_random__the_rest_stays() -> None:
    images = numbered(40, 0)
    kept, held = hold_out(images, 0.3, 5, "data.validation")
    assert len(held) == 12 and sorted([*kept.labels.tolist(), *held.labels.tolist()]) == list(range(40))
    for part in (kept, held):
        assert torch.equal(part.pixels[:], images.pixels[:][part.labels])
    again, other = (hold_out(images, 0.3, seed, "data.validation")[1] for seed in (5, 6))
    assert torch.equal(again.labels, held.labels) and not torch.equal(other.labels, held.labels)
    assert held.labels.tolist() != list(range(12)) != list(range(28, 40))


@pytest.mark.parametrize("share", [0.01, 0.99])
def test_hold_out__refuses_to_leave_a_split_empty(share: float) -> None:
    with pytest.raises(SettingError, match=f"^data.test: {share} of 10 images leaves a split empty"):
        hold_out(numbered(10, 0), share, 0, "data.test")


def test_hold_out__says_which_class_has_none_left(capsys: pytest.CaptureFixture[str]) -> None:
    labels = torch.tensor([0] * 20 + [1])
    images = numbered(21, 0, labels)
    hold_out(images, 0.5, 0, "data.validation", ["many", "one"])
    printed = capsys.readouterr().out
    assert printed.startswith("data.validation: class one has 1 images, ") and printed.count("\n") == 1


def test_load_data__fills_in_flip_and_crop__or_does_as_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = RawData(
        ["a", "b"], numbered(30, 0, torch.arange(30) % 2, (1, 24, 17)), numbered(4, 1, torch.arange(4) % 2, (1, 24, 17))
    )
    monkeypatch.setitem(DATASETS._made, "mine", lambda config: raw)
    data = load_data(Data(name="mine"), 0)
    assert (data.augmentation.flip, data.augmentation.crop, data.augmentation.border) == (True, 2, "mirrored")
    told = load_data(Data(name="mine", flip=False, crop=0, border="black"), 0).augmentation
    assert (told.flip, told.crop, told.border) == (False, 0, "black") and not told.changes
    assert (len(data.train), len(data.val), len(data.test)) == (27, 3, 4)


def test_load_data__refuses_shares_of_what_the_data_has__one_class__equal_images(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    two = torch.arange(30) % 2
    own = RawData(["a", "b"], numbered(30, 0, two), numbered(4, 1), numbered(4, 2))
    same = Images(torch.full((30, 1, 6, 6), 7, dtype=torch.uint8), two)
    cases: list[tuple[RawData, dict[str, Any], str]] = [
        (own, {"test": 0.2}, "^data.test: 0.2, but mine has test images of its own; omit it"),
        (own, {"validation": 0.2}, "^data.validation: 0.2, but mine has validation images of its own; omit it"),
        (
            RawData(["a", "b"], numbered(30, 0, 0 * two), own.test),
            {},
            "^data.name: mine has 1 class in its training split",
        ),
        (RawData(["a", "b"], same, own.test), {}, r"^data.name: all training images of mine are the same"),
    ]
    for raw, config, message in cases:
        monkeypatch.setitem(DATASETS._made, "mine", partial(lambda raw, config: raw, raw))
        with pytest.raises(SettingError, match=message):
            load_data(Data(name="mine", **config), 0)


def test_digest__is_of_every_split_label_and_class() -> None:
    data = world(20)

    def changed(**parts: Any) -> str:
        return DataSet(**vars(world(20)) | parts).digest

    assert changed() == data.digest
    digests = {data.digest, changed(classes=["other", *data.classes[1:]])}
    for split in ("train", "val", "test"):
        images: Images = getattr(data, split)
        pixels, labels = images.pixels[:].clone(), images.labels.clone()
        pixels[-1, 0, 5, 5] ^= 1
        labels[-1] -= 1
        digests |= {
            changed(**{split: Images(pixels, images.labels)}),
            changed(**{split: Images(images.pixels, labels)}),
        }
    assert len(digests) == 8
