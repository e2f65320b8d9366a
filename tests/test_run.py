"""Whole runs on digits: files, resume, use, evaluation."""

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import layerwise
from layerwise.run.directory import DamagedRun
from tests.conftest import ROOT, SMALL, Command, environment, run_command

QUIET = [*SMALL, "--run_dir=r", "--wandb.mode=disabled"]


def hashes(run: Path, pattern: str = "layer-*/*") -> dict[str, str]:
    return {str(path.relative_to(run)): hashlib.sha256(path.read_bytes()).hexdigest() for path in run.glob(pattern)}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of depth 2, trained once."""
    folder = tmp_path_factory.mktemp("trained")
    run_command(folder, str(ROOT / "train.py"), "--depth=2", *QUIET).check_returncode()
    return folder / "r"


@pytest.fixture
def finished(trained: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(trained, tmp_path / "r"))


def test_run__leaves_the_files_it_should(finished: Path) -> None:
    names = {path.name for path in finished.iterdir()}
    assert {"config.yaml", "summary.json", "report.html", "layer-1", "layer-2", "accuracy.png"} <= names
    for layer in ("layer-1", "layer-2"):
        files = {path.name for path in (finished / layer).iterdir()}
        assert files == {"dictionary.safetensors", "layer.safetensors", "layer.json"}
    summary = json.loads((finished / "summary.json").read_text())
    assert set(summary) == {"depth", "test_accuracy", "layers", "seconds"}
    assert summary["depth"] == 2 and 0 < summary["test_accuracy"] <= 1
    assert [set(layer) for layer in summary["layers"]] == [
        {"layer", "atoms", "output_shape", "val_accuracy", "seconds"}
    ] * 2
    record = json.loads((finished / "layer-2" / "layer.json").read_text())
    assert record["output_shape"] == [8, 4, 4]
    assert record["val_accuracy"] == max(epoch["val_accuracy"] for epoch in record["epochs"])
    for name, digest in record["files"].items():
        assert hashlib.sha256((finished / "layer-2" / name).read_bytes()).hexdigest() == digest


def test_a_deeper_run__keeps_the_layers_below__and_a_kill_changes_nothing(
    finished: Path, command: Command, tmp_path: Path
) -> None:
    before = hashes(finished)
    deeper = ["--depth=3", *QUIET, "--layers.3.patch_size=2"]
    uninterrupted = command("--depth=3", *QUIET[:-2], "--run_dir=u", "--wandb.mode=disabled", "--layers.3.patch_size=2")
    assert uninterrupted.returncode == 0, uninterrupted.stderr

    process = subprocess.Popen([sys.executable, str(ROOT / "train.py"), *deeper], cwd=tmp_path, env=environment())
    deadline = time.monotonic() + 120
    while not (finished / "layer-3" / "last.ckpt").exists():  # the first of two epochs is done
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (finished / "layer-3" / "layer.json").exists()
    assert {name: digest for name, digest in hashes(finished).items() if "layer-3" not in name} == before

    resumed = command(*deeper)
    assert resumed.returncode == 0, resumed.stderr
    assert "layer 1: epoch" not in resumed.stdout and "layer 2: epoch" not in resumed.stdout
    assert "layer 3: epoch 1/2" not in resumed.stdout and "layer 3: epoch 2/2" in resumed.stdout
    assert hashes(finished, "layer-*/*.safetensors") == hashes(tmp_path / "u", "layer-*/*.safetensors")
    assert hashes(finished).items() >= before.items()
    mine, theirs = (json.loads((run / "layer-3" / "layer.json").read_text()) for run in (finished, tmp_path / "u"))
    assert mine | {"seconds": 0} == theirs | {"seconds": 0}


def test_a_finished_run__is_not_trained_again(finished: Path, command: Command) -> None:
    before = hashes(finished)
    done = command("--depth=2", *QUIET)
    assert done.returncode == 0
    assert "epoch" not in done.stdout and "test accuracy" in done.stdout
    assert hashes(finished) == before


@pytest.mark.parametrize(
    "change, message",
    [
        ("--layer.atoms=20", r"layer 1 atoms: 20, but r was trained with 16"),
        ("--layers.2.pool=2", r"layer 2 pool: 2, but r was trained with 1"),
        ("--seed=1", r"seed: 1, but r was trained with 0"),
        ("--optimizer.epochs=9", r"optimizer\.epochs: 9, but r was trained with 2"),
        ("--data.validation=0.2", r"data\.validation: 0\.2, but r was trained with 0\.1"),
    ],
)
def test_a_changed_setting__is_refused_by_name(change: str, message: str, finished: Path, command: Command) -> None:
    before = hashes(finished, "**/*.*")
    done = command("--depth=2", *QUIET, change)
    assert done.returncode == 2
    assert re.fullmatch(rf"error: {message}; .*another --run_dir\n", done.stderr), done.stderr
    assert hashes(finished, "**/*.*") == before


def test_a_damaged_file__is_named(finished: Path, command: Command) -> None:
    path = finished / "layer-1" / "layer.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    done = command("--depth=2", *QUIET)
    assert done.returncode == 1
    assert "layer-1/layer.safetensors is missing or damaged; delete" in done.stderr
    with pytest.raises(DamagedRun, match="layer.safetensors"):
        layerwise.load(finished)


@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal__ends_the_run_with_its_code(number: signal.Signals, code: int, tmp_path: Path) -> None:
    arguments = [*QUIET, "--optimizer.epochs=500"]
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), *arguments],
        cwd=tmp_path,
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
    )
    while not (tmp_path / "r" / "layer-1" / "last.ckpt").exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code
    assert "Traceback" not in errors and "the same command goes on from here" in errors


def test_a_run_directory_in_use__is_refused(finished: Path, command: Command) -> None:
    import fcntl

    lock = os.open(finished / ".lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(lock, fcntl.LOCK_EX)
    done = command("--depth=2", *QUIET)
    os.close(lock)
    assert done.returncode == 2
    assert "r is in use by another process" in done.stderr


def test_load__transforms_and_predicts_as_the_run_did(finished: Path) -> None:
    from layerwise.config.run import DataConfig
    from layerwise.data.splits import load_data

    stack = layerwise.load(finished)
    test = load_data(DataConfig(), 0).test
    predicted = stack.predict(test.pixels)
    summary = json.loads((finished / "summary.json").read_text())
    assert float((predicted == test.labels).float().mean()) == pytest.approx(summary["test_accuracy"], abs=1e-6)
    as_floats = (test.pixels / 255).numpy()
    assert torch.equal(stack.predict(as_floats), predicted)
    assert stack.transform(test.pixels).shape == (359, 8, 4, 4)
    assert stack.transform(test.pixels[:5], layer=1).shape == (5, 8, 6, 6)
    torch.testing.assert_close(stack.transform(test.pixels[3]), stack.transform(test.pixels)[3:4])
    assert stack.transform(test.pixels[:0]).shape == (0, 8, 4, 4)
    assert stack.predict(np.zeros((2, 1, 8, 8), np.uint8)).shape == (2,)


@pytest.mark.parametrize(
    "images, message",
    [
        (np.zeros((2, 3, 8, 8), np.uint8), r"shape \(2, 3, 8, 8\), but the stack was trained on \(n, 1, 8, 8\)"),
        (np.full((2, 1, 8, 8), 200.0), r"values from 200 to 200; floating point images range from 0 to 1"),
        (np.zeros((2, 1, 8, 8), np.int64), r"type torch\.int64; give uint8"),
    ],
)
def test_load__refuses_other_images(images: np.ndarray, message: str, finished: Path) -> None:
    with pytest.raises(ValueError, match=message):
        layerwise.load(finished).predict(images)


def test_load__of_a_folder_without_a_layer(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="holds no finished layer"):
        layerwise.load(tmp_path)


def test_evaluate__prints_test_accuracy_at_every_depth(finished: Path, command: Command) -> None:
    done = command("evaluate", "r", tool=True)
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines() if re.match(r"\s*\d+ ", line)]
    summary = json.loads((finished / "summary.json").read_text())
    assert [line[0] for line in lines] == ["1", "2"]
    assert lines[1][2] == f"{summary['test_accuracy']:.2%}"
    wrong = command("evaluate", "nowhere", tool=True)
    assert (wrong.returncode, wrong.stderr[:31]) == (2, "error: RUN: nowhere is not a ru")
