import gzip
import hashlib
import os
import shutil
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from layerwise.config import Data, SettingError
from layerwise.data.images import Augmentation, Images
from layerwise.data.splits import DataSet, load_data


def test_digits__are_split_by_seed__the_test_images_are_always_the_same() -> None:
    first, second = load_data(Data(), 0), load_data(Data(), 1)
    assert (len(first.train), len(first.val), len(first.test)) == (1294, 144, 359)
    assert torch.equal(first.test.pixels[:], second.test.pixels[:])
    assert not torch.equal(first.val.pixels[:], second.val.pixels[:])
    assert first.shape == (1, 8, 8)
    assert not first.augmentation.flip
    assert first.digest == load_data(Data(), 0).digest != second.digest


def test_image_folder__holds_out_val_and_test(folder: Path) -> None:
    data = load_data(Data(name="image_folder", root=str(folder)), 0)
    assert data.classes == ["bright", "dark"]
    names = [f"{name}/{i:02}.png" for name in data.classes for i in range(60)]
    test = [name for name in names if hashed("test", name) < 0.1]
    val = [name for name in names if hashed("validation 0", name) < 0.1 and name not in test]
    assert (len(data.train), len(data.val), len(data.test)) == (120 - len(test) - len(val), len(val), len(test))
    assert 5 < len(test) < 20 and 5 < len(val) < 20
    assert data.shape == (3, 8, 8)
    bright = data.train.pixels[:].float().mean((1, 2, 3)) > 120
    assert torch.equal(bright, data.train.labels == 0)


def test_image_folder__reads_val_and_test_where_they_are(folder: Path) -> None:
    shutil.copytree(folder / "train", folder / "test")
    shutil.copytree(folder / "train" / "dark", folder / "val" / "dark")
    data = load_data(Data(name="image_folder", root=str(folder)), 0)
    assert (len(data.train), len(data.val), len(data.test)) == (120, 60, 120)
    assert data.val.labels.tolist() == [1] * 60


def test_image_folder__brings_images_to_one_size_and_turns_them_upright(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "train" / name).mkdir(parents=True)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    wide = np.zeros((10, 30), np.uint8)
    wide[:, :15] = 255
    for i in range(10):
        Image.fromarray(wide).save(tmp_path / "train" / "a" / f"{i}.png", exif=exif)
        Image.fromarray(wide.T + np.uint8(i)).save(tmp_path / "train" / "b" / f"{i}.jpg")
    data = load_data(Data(name="image_folder", root=str(tmp_path), image_size=8), 0)
    assert data.shape == (1, 8, 8)
    turned = data.train.pixels[data.train.labels == 0][0, 0]
    assert turned[1].min() > 200 and turned[-2].max() < 50  # left became top


def test_fashion_mnist__is_read_where_torchvision_keeps_it(tmp_path: Path) -> None:
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for name, n in (("train", 20), ("t10k", 10)):
        pixels = np.arange(n * 784, dtype=np.int64).astype(np.uint8)
        (raw / f"{name}-images-idx3-ubyte").write_bytes(struct.pack(">IIII", 2051, n, 28, 28) + pixels.tobytes())
        labels = struct.pack(">II", 2049, n) + bytes(i % 10 for i in range(n))
        (raw / f"{name}-labels-idx1-ubyte").write_bytes(labels)
        with gzip.open(raw / f"{name}-labels-idx1-ubyte.gz", "wb") as file:
            file.write(labels)
    data = load_data(Data(name="fashion_mnist", root=str(tmp_path)), 0)
    assert data.shape == (1, 28, 28)
    assert (len(data.train), len(data.val), len(data.test)) == (18, 2, 10)
    assert "Trouser" in data.classes


