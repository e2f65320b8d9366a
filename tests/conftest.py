"""What several tests need: a small data set, a small configuration, the command, a trained run."""

import contextlib
import io
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from filelock import FileLock
from PIL import Image

if "PYTEST_XDIST_WORKER" in os.environ:  # one of several processes, each of which would take all cores
    torch.set_num_threads(1)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
if not torch.cuda.is_available():  # read when triton is imported, which much may do
    os.environ.setdefault("TRITON_INTERPRET", "1")

import layerwise
from layerwise import ahead
from layerwise.cli import SIGNALS, main
from layerwise.experiments.benchmark.steps import peak_memory
from layerwise.parsing import parse

ROOT = Path(__file__).parent.parent

SMALL = [
    "--layer.atoms=16",
    "--layer.channels=8",
    "--layer.pool=1",
    "--optimizer.epochs=2",
    "--optimizer.batch_size=256",
    "--config=plain_digits",
]
"""Settings that make a layer on digits take about a second."""

QUIET = [*SMALL, "--run_dir=r", "--wandb.mode=disabled"]
"""Those of the run that `trained` and `finished` give."""

Command = Callable[..., subprocess.CompletedProcess[str]]


def pytest_xdist_auto_num_workers() -> int:
    """Two more than there are cores, as many tests wait for processes."""
    return len(os.sched_getaffinity(0)) + 2


def environment() -> dict[str, str]:
    """The environment of a command: no W&B account, whoever runs the tests; compiled modules are kept, for speed."""
    dropped = ("WANDB", "PYTHONDONTWRITEBYTECODE")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    fonts = str(Path(tempfile.gettempdir()) / "layerwise-tests-matplotlib")  # looked for anew without a home
    return kept | {"WANDB_API_KEY": "", "NETRC": os.devnull, "HOME": "/nonexistent", "MPLCONFIGDIR": fonts}


def call(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command within this process; the first argument is a verb."""
    out, err = io.StringIO(), io.StringIO()
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code: object = main(list(arguments))
    except SystemExit as end:
        code = end.code
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert isinstance(code, int), code
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())


@contextlib.contextmanager
def products_by(way: str) -> Iterator[None]:
    """Products of float32 rounded as a user may have set it, in one of three ways; whatever runs is to leave it so."""
    places: list[Any] = [torch.backends, torch.backends.cuda.matmul, torch.backends.mkldnn.matmul]  # type: ignore[attr-defined]
    before = [place.fp32_precision for place in places]
    try:
        if way == "medium":
            torch.set_float32_matmul_precision(way)
        elif way == "bf16":
            places[2].fp32_precision = way
        else:
            places[0].fp32_precision = way
        given = [place.fp32_precision for place in places]
        yield
        assert [place.fp32_precision for place in places] == given
    finally:
        torch.set_float32_matmul_precision("highest")
        for place, precision in zip(places, before, strict=True):
            place.fp32_precision = precision


@contextlib.contextmanager
def standard_input(content: bytes) -> Iterator[None]:
    """What the command is given there."""
    before = os.dup(0)
    with tempfile.TemporaryFile() as file:
        file.write(content)
        file.seek(0)
        os.dup2(file.fileno(), 0)
        try:
            yield
        finally:
            os.dup2(before, 0)
            os.close(before)


def growth(task: Callable[[], object]) -> int:
    """The most bytes that a task takes at once on the CPU, beside what is held when it begins."""
    held, peak = (peak_memory(each, torch.device("cpu")) for each in (lambda: None, task))
    assert held is not None and peak is not None
    return peak - held


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Run the command, as in command("train", "--depth=2"), in an empty folder, without a process of its own."""
    monkeypatch.chdir(tmp_path)
    wanted = environment()
    for name in os.environ.keys() - wanted.keys():
        monkeypatch.delenv(name)
    for name, value in wanted.items():
        monkeypatch.setenv(name, value)
    return call


@pytest.fixture
def process(tmp_path: Path) -> Command:
    """Run a real Python, as in process("-m", "layerwise", "train"), in an empty folder; it takes seconds."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *arguments], cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=300
        )

    return run


@pytest.fixture(scope="session", autouse=True)
def compiled(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Compile the kernels, in one of several processes, lest each do it by itself."""
    with FileLock(tmp_path_factory.getbasetemp().parent / "compiled.lock"):
        ahead.finish()


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of depth 2, trained once; for looking only."""
    folder = tmp_path_factory.mktemp("trained")
    config = parse(["--depth=2", *QUIET])[0]
    layerwise.train(config, folder / "r")
    return folder / "r"


@pytest.fixture
def finished(trained: Path, tmp_path: Path) -> Path:
    """A copy of it, as r in the folder of `command` and `process`."""
    return Path(shutil.copytree(trained, tmp_path / "r"))


@pytest.fixture
def generator() -> torch.Generator:
    """A seeded generator."""
    return torch.Generator().manual_seed(0)


def noise(parent: Path) -> Path:
    """A folder of images that can be learned: 60 each of bright and dark 8×8 noise, in color."""
    rng = np.random.default_rng(0)
    for name, level in (("bright", 160), ("dark", 40)):
        (parent / "images" / "train" / name).mkdir(parents=True)
        for i in range(60):
            pixels = rng.integers(0, 80, (8, 8, 3)) + level
            Image.fromarray(pixels.astype(np.uint8)).save(parent / "images" / "train" / name / f"{i:02}.png")
    return parent / "images"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Such a folder, beside the test's own."""
    return noise(tmp_path)
