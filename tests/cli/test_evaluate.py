"""layerwise evaluate: accuracies of a run at every depth."""

import json
import re
from pathlib import Path

import numpy as np
import torch

import layerwise
from layerwise.config import Data
from layerwise.data.splits import load_data
from tests.conftest import Command


def table(printed: str) -> list[list[str]]:
    """The cells of the lines that begin with a number."""
    return [line.split() for line in printed.splitlines() if re.match(r"\s*\d+ ", line)]


def test_evaluate__prints_test_accuracy_at_every_depth(finished: Path, command: Command) -> None:
    done = command("evaluate", "r")
    assert done.returncode == 0, done.stderr
    lines = table(done.stdout)
    summary = json.loads((finished / "summary.json").read_text())
    assert [line[0] for line in lines] == ["1", "2"]
    assert [line[1] for line in lines] == [f"{layer['val_accuracy']:.2%}" for layer in summary["layers"]]
    assert lines[1][2] == f"{summary['test_accuracy']:.2%}"


def test_evaluate__with_mirror_images_has_one_more_column(finished: Path, command: Command) -> None:
    plain, mirrored = table(command("evaluate", "r").stdout), table(command("evaluate", "r", "--mirror").stdout)
    assert [line[:3] for line in mirrored] == plain
    assert all(len(line) == 4 for line in mirrored)


def test_evaluate__with_mirror_images__adds_the_logits_of_left_and_right(finished: Path, command: Command) -> None:
    printed = [line[2:] for line in table(command("evaluate", "r", "--mirror").stdout)]
    stack, test = layerwise.load(finished).stack, load_data(Data(), 0).test
    x = torch.from_numpy(test.pixels.numpy().astype(np.float32)) * 2 / 255 - 1
    for depth, cells in enumerate(printed, 1):
        part = stack.below(depth + 1)
        logits = {
            name: part(images)[1]
            for name, images in (("as", x), ("mirrored", torch.from_numpy(x.numpy()[..., ::-1].copy())))
        }
        right = [
            float((own.argmax(1) == test.labels).double().mean())
            for own in (logits["as"], logits["as"] + logits["mirrored"])
        ]
        assert cells == [f"{accuracy:.2%}" for accuracy in right] and right[0] != right[1]


def test_evaluate__of_a_folder_without_a_run(command: Command) -> None:
    done = command("evaluate", "nowhere")
    assert (done.returncode, done.stderr[:31]) == (2, "error: RUN: nowhere is not a ru")
    assert done.stderr.count("\n") == 1


def test_evaluate__of_moved_and_of_changed_images(command: Command, folder: Path, tmp_path: Path) -> None:
    settings = [
        "--config=plain_digits",
        "--data.name=image_folder",
        f"--data.root={folder}",
        "--run_dir=r",
        "--wandb.mode=disabled",
    ]
    settings += ["--layer.atoms=4", "--layer.channels=2", "--optimizer.epochs=1", "--optimizer.batch_size=16"]
    assert command("train", *settings).returncode == 0
    before = command("evaluate", "r")
    folder.rename(tmp_path / "moved")
    gone = command("evaluate", "r")
    assert gone.returncode == 2
    assert re.fullmatch(r"error: data\.root: .*images is not a folder; .*\n", gone.stderr), gone.stderr
    moved = command("evaluate", "r", "--data.root=moved")
    assert moved.returncode == 0 and table(moved.stdout) == table(before.stdout) != []
    (tmp_path / "moved" / "train" / "dark" / "00.png").unlink()
    changed = command("evaluate", "r", "--data.root=moved")
    assert changed.returncode == 2
    assert re.fullmatch(
        r"error: data\.root: moved does not hold the data that r was trained on \(1 removed\); .*\n", changed.stderr
    ), changed.stderr