@pytest.mark.parametrize(
    "name, expected",
    [
        ("fashion_mnist", "FashionMNIST/raw/train-images-idx3-ubyte"),
        ("cifar10", "cifar-10-batches-py/data_batch_1"),
        ("cifar100", "cifar-100-python/train"),
        ("svhn", "train_32x32.mat"),
        ("stl10", "stl10_binary/train_X.bin"),
    ],
)
def test_torchvision_sets__say_which_file_belongs_where(name: str, expected: str, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="data.root") as error:
        load_data(Data(name=name, root=str(tmp_path / "none"), download=False), 0)
    assert str(tmp_path / "none" / expected) in str(error.value)


def hashed(salt: str, name: str) -> float:
    """A number from 0 to 1 that follows from a name, by the formula that splits are said to keep to."""
    return int(hashlib.sha256(f"{salt}\0{name}".encode()).hexdigest()[:16], 16) / 2**64


def content(images: Images) -> set[bytes]:
    return {image.numpy().tobytes() for image in images.pixels[:]}


def test_image_folder__one_more_image_moves_no_other__another_seed_no_test_image(folder: Path) -> None:
    config = Data(name="image_folder", root=str(folder))
    before = load_data(config, 0)
    assert content(load_data(config, 1).test) == content(before.test)
    assert content(load_data(config, 1).val) != content(before.val)
    Image.fromarray(np.full((8, 8, 3), 7, np.uint8)).save(folder / "train" / "bright" / "05a.png")
    after = load_data(config, 0)
    for split in ("train", "val", "test"):
        assert content(getattr(before, split)) <= content(getattr(after, split))


def test_image_folder__without_splits__in_subfolders__by_other_names(folder: Path) -> None:
    config = Data(name="image_folder", root=str(folder))
    expected = load_data(config, 0)
    assert load_data(Data(name="image_folder", root=str(folder / "train")), 0).digest == expected.digest
    (folder / "train" / "dark" / "Thumbs.db").write_bytes(b"x")
    assert load_data(config, 0).digest == expected.digest
    deep = folder / "train" / "dark" / "deep" / "deeper"
    deep.mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(deep / "0.png")
    total = sum(map(len, (expected.train, expected.val, expected.test)))
    found = load_data(config, 0)
    assert sum(map(len, (found.train, found.val, found.test))) == total + 1
    shutil.copytree(folder / "train", folder / "valid")
    assert len(load_data(config, 0).val) == 121
    shutil.copytree(folder / "train", folder / "validation")
    with pytest.raises(SettingError, match="has both valid and validation for the val images; keep one of them"):
        load_data(config, 0)


