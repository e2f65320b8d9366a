"""layerwise features: what a linear model takes, of folders of pictures."""

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import layerwise
from layerwise.data.splits import load_data
from tests.conftest import Command, standard_input

NAMES = ["$5_$10/a.png", "<b>x<b>/deep/er.png", "loose.bmp", "שלום/ü.png"]
CLASSES = ["$5_$10", "<b>x<b>", "", "שלום"]


@pytest.fixture
def pictures(finished: Path, tmp_path: Path) -> list[str]:
    """Test images as files in folders of odd names, in alphabetical order."""
    names = [f"in/{name}" for name in NAMES]
    for name, image in zip(names, load_data(layerwise.Data(), 0).test.pixels[:], strict=False):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[0].numpy()).save(tmp_path / name)
    return names


def test_features__are_those_of_transform__with_files_and_classes(
    pictures: list[str], finished: Path, command: Command
) -> None:
    stack = layerwise.load(finished)
    for options, expected in (
        ([], stack.transform(pictures)),
        (["--layer=1", "--pool=none"], stack.transform(pictures, 1, None)),
        (["--layer", "2", "--pool", "2"], stack.transform(pictures, 2, 2)),
        (["--layer=all", "--pool=none"], stack.transform(pictures, "all", None)),
    ):
        done = command("features", "r", "in", "out.npz", *options)
        assert done.returncode == 0, done.stderr
        assert done.stdout.endswith(f"out.npz: {expected.shape[1]} features of each of 4 images\n")
        with np.load(finished.parent / "out.npz", allow_pickle=False) as written:
            assert written["features"].dtype == np.float32
            np.testing.assert_allclose(written["features"], expected.numpy(), atol=1e-5)
            assert written["files"].tolist() == pictures and written["classes"].tolist() == CLASSES


def test_features__of_single_files_and_of_standard_input(pictures: list[str], command: Command, tmp_path: Path) -> None:
    with standard_input(f"\n{pictures[1]}\n\n".encode()):
        assert command("features", "r", pictures[2], "-", "in/$5_$10", "out.npz").returncode == 0
    with np.load(tmp_path / "out.npz", allow_pickle=False) as written:
        assert written["files"].tolist() == [pictures[2], pictures[1], pictures[0]]
        assert written["classes"].tolist() == ["", "", ""]


def test_features__says_which_files_are_none_and_goes_on(
    pictures: list[str], finished: Path, command: Command, tmp_path: Path
) -> None:
    (tmp_path / "in" / "<b>x<b>" / "a.txt").write_text("x")
    done = command("features", "r", "in", "out.npz")
    first, last = done.stderr.splitlines()
    assert done.returncode == 1
    assert first.startswith("images: in/<b>x<b>/a.txt is not a readable image (cannot identify")
    assert last == "error: 1 of 5 files are not readable images, as said above"
    with np.load(tmp_path / "out.npz") as written:
        assert written["files"].tolist() == pictures
        expected = layerwise.load(finished).transform(pictures)
        np.testing.assert_allclose(written["features"], expected.numpy(), atol=1e-5)


def test_features__as_parquet_are_the_same(
    pictures: list[str], finished: Path, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr("layerwise.features.ROWS", 3)  # more than one group of rows
    done = command("features", "r", "in", "out.parquet")
    assert done.returncode == 0, done.stderr
    table = parquet.read_table(tmp_path / "out.parquet")
    assert table["files"].to_pylist() == pictures and table["classes"].to_pylist() == CLASSES
    expected = layerwise.load(finished).transform(pictures)
    np.testing.assert_allclose(np.array(table["features"].to_pylist(), np.float32), expected.numpy(), atol=1e-5)


def test_features__without_pyarrow__say_what_to_install(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    done = command("features", "r", "in", "out.parquet")
    assert done.returncode == 2
    assert done.stderr.startswith("error: OUT: .parquet needs a package that is missing (")
    assert done.stderr.endswith("); pip install pyarrow\n")


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["in", "in/loose.bmp"], "OUT: in/loose.bmp ends in none of .npz, .parquet; give the name of a file to write"),
        (["in", "no/out.npz"], "OUT: no/out.npz cannot be written, since its folder is not there"),
        (["in", "out.npz", "--layer=3"], "layer: 3 is none of the run's; give 1 to 2, or all"),
        (["in", "out.npz", "--layer=0"], "layer: 0 is none of the run's; give 1 to 2, or all"),
        (["in", "out.npz", "--layer=x"], "layer: x is not a layer; give a number from 1, or all"),
        (["in", "out.npz", "--pool=0"], "pool: 0 is no side of a grid; give a number from 1, or none"),
        (["in", "out.npz", "--pool=-1"], "pool: -1 is no side of a grid; give a number from 1, or none"),
        (["empty", "out.npz"], "FILE: there is no file in empty; give pictures, or folders of them"),
    ],
)
def test_features__refuse_what_cannot_be_meant(
    arguments: list[str], message: str, pictures: list[str], command: Command, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    done = command("features", "r", *arguments)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith(f"error: {message}"), done.stderr
    assert not (tmp_path / "out.npz").exists()
