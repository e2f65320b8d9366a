"""What only real processes show: kills, signals, exit codes."""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.conftest import QUIET, ROOT, SMALL, Command, environment
from tests.run.test_run import hashes


def started(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """A training as a process of its own."""
    command = [sys.executable, str(ROOT / "train.py"), *arguments]
    return subprocess.Popen(command, cwd=folder, env=environment(), stderr=subprocess.PIPE, text=True)


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    """Wait until a process that goes on has written a file."""
    deadline = time.monotonic() + 120
    while not path.exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.002)


def epochs(printed: str) -> list[tuple[int, int]]:
    """Layer and number of each epoch that was trained, by what was printed."""
    return [(int(layer), int(epoch)) for layer, epoch in re.findall(r"^layer (\d+).*: epoch (\d+)/", printed, re.M)]


def test_a_deeper_run__keeps_the_layers_below__and_a_kill_changes_nothing(
    finished: Path, command: Command, tmp_path: Path
) -> None:
    before = hashes(finished)
    deeper = ["--depth=3", *QUIET, "--layers.3.patch_size=2", "--layers.3.optimizer.epochs=8"]
    uninterrupted = command("train", *deeper, "--run_dir=u")
    assert uninterrupted.returncode == 0, uninterrupted.stderr

    process = started(tmp_path, *deeper)
    wait_for(finished / "layer-3" / "last.ckpt", process)  # the first of eight epochs is done
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not (finished / "layer-3" / "layer.json").exists()
    assert {name: digest for name, digest in hashes(finished).items() if "layer-3" not in name} == before

    resumed = command("train", *deeper)
    assert resumed.returncode == 0, resumed.stderr
    assert epochs(uninterrupted.stdout) == [
        (i, epoch) for i, last in enumerate((2, 2, 8), 1) for epoch in range(1, last + 1)
    ]
    trained = epochs(resumed.stdout)
    assert 1 <= len(trained) < 8 and trained == [(3, epoch) for epoch in range(9 - len(trained), 9)]
    assert hashes(finished, "layer-*/*.safetensors") == hashes(tmp_path / "u", "layer-*/*.safetensors")
    assert hashes(finished).items() >= before.items()
    mine, theirs = (json.loads((run / "layer-3" / "layer.json").read_text()) for run in (finished, tmp_path / "u"))
    of_time = {"seconds": 0, "fingerprint": ""}
    assert mine | of_time == theirs | of_time


def test_a_signal__ends_the_run_with_its_code__tracked_or_not(tmp_path: Path) -> None:
    expected = {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGUSR1: 128 + signal.SIGUSR1}
    modes = {signal.SIGTERM: "disabled", signal.SIGINT: "offline", signal.SIGUSR1: "offline"}
    given = [*SMALL, "--optimizer.epochs=500"]
    processes = {
        number: started(tmp_path, *given, f"--wandb.mode={mode}", f"--run_dir={number.name}")
        for number, mode in modes.items()
    }
    for number, process in processes.items():
        wait_for(tmp_path / number.name / "layer-1" / "last.ckpt", process)
        process.send_signal(number)
    for number, process in processes.items():
        _, errors = process.communicate(timeout=60)
        assert process.returncode == expected[number]
        assert errors == f"\nstopped by {number.name}; the same command goes on from here\n"
        assert not (tmp_path / number.name / "layer-1" / "layer.json").exists()
