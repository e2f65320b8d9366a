"""Images in tar shards are those of a folder; and what is odd in them is named."""

import pickle
import re
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from layerwise.config import Data, SettingError
from layerwise.config.run import Trainer
from layerwise.data import decoding, rows
from layerwise.data.decoding import Decoded
from layerwise.data.images import Images
from layerwise.data.reading import Header, Place, pixels_of, read_both
from layerwise.data.rows import Stored
from layerwise.data.splits import DataSet, load_data
from layerwise.launcher import together
from layerwise.processes import agreed
from tests.data.test_sets import hashed
from tests.large import add, encoded
from tests.test_processes import in_two, launched


def picture(value: int) -> bytes:
    return encoded(np.full((6, 5, 3), value, np.uint8), "PNG")


def shard(path: Path, samples: dict[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in samples.items():
            add(archive, name, content)


def some(start: int, count: int = 40) -> dict[str, bytes]:
    """Pictures whose brightness is their number, of class 0 where that is even."""
    found: dict[str, bytes] = {}
    for i in range(start, start + count):
        found |= {f"{i:04}.png": picture(i), f"{i:04}.cls": f"{i % 2}\n".encode(), f"{i:04}.json": b"{}"}
    return found


def read(root: Path, **settings: Any) -> DataSet:
    return load_data(Data(name="image_shards", root=str(root), **settings), 0)


def levels(images: Images) -> list[int]:
    assert bool((images.pixels[:].flatten(1) == images.pixels[:][:, :1, 0, 0]).all())
    return [int(level) for level in images.pixels[:][:, 0, 0, 0]]


def test_shards__are_split_by_shard_and_key__or_as_their_names_say(tmp_path: Path) -> None:
    shard(tmp_path / "all-000.tar", some(0))
    shard(tmp_path / "deep" / "all-001.TAR", some(40))
    data = read(tmp_path)
    names = [f"all-000.tar/{i:04}" for i in range(40)] + [f"deep/all-001.TAR/{i:04}" for i in range(40, 80)]
    test = [i for i in range(80) if hashed("test", names[i]) < 0.1]
    val = [i for i in range(80) if hashed("validation 0", names[i]) < 0.1 and i not in test]
    train = [i for i in range(80) if i not in test + val]
    assert (levels(data.train), levels(data.val), levels(data.test)) == (train, val, test)
    assert data.train.labels.tolist() == [i % 2 for i in train] and data.classes == ["0", "1"]
    assert data.shape == (3, 6, 5)
    (tmp_path / "all-000.tar").rename(tmp_path / "my-train-000.tar")
    (tmp_path / "valid").mkdir()
    (tmp_path / "deep" / "all-001.TAR").rename(tmp_path / "valid" / "1.tar")
    (tmp_path / "classes.txt").write_text("even\nodd\n", encoding="utf-8-sig")  # as some editors begin a file
    data = read(tmp_path)
    assert levels(data.val) == list(range(40, 80)) and len(data.train) + len(data.test) == 40
    assert data.classes == ["even", "odd"]


ODD: dict[str, tuple[str, dict[str, bytes]]] = {
    "no class": (r"x in .*a\.tar has no class, but KEY\.jpg or the like and KEY\.cls", {"x.png": picture(9)}),
    "no image": (r"x in .*a\.tar has no image, but", {"x.cls": b"1"}),
    "a name for a class": (r"x in .*a\.tar has class 'cat', but", {"x.png": picture(9), "x.cls": b"cat"}),
    "no picture": (r"x\.png in .*a\.tar is not a readable image", {"x.png": b"no picture", "x.cls": b"1"}),
}


@pytest.mark.parametrize("what", ODD)
def test_shards__what_is_odd_is_named__and_left_out_if_asked(
    what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told, samples = ODD[what]
    shard(tmp_path / "a.tar", some(0) | samples)
    with pytest.raises(SettingError, match=f"^data.root: {told}.*skip_unreadable true"):
        read(tmp_path)
    data = read(tmp_path, skip_unreadable=True)
    assert sum(map(len, (data.train, data.val, data.test))) == 40
    assert "data.root: excluded 1 " in capsys.readouterr().out


def test_shards__two_images_by_one_name__cost_that_sample_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shard(tmp_path / "a.tar", {"z.png": picture(1), "z.jpg": picture(2), "z.cls": b"0"} | some(0))
    data = read(tmp_path, skip_unreadable=True)
    assert sum(map(len, (data.train, data.val, data.test))) == 40
    assert "excluded 1 samples that are none (" in (said := capsys.readouterr().out)
    assert "a.tar has two images by the name z)" in said


@pytest.mark.parametrize("kept", [0, 1536 * 2 * 10, 1536 * 2 * 10 + 700])
def test_shards__that_are_cut_short__are_named__and_read_so_far_if_asked(
    kept: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shard(tmp_path / "a.tar", some(0))
    shard(tmp_path / "b.tar", some(40))
    whole = (tmp_path / "b.tar").read_bytes()
    (tmp_path / "b.tar").write_bytes(whole[:kept])
    with pytest.raises(
        SettingError, match=r"^data.root: .*b\.tar is not a readable tar file \(.*\); mend or remove it"
    ):
        read(tmp_path)
    data = read(tmp_path, skip_unreadable=True)
    assert sum(map(len, (data.train, data.val, data.test))) == 40 + kept // 3072
    assert "excluded what is left of" in capsys.readouterr().out


def test_shards__refuse_what_cannot_be_learned(tmp_path: Path) -> None:
    def refused(told: str) -> None:
        with pytest.raises(SettingError, match=f"^data.root: {told}"):
            read(tmp_path)

    refused(r".* has no \.tar files")
    path = tmp_path / "a.tar"
    shard(path, {"x.png": picture(1), "x.cls": b"0", "y.png": picture(2), "y.cls": b"0"})
    refused("the training images of .* have 1 class")
    shard(path, some(0) | {"x.png": picture(9), "x.cls": b"3"})
    refused("no training image is of class 2, but one is of 3; number classes from 0, or name all")
    (tmp_path / "classes.txt").write_text("a\nb\nc\n")
    refused(r"x\.png in .*a\.tar is of class 3, but there are 3, from 0")
    (tmp_path / "classes.txt").write_text("a\nb\nc\nd\n")
    refused("no training image of class c under .* is readable")
    (tmp_path / "classes.txt").write_text("a\n\nb\n")
    refused(r".*classes\.txt has an empty line, or a name twice")
    (tmp_path / "classes.txt").write_text("")
    refused(r".*classes\.txt names 0 classes; give two or more, a name a line")
    (tmp_path / "classes.txt").unlink()
    shard(path, some(0) | {"0001.jpg": picture(9)})
    refused(r".*a\.tar has two images by the name 0001; rename")
    path.write_bytes(b"no tar file" * 99)
    refused(r".*a\.tar is not a readable tar file")
    path.rename(tmp_path / "a.tar.gz")
    refused(r".*a\.tar\.gz is compressed")
    (tmp_path / "a.tar.gz").unlink()
    shard(tmp_path / "train-test.tar", some(0))
    refused("the name of train-test.tar says both test and train")
    (tmp_path / "train-test.tar").rename(tmp_path / "test.tar")
    refused(".*test.tar is for test, but none is for train")
    shard(tmp_path / "b.tar", some(0))
    shard(tmp_path / "train.tar", some(0))
    refused(r".*b\.tar says neither train nor val nor test")


@pytest.mark.parametrize("where", ["memory", "file", "memory after all", "nowhere"])
def test_pictures__are_the_same_wherever_they_are_kept__and_decoded_once_if_kept(
    where: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = Data(name="image_folder", root=str(folder))
    expected = load_data(config, 0)
    decodings = list[tuple[int, int, int]]()

    def counted(picture: Image.Image, shape: tuple[int, int, int]) -> npt.NDArray[np.uint8]:
        decodings.append(shape)
        return pixels_of(picture, shape)

    monkeypatch.setattr(decoding, "pixels_of", counted)
    if where != "memory":
        monkeypatch.setattr(rows, "HELD", 0)
    if where in ("memory after all", "nowhere"):

        def full(*given: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("os.posix_fallocate", full)
    if where == "nowhere":
        monkeypatch.setattr(decoding, "SEVERAL", 16)
        monkeypatch.setattr("layerwise.memory.total", lambda: 4 * 20 * 192)  # a quarter holds 20 pictures
    data = load_data(config, 0)
    kinds = {"memory": torch.Tensor, "memory after all": torch.Tensor, "file": Stored, "nowhere": Decoded}
    assert isinstance(data.train.pixels, kinds[where])
    told = "120 images of 3×8×8 take 0.0 GB, for which .* has no room .No space left on device.: decoding them anew"
    assert bool(re.search(told, capsys.readouterr().out)) == (where == "nowhere")
    assert data.digest == expected.digest and data.dimmest == expected.dimmest
    index = torch.tensor([40, 3, 77])
    for own, other in ((data.train, expected.train), (data.val, expected.val), (data.test, expected.test)):
        assert torch.equal(own.pixels[:], other.pixels[:]) and torch.equal(own.labels, other.labels)
        assert own.names == other.names
    assert torch.equal(data.train.pixels[index], expected.train.pixels[index])
    if where != "nowhere":
        assert len(decodings) == 120
    else:
        next((folder / "train" / "dark").iterdir()).unlink()
        with pytest.raises(SettingError, match="is no longer a readable image; bring it back"):
            for part in (data.train, data.val, data.test):
                part.pixels[:]


def test_pictures__gray_until_one_is_in_color__are_all_in_color(tmp_path: Path) -> None:
    for i in range(30):
        for label in ("a", "b"):
            (tmp_path / label).mkdir(exist_ok=True)
            Image.new("L", (4, 4), i).save(tmp_path / label / f"{i:02}.png")
    config = Data(name="image_folder", root=str(tmp_path))
    gray = load_data(config, 0)
    assert gray.shape == (1, 4, 4)
    Image.new("RGB", (4, 4), (1, 2, 3)).save(tmp_path / "b" / "99.png")
    colored = load_data(config, 0)
    assert colored.shape == (3, 4, 4)
    first = colored.train.pixels[: len(gray.train) // 2]
    assert torch.equal(first[:, 0], first[:, 2]) and torch.equal(first[:, :1], gray.train.pixels[: len(first)])


def read_by_one(rank: int, port: int, config: Data, held: int, left: Path) -> None:
    """Read images as one of two processes; leave which pictures this one has decoded, where pixels lie, and they."""
    decodings = list[str]()

    def counted(place: Place, mode: str) -> tuple[Header, Image.Image]:
        decodings.append(str(place))
        return read_both(place, mode)

    with pytest.MonkeyPatch.context() as patch, launched(rank, 2, 1, port), together(Trainer("cpu", 2)):
        patch.setattr(decoding, "read_both", counted)
        patch.setattr(rows, "HELD", held)
        try:
            data = agreed(load_data, config, 0)
        except SettingError as error:
            found: tuple[Any, ...] = (str(error),)
        else:
            found = decodings, type(data.train.pixels), [(own.pixels[:], own.labels, own.names) for own in splits(data)]
    left.with_suffix(f".{rank}").write_bytes(pickle.dumps(found))


def splits(data: DataSet) -> list[Images]:
    return [data.train, data.val, data.test]


def read_by_two(config: Data, left: Path, held: int = rows.HELD) -> list[tuple[Any, ...]]:
    in_two(read_by_one, config, held, left)
    return [pickle.loads(left.with_suffix(f".{rank}").read_bytes()) for rank in (0, 1)]


@pytest.mark.parametrize("name, held", [("image_folder", rows.HELD), ("image_shards", 0)])
def test_two_processes__decode_each_picture_once_in_all(name: str, held: int, folder: Path, tmp_path: Path) -> None:
    root = folder
    if name == "image_shards":
        root = tmp_path / "shards"
        shard(root / "all-000.tar", some(0))
        shard(root / "all-001.tar", some(40))
    config = Data(name=name, root=str(root))
    expected, found = load_data(config, 0), read_by_two(config, tmp_path / "left", held)
    (first, second), count = (one[0] for one in found), sum(map(len, splits(expected)))
    assert len(first) == len(second) == count // 2 and len({*first, *second}) == count
    for _, kind, own in found:
        assert kind is (Stored if held == 0 else torch.Tensor)
        for (pixels, labels, names), one in zip(own, splits(expected), strict=True):
            assert torch.equal(pixels, one.pixels[:]) and torch.equal(labels, one.labels) and names == one.names


def test_two_processes__agree_on_color__and_on_what_is_no_picture(folder: Path, tmp_path: Path) -> None:
    for path in sorted(folder.rglob("*.png"))[:-1]:  # all but one, which one process alone decodes
        Image.open(path).convert("L").save(path)
    config = Data(name="image_folder", root=str(folder))
    expected = load_data(config, 0)
    assert expected.shape == (3, 8, 8)
    for _, _, own in read_by_two(config, tmp_path / "left"):
        assert all(
            torch.equal(pixels, one.pixels[:]) for (pixels, _, _), one in zip(own, splits(expected), strict=True)
        )
    odd = folder / "train" / "dark" / "59.png"
    odd.write_bytes(b"no picture")
    for (told,) in read_by_two(config, tmp_path / "left"):
        assert told.startswith(f"data.root: {odd} is not a readable image")