def test_image_folder__says_what_it_excluded__and_refuses_to_lose_a_class_or_a_split(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = Data(name="image_folder", root=str(folder), skip_unreadable=True)
    for i in range(3):
        (folder / "train" / "dark" / f"{i:02}.png").write_bytes(b"not an image")
    load_data(config, 0)
    assert "excluded 3 files of class dark that are not readable images" in capsys.readouterr().out
    (folder / "val" / "dark").mkdir(parents=True)
    (folder / "val" / "dark" / "x.png").write_bytes(b"not an image")
    with pytest.raises(SettingError, match="no val image under .* is readable"):
        load_data(config, 0)
    shutil.rmtree(folder / "val")
    for path in (folder / "train" / "dark").iterdir():
        path.write_bytes(b"not an image")
    with pytest.raises(SettingError, match="no training image of class dark"):
        load_data(config, 0)


def damage(folder: Path) -> Path:
    path = folder / "train" / "dark" / "07.png"
    path.write_bytes(path.read_bytes()[:60])
    return path


def test_image_folder__names_an_unreadable_image__and_leaves_it_out_if_asked(folder: Path) -> None:
    path = damage(folder)
    with pytest.raises(SettingError, match=f"{path} is not a readable image.*skip_unreadable"):
        load_data(Data(name="image_folder", root=str(folder)), 0)
    (folder / "train" / "dark" / "notes.txt").write_text("not an image")
    data = load_data(Data(name="image_folder", root=str(folder), skip_unreadable=True), 0)
    assert sum(map(len, (data.train, data.val, data.test))) == 119


def test_image_folder__a_file_that_is_cut_off__says_nothing_of_the_others(folder: Path) -> None:
    for path in folder.rglob("*.png"):
        Image.open(path).convert("L").save(path)
    first = folder / "train" / "bright" / "00.jpg"  # of all files
    Image.effect_noise((40, 40), 90).convert("RGB").save(first)
    first.write_bytes(first.read_bytes()[:-300])
    data = load_data(Data(name="image_folder", root=str(folder), skip_unreadable=True), 0)
    assert data.shape == (1, 8, 8) and sum(map(len, (data.train, data.val, data.test))) == 120


def test_image_folder__refuses_what_cannot_be_learned(folder: Path, tmp_path: Path) -> None:
    def refused(root: Path, message: str) -> None:
        with pytest.raises(SettingError, match=message):
            load_data(Data(name="image_folder", root=str(root)), 0)

    refused(tmp_path / "missing", "missing is not a folder")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "has no class folders")
    (tmp_path / "empty" / "train").mkdir()
    refused(tmp_path / "empty", "has no class folders")
    (tmp_path / "empty" / "train" / "only").mkdir()
    refused(tmp_path / "empty", "has one class, only")
    Image.new("RGB", (9, 8)).save(folder / "train" / "dark" / "99.png")
    refused(folder, "differ in size .*99.png is 9×8.*image_size|differ in size .*99.png 9×8.*image_size")
    (folder / "train" / "dark" / "99.png").unlink()
    (folder / "val" / "grey").mkdir(parents=True)
    refused(folder, "grey is a class that .* does not have")
    shutil.rmtree(folder / "val")
    for path in folder.glob("train/*/*"):
        Image.new("RGB", (8, 8)).save(path)
    refused(folder, "zero covariance")


def test_image_folder__names_that_are_not_utf_8(folder: Path) -> None:
    dark = folder / "train" / "dark"
    shutil.copy(dark / "00.png", dark / "\udcff.png")
    assert load_data(Data(name="image_folder", root=str(folder)), 0).digest
    dark.rename(folder / "train" / "\udcff")
    with pytest.raises(
        SettingError, match=r"data\.root: the name of class '\\udcff' can't be stored; rename its folder"
    ):
        load_data(Data(name="image_folder", root=str(folder)), 0)


