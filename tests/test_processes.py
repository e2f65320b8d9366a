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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from layerwise.config.run import Trainer
from layerwise.experiments.selftest.command import SERVER, Ended, Started
from layerwise.launcher import together
from layerwise.nn.projection import normalized, projected
from tests.conftest import QUIET, ROOT, SMALL, Command, environment
from tests.nn.test_projection import modules, sparse
from tests.run.test_run import hashes

STEADY = ["--optimizer.name=sgd", "--optimizer.schedule=steps", "--optimizer.learning_rate=0.05"]
"""AdamW takes steps by the sign of gradients that are next to nothing, which rounding decides"""


@contextmanager
def launched(rank: int, devices: int, nodes: int, port: int) -> Iterator[None]:
    """What torchrun tells process `rank` of those that it starts."""
    given: dict[str, object] = {
        "RANK": rank,
        "LOCAL_RANK": rank % devices,
        "GROUP_RANK": rank // devices,
        "WORLD_SIZE": devices * nodes,
    }
    given |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "none"}
    os.environ |= {name: str(value) for name, value in given.items()} | environment()
    torch.set_num_threads(1)
    yield


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def in_two(task: Callable[..., None], *arguments: Any) -> None:
    """Do a task in two processes, which are given their rank, a port to meet at, and the arguments; both end well."""
    port = free_port()
    both = [SERVER.Process(target=task, args=(rank, port, *arguments)) for rank in (0, 1)]
    for each in both:
        each.start()
    for each in both:
        each.join(120)
        assert each.exitcode == 0


def started(folder: Path, *arguments: str, devices: int = 2, nodes: int = 1, verb: str = "train") -> list[Started]:
    """The processes of a command, each forked from one that has imported everything."""
    port = free_port()
    given = [verb, *arguments, f"--trainer.devices={devices}", f"--trainer.num_nodes={nodes}"]
    return [
        Started(folder, given, within=partial(launched, rank, devices, nodes, port)) for rank in range(devices * nodes)
    ]


