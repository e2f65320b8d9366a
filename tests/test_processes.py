"""Several processes that train one stack: as a launcher starts them, with gloo on the CPU."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from layerwise.experiments.selftest.command import Ended, Started
from tests.conftest import QUIET, ROOT, SMALL, Command, environment
from tests.run.test_run import hashes

STEADY = ["--optimizer.name=sgd", "--optimizer.schedule=steps", "--optimizer.learning_rate=0.05"]
"""AdamW takes steps by the sign of gradients that are next to nothing, which rounding decides"""


@contextmanager
def launched(rank: int, devices: int, nodes: int, port: int) -> Iterator[None]:
    """What torchrun tells process `rank` of those that it starts."""
    given = {"RANK": rank, "LOCAL_RANK": rank % devices, "GROUP_RANK": rank // devices, "WORLD_SIZE": devices * nodes}
    given |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "none"}
    os.environ |= {name: str(value) for name, value in given.items()} | environment()
    torch.set_num_threads(1)
    yield


def started(folder: Path, *arguments: str, devices: int = 2, nodes: int = 1) -> list[Started]:
    """The processes of a training, each forked from one that has imported everything."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    given = ["train", *arguments, f"--trainer.devices={devices}", f"--trainer.num_nodes={nodes}"]
    return [
        Started(folder, given, within=partial(launched, rank, devices, nodes, port)) for rank in range(devices * nodes)
    ]


def ended(folder: Path, *arguments: str, devices: int = 2, nodes: int = 1) -> list[Ended]:
    """They, once they have ended."""
    return [each.ended(120) for each in started(folder, *arguments, devices=devices, nodes=nodes)]


def said(end: Ended) -> str:
    """What a process printed, but for what counts its operations."""
    return end.printed.partition("operations: ")[0]


def tensors(run: Path, layer: int, name: str) -> dict[str, Tensor]:
    return load_file(run / f"layer-{layer}" / f"{name}.safetensors")


def difference(run: Path, expected: Path, layer: int) -> float:
    """How far any number of a layer is from another run's, in units of the largest of its tensor."""
    mine, theirs = (tensors(each, layer, "layer") for each in (run, expected))
    assert mine.keys() == theirs.keys()
    return max(float((mine[name] - value).abs().max() / value.abs().max()) for name, value in theirs.items())


def test_two_processes__train_what_one_does__and_the_first_alone_writes_and_speaks(
    command: Command, tmp_path: Path
) -> None:
    given = [*SMALL, *STEADY, "--depth=2", "--data.crop=1", "--optimizer.epochs=3", "--wandb.mode=disabled"]
    one = command("train", *given, "--run_dir=one")
    assert one.returncode == 0, one.stderr
    first, second = ended(tmp_path, *given, "--run_dir=two")
    assert (first.code, second.code) == (0, 0), first.printed + second.printed
    assert second.operations == 0 and said(second) == ""
    assert (
        re.sub(r"\d\.\d|two", "", said(first)).splitlines()[1:]
        == re.sub(r"\d\.\d|one", "", one.stdout).splitlines()[1:]
    )
    assert hashes(tmp_path / "two", "layer-1/dictionary*") == hashes(tmp_path / "one", "layer-1/dictionary*")
    assert difference(tmp_path / "two", tmp_path / "one", 1) < 1e-4
    assert difference(tmp_path / "two", tmp_path / "one", 2) < 1e-2  # its input is rounded to half precision
    mine, theirs = (json.loads((tmp_path / run / "layer-2/layer.json").read_text()) for run in ("two", "one"))
    assert mine["val_accuracy"] == theirs["val_accuracy"]
    for epoch, other in zip(mine["epochs"], theirs["epochs"], strict=True):
        assert epoch == pytest.approx(other, rel=1e-3, abs=0.002)  # an image or two lie at a border

    # upon the same first layer the second one's dictionary is the same, to the bit
    shutil.rmtree(tmp_path / "two")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    again = ended(tmp_path, *given, "--run_dir=two", "--restart_from=2")
    assert [end.code for end in again] == [0, 0]
    assert hashes(tmp_path / "two", "layer-2/dictionary*") == hashes(tmp_path / "one", "layer-2/dictionary*")
    assert difference(tmp_path / "two", tmp_path / "one", 2) < 1e-4


def killed(folder: Path, which: int, *arguments: str) -> list[Ended]:
    """Kill one of two processes once an epoch is done."""
    both, last = started(folder, *arguments), folder / "r" / "layer-1" / "last.ckpt"
    before, deadline = last.stat().st_mtime_ns if last.exists() else 0, time.monotonic() + 60
    while not last.exists() or last.stat().st_mtime_ns == before:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    pid = both[which].process.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    return [each.ended(60) for each in both]


def test_a_process_that_is_killed__ends_all__and_any_number_goes_on(command: Command, tmp_path: Path) -> None:
    given = [*QUIET, *STEADY, "--optimizer.epochs=8", "--optimizer.batch_size=128"]
    for which in (1, 0):
        ends = killed(tmp_path, which, *given)
        assert ends[which].code == -signal.SIGKILL and ends[1 - which].code == 1
        assert (
            "\nerror: trainer.devices: one of 2 processes has ended; the same command" in f"\n{ends[1 - which].printed}"
        )
        assert "Traceback" not in ends[1 - which].printed
        assert not (tmp_path / "r/layer-1/layer.json").exists()
    done = command("train", *given)
    assert done.returncode == 0 and "resuming after its last finished epoch" in done.stdout
    assert 1 < int(re.findall(r"epoch (\d+)/8", done.stdout)[0]) <= 8
    whole = command("train", *given, "--run_dir=whole")
    assert whole.returncode == 0
    assert difference(tmp_path / "r", tmp_path / "whole", 1) < 1e-3


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--optimizer.batch_size=5000"], "optimizer.batch_size: 5000 is more than the 1294 training images"),
        (["--optimizer.batch_size=65"], "optimizer.batch_size: 65 images cannot be divided among 2 processes"),
    ],
)
def test_a_mistake__is_told_once__and_all_end_with_its_code(arguments: list[str], message: str, tmp_path: Path) -> None:
    first, second = ended(tmp_path, *QUIET, *arguments)
    assert (first.code, second.code) == (2, 2)
    assert said(second) == "" and said(first).removeprefix("starting: loading torch and lightning\n").startswith(
        f"error: {message}"
    )
    assert not (tmp_path / "r").exists()