def test_image_folder__follows_links__and_names_what_it_does_not_use(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, dark = Data(name="image_folder", root=str(folder)), folder / "train" / "dark"
    before = load_data(config, 0)
    capsys.readouterr()
    elsewhere = folder.parent / "elsewhere"
    shutil.copytree(dark, elsewhere)
    (dark / "linked").symlink_to(elsewhere)
    (dark / "around").symlink_to(dark)  # which would never end
    (folder / "loose.png").touch()
    (folder / "zzz").mkdir()
    after = load_data(config, 0)
    assert (
        sum(map(len, (after.train, after.val, after.test)))
        == len(before.train) + len(before.val) + len(before.test) + 60
    )
    assert f"not used, as they lie in no class folder: {folder / 'loose.png'} and 1 more" in capsys.readouterr().out
    (folder / "test" / "dark").mkdir(parents=True)
    shutil.copy(dark / "00.png", folder / "test" / "dark")
    load_data(config, 0)
    assert f"data.root: {folder / 'test'} has no image of class bright\n" in capsys.readouterr().out
    (folder / "Train").mkdir()
    with pytest.raises(SettingError, match="has both Train and train for the train images; keep one of them"):
        load_data(config, 0)


@pytest.mark.parametrize("what", ["a link to nothing", "a pipe"])
def test_image_folder__what_is_no_file__is_named(what: str, folder: Path) -> None:
    path = folder / "train" / "dark" / "x.png"
    if what == "a pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(folder / "nowhere")
    with pytest.raises(SettingError, match=r"dark/x\.png is not a readable image \(it is no file\); mend or remove it"):
        load_data(Data(name="image_folder", root=str(folder)), 0)


def test_image_folder__images_that_no_disk_holds(folder: Path) -> None:
    config = Data(name="image_folder", root=str(folder), image_size=3_000_000)
    with pytest.raises(
        SettingError, match=r"data\.image_size: 3000000, but 120 images of 3×3000000×3000000 take .* GB"
    ):
        load_data(config, 0)


ONE = Images(torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.tensor([0, 1]))
WRONG: dict[str, dict[str, Any]] = {
    "val has no image": {"val": Images(ONE.pixels[:0], ONE.labels[:0])},
    r"test has images of \(1, 5, 4\), train of \(1, 4, 4\)": {
        "test": Images(torch.zeros(2, 1, 5, 4, dtype=torch.uint8), ONE.labels)
    },
    "val has labels from -1 to 1 for 2 classes": {"val": Images(ONE.pixels, torch.tensor([-1, 1]))},
    "train has labels from 0 to 2 for 2 classes": {"train": Images(ONE.pixels, torch.tensor([0, 2]))},
    "the classes are .*; give at least two, of different names": {"classes": ["a", "a"]},
    "data.crop: 4 is not below the side": {"augmentation": Augmentation(False, 4)},
}


@pytest.mark.parametrize("told", WRONG)
def test_a_data_set_of_ones_own__is_checked(told: str) -> None:
    parts: dict[str, Any] = {
        "classes": ["a", "b"],
        "train": ONE,
        "val": ONE,
        "test": ONE,
        "augmentation": Augmentation(False, 1),
    }
    assert DataSet(**parts).shape == (1, 4, 4)
    with pytest.raises(SettingError, match=told):
        DataSet(**parts | WRONG[told])
    for pixels, labels, names, what in (
        (ONE.pixels[:].float(), ONE.labels, None, "images: 4 dimensions of torch.float32; give"),
        (ONE.pixels[0], ONE.labels, None, "images: 3 dimensions of torch.uint8"),
        (ONE.pixels, ONE.labels.int(), None, "labels: 2 of torch.int32 for 2 images; give one int64"),
        (ONE.pixels, ONE.labels[:1], None, "labels: 1 of torch.int64 for 2 images"),
        (ONE.pixels, ONE.labels, ["x"], "names: 1 for 2 images"),
    ):
        with pytest.raises(SettingError, match=what):
            Images(pixels, labels, names)


def test_image_folder__labels_of_every_split_are_positions_in_the_classes(folder: Path) -> None:
    (folder / "train" / "middling").mkdir()
    for i in range(10):
        Image.new("RGB", (8, 8), (120, 120, 119 + i % 3)).save(folder / "train" / "middling" / f"{i}.png")
    for split, names in (("val", ["middling", "bright"]), ("test", ["dark", "middling"])):  # each lacks a class
        for name in names:
            shutil.copytree(folder / "train" / name, folder / split / name)
    data = load_data(Data(name="image_folder", root=str(folder)), 0)
    assert data.classes == ["bright", "dark", "middling"]
    for images, present in ((data.train, {0, 1, 2}), (data.val, {0, 2}), (data.test, {1, 2})):
        level = images.pixels[:].float().mean((1, 2, 3))
        expected = torch.where(level > 140, 0, torch.where(level < 100, 1, 2))
        assert torch.equal(images.labels, expected) and set(expected.tolist()) == present


def test_image_folder__refuses_an_empty_class__but_not_in_the_test(folder: Path) -> None:
    config = Data(name="image_folder", root=str(folder))
    shutil.copytree(folder / "train", folder / "test")
    shutil.rmtree(folder / "test" / "dark")
    (folder / "test" / "dark").mkdir()
    assert set(load_data(config, 0).test.labels.tolist()) == {0}
    (folder / "train" / "none").mkdir()
    with pytest.raises(SettingError, match="^data.root: .*train/none is empty; add images of this class or remove"):
        load_data(config, 0)
