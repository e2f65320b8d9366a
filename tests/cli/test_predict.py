"""layerwise predict: from files to classes."""

import csv
import io
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image

import layerwise
from layerwise.data.splits import load_data
from layerwise.trained import TrainedStack
from tests.conftest import SMALL, Command


@pytest.fixture
def pictures(finished: Path, tmp_path: Path) -> list[str]:
    """Three test images as files, two of them in a folder."""
    names = ["in/a.png", "in/b.bmp", "c.tiff"]
    (tmp_path / "in").mkdir()
    test = load_data(layerwise.Data(), 0).test
    for name, image in zip(names, test.pixels[:], strict=False):
        Image.fromarray(image[0].numpy()).save(tmp_path / name)
    return names


def test_predict__tells_class_probability_and_next_best(
    pictures: list[str], finished: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
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
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(pictures)))
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
    assert done.returncode == 1 and "nowhere is not a folder" in done.stderr


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
