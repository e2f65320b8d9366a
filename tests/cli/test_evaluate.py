"""layerwise evaluate: accuracies of a run at every depth."""

import json
import re
from pathlib import Path

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
    folder.rename(tmp_path / "moved")
    gone = command("evaluate", "r")
    assert gone.returncode == 2
    assert re.fullmatch(r"error: data\.root: .*images is not a folder; .*\n", gone.stderr), gone.stderr
    assert command("evaluate", "r", "--data.root=moved").returncode == 0
    (tmp_path / "moved" / "train" / "dark" / "00.png").unlink()
    changed = command("evaluate", "r", "--data.root=moved")
    assert changed.returncode == 2
    assert re.fullmatch(
        r"error: data\.root: moved does not hold the data that r was trained on \(1 removed\); .*\n", changed.stderr
    ), changed.stderr
