"""layerwise predict: from files to classes."""

import csv
import io
import json
import os
import shutil
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image

import layerwise
from layerwise.data.splits import load_data
from layerwise.trained import TrainedStack
from tests.conftest import SMALL, Command, standard_input


@pytest.fixture
def pictures(finished: Path, tmp_path: Path) -> list[str]:
    """Three test images as files, two of them in a folder."""
    names = ["in/a.png", "in/b.bmp", "c.tiff"]
    (tmp_path / "in").mkdir()
    test = load_data(layerwise.Data(), 0).test
    for name, image in zip(names, test.pixels[:], strict=False):
        Image.fromarray(image[0].numpy()).save(tmp_path / name)
    return names


def test_predict__tells_class_probability_and_next_best(pictures: list[str], finished: Path, command: Command) -> None:
    shares = layerwise.load(finished).predict_proba(pictures)
    best = shares.topk(2)
    expected = [
        [name, *(cell for place in range(2) for cell in (str(int(i[place])), f"{float(p[place]):.4f}"))]
        for name, p, i in zip(pictures, best.values, best.indices, strict=True)
    ]
    done = command("predict", "r", "in", "c.tiff")
    assert done.returncode == 0, done.stderr
    assert [line.split() for line in done.stdout.splitlines()[1:]] == expected
    assert list(csv.reader(io.StringIO(command("predict", "r", "in", "c.tiff", "--csv").stdout)))[1:] == expected
    with standard_input("\n".join(pictures).encode()):
        lines = [json.loads(line) for line in command("predict", "r", "-", "--json").stdout.splitlines()]
    assert [(line["file"], line["class"]) for line in lines] == [(name, label) for name, label, *_ in expected]
    assert [line["probabilities"]["7"] for line in lines] == pytest.approx(shares[:, 7].tolist(), abs=1e-6)


def test_predict__says_which_files_are_none_and_goes_on(pictures: list[str], command: Command, tmp_path: Path) -> None:
    (tmp_path / "in" / "notes.txt").write_text("x")
    done = command("predict", "r", "in", "--csv")
    assert done.returncode == 1 and len(done.stdout.splitlines()) == 3
    first, last = done.stderr.splitlines()
    assert first.startswith("images: in/notes.txt is not a readable image (cannot identify")
    assert last == "error: 1 of 3 files are not readable images, as said above"


@pytest.mark.parametrize("form, lines", [("--csv", [1, 2, 3]), ("--json", [0, 1, 2])])
def test_predict__writes_each_line_before_the_next_file_is_read(
    form: str, lines: list[int], pictures: list[str], command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[int] = []

    def classified(own: TrainedStack, files: Iterable[str]) -> Iterator[tuple[str, torch.Tensor]]:
        for file in files:
            assert isinstance(sys.stdout, io.StringIO)
            written.append(len(sys.stdout.getvalue().splitlines()))
            yield file, torch.full((10,), 0.1)

    monkeypatch.setattr(TrainedStack, "classified", classified)
    assert command("predict", "r", *pictures, form).returncode == 0
    assert written == lines


def test_predict__of_a_run_that_is_none(command: Command) -> None:
    done = command("predict", "nowhere", "a.png")
    assert done.returncode == 2 and "RUN: nowhere is not a folder" in done.stderr
    home = command("predict", "~nobody-of-that-name/r", "a.png")
    assert home.returncode == 2 and "RUN: ~nobody-of-that-name/r is not a folder" in home.stderr


def test_predict__of_a_dim_picture__is_silent(finished: Path, command: Command) -> None:
    Image.new("L", (8, 8), 5).save("dim.png")
    done = command("predict", "r", "dim.png")
    assert done.returncode == 0 and done.stderr == ""


def test_predict__in_a_folder_that_is_gone(process: Command, tmp_path: Path) -> None:
    gone = "import os; from layerwise.cli import main; os.rmdir(os.getcwd()); "
    done = process("-c", f"{gone}raise SystemExit(main(['predict', '/r', '/a.png']))")
    assert done.returncode == 2
    assert done.stderr == "error: the folder that this was started in is gone; change to another\n"


def test_predict__of_names_in_no_encoding_that_python_knows(pictures: list[str], command: Command) -> None:
    names = [b"n\xe9.bmp", b"form\x0cfeed.bmp"]
    for name in names:
        shutil.copy(pictures[1], os.fsdecode(name))
    with standard_input(b"\n".join([*names, b""])):
        done = command("predict", "r", "-", "--csv")
    assert done.returncode == 0, done.stderr
    assert [row[0] for row in csv.reader(io.StringIO(done.stdout))][1:] == [os.fsdecode(name) for name in names]


def test_predict__says_what_a_terminal_would_obey__as_letters(pictures: list[str], command: Command) -> None:
    Path("esc\x1b[31mX\nY.txt").write_text("x")
    done = command("predict", "r", "esc\x1b[31mX\nY.txt")
    first, last = done.stderr.splitlines()
    assert done.returncode == 1 and first.startswith("images: esc?[31mX?Y.txt is not a readable image")
    assert last.startswith("error: 1 of 1 files")


@pytest.mark.parametrize("verb", ["predict", "features"])
def test_no_picture_at_all__is_refused(verb: str, finished: Path, command: Command, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    out = ["out.npz"] * (verb == "features")
    done = command(verb, "r", "empty", *out)
    assert done.returncode == 2
    assert done.stderr == "error: FILE: there is no file in empty; give pictures, or folders of them\n"
    with standard_input(b""):
        assert "there is no file in -;" in command(verb, "r", "-", *out).stderr


def test_predict__agrees_with_evaluate_on_a_folder(command: Command, folder: Path, tmp_path: Path) -> None:
    """What is read for use is read as it was for training: the share of right answers is the same to the last image."""
    test = tmp_path / "images" / "test"
    for name in ("bright", "dark"):  # other sizes than those trained on
        for i, path in enumerate(sorted((folder / "train" / name).iterdir())[::4]):
            (test / name).mkdir(parents=True, exist_ok=True)
            Image.open(path).resize((9 + i, 12)).save(test / name / path.name)
    given = ["--data.name=image_folder", f"--data.root={folder}", "--data.image_size=8", "--optimizer.batch_size=16"]
    done = command("train", *SMALL, *given, "--run_dir=r", "--wandb.mode=disabled", "--optimizer.epochs=1")
    assert done.returncode == 0, done.stderr
    told = json.loads((tmp_path / "r" / "summary.json").read_text())["test_accuracy"]
    rows = list(csv.reader(io.StringIO(command("predict", "r", "images/test", "--csv").stdout)))[1:]
    assert len(rows) == 30
    assert sum(Path(row[0]).parent.name == row[1] for row in rows) / 30 == pytest.approx(told)