def ended(folder: Path, *arguments: str, devices: int = 2, nodes: int = 1, verb: str = "train") -> list[Ended]:
    """They, once they have ended."""
    return [each.ended(120) for each in started(folder, *arguments, devices=devices, nodes=nodes, verb=verb)]


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
    # with seed 0 a point lies so near a border that how its features are rounded decides, and k-means goes another way
    given = [*SMALL, *STEADY, "--depth=2", "--data.crop=1", "--optimizer.epochs=3", "--wandb.mode=disabled", "--seed=1"]
    one = command("train", *given, "--run_dir=one")
    assert one.returncode == 0, one.stderr
    first, second = ended(tmp_path, *given, "--run_dir=two")
    assert (first.code, second.code) == (0, 0), first.printed + second.printed
    assert second.operations == 0 and said(second) == ""
    seconds = r" *\b\d+\.\d\b"
    assert (
        re.sub(f"{seconds}|two", "", said(first)).splitlines()[1:]
        == re.sub(f"{seconds}|one", "", one.stdout).splitlines()[1:]
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


FORMS = ["dense", "sparse", "apart"]
"""how a norm and a projection are computed: in one pass, in one pass without zeros, one after the other"""


def embedding() -> tuple[Tensor, Tensor]:
    """A batch (6, 40, 4, 3) with zeros, whose second half is other than the first, and factors for the outputs."""
    torch.manual_seed(0)
    a = torch.randn(6, 40, 4, 3) + torch.arange(6)[:, None, None, None]
    return a * (torch.rand(a.shape) < 0.2), torch.randn(6, 7, 4, 3)


def moments(rank: int, port: int, folder: Path) -> None:
    """Train on half of a batch by the other process's moments, too, and leave what came out."""
    with launched(rank, 2, 1, port), together(Trainer("cpu", 2)):
        half, factor = (torch.split(whole, 3)[rank] for whole in embedding())
        for form in FORMS:
            norm, projection = modules("batch")
            x = half.clone().requires_grad_()
            if form == "apart":
                out = projection(normalized(norm, x))
            else:
                out = projected(norm, projection, x if form == "dense" else sparse(x))
            (out * factor).sum().backward()
            left = {"out": out.detach(), "x": x.grad} | {f"b{i}": b.float() for i, b in enumerate(norm.buffers())}
            left |= {f"p{i}": p.grad for i, p in enumerate([*norm.parameters(), *projection.parameters()])}
            save_file({name: value.contiguous() for name, value in left.items()}, folder / f"{form}{rank}")


def test_a_norm__sees_the_whole_batch__and_so_does_its_gradient(tmp_path: Path) -> None:
    in_two(moments, tmp_path)
    a, factor = embedding()
    x = a.clone().requires_grad_()
    norm, projection = modules("batch")
    out = projection(norm(x))
    (out * factor).sum().backward()
    for form in FORMS:
        first, second = (load_file(tmp_path / f"{form}{rank}") for rank in (0, 1))
        torch.testing.assert_close(torch.cat([first["out"], second["out"]]), out, rtol=1e-4, atol=1e-5)
        where = a != 0 if form == "sparse" else torch.ones_like(a).bool()
        assert x.grad is not None
        torch.testing.assert_close(torch.cat([first["x"], second["x"]])[where], x.grad[where], rtol=1e-4, atol=1e-4)
        for i, parameter in enumerate([*norm.parameters(), *projection.parameters()]):
            torch.testing.assert_close(first[f"p{i}"] + second[f"p{i}"], parameter.grad, rtol=1e-4, atol=1e-4)
        for i, buffer in enumerate(norm.buffers()):
            assert torch.equal(first[f"b{i}"], second[f"b{i}"])
            torch.testing.assert_close(first[f"b{i}"], buffer.float(), rtol=1e-4, atol=1e-6)


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


SCRIPT = """if True:
    import layerwise, sys
    run = layerwise.train(layerwise.recipe("plain_digits", *sys.argv[2:]), sys.argv[1])
    print(run, len(run.records))
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", ["train.py", "-m", "layerwise", "script"])
def test_lightning_starts_the_others__whatever_the_program_is(how: str, process: Command, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    given = [*QUIET, "--trainer.devices=2"]
    first = {
        "train.py": [str(ROOT / "train.py")],
        "-m": ["-m", "layerwise", "train"],
        "layerwise": [str(Path(sys.executable).with_name("layerwise")), "train"],
        "script": ["script.py", "r"],
    }[how]
    done = process(
        *first, *(option for option in given if how != "script" or not option.startswith(("--run_dir", "--config")))
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr and done.stdout.count("layer 1/1: epoch 1/2") == 1
    assert done.stdout.count("Run('r') 1") == (2 if how == "script" else 0)
    assert len(list((tmp_path / "r").glob("layer-1/layer.json"))) == 1


@pytest.mark.slow
def test_torchrun__on_two_machines_of_two(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=2"]
    command += ["--master-addr=127.0.0.1", f"--master-port={free_port()}"]
    given = [str(ROOT / "train.py"), *QUIET, "--depth=2", "--trainer.devices=2", "--trainer.num_nodes=2"]
    machines = [
        subprocess.Popen(
            [*command, f"--node-rank={rank}", *given],
            cwd=tmp_path,
            env=environment(),
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    printed = [machine.communicate(timeout=300)[0] for machine in machines]
    assert [machine.returncode for machine in machines] == [0, 0]
    assert "test accuracy at depth 2" in printed[0]
    assert printed[1] == "starting: loading torch and lightning\n"


@pytest.mark.slow
def test_a_program_that_is_no_file__is_told_so(process: Command) -> None:
    program = "import layerwise; layerwise.train(layerwise.recipe('plain_digits', '--trainer.devices=2'))"
    done = process("-c", program)
    assert done.returncode == 1 and "SettingError: trainer.devices: 2, " in done.stderr
    assert done.stderr.endswith("start the program again, and this is none; put it into a file\n")
