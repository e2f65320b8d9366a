"""What several tests need: a small data set, a small configuration, the command as a process."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

if not torch.cuda.is_available():  # read when triton is imported, which much may do
    os.environ.setdefault("TRITON_INTERPRET", "1")

ROOT = Path(__file__).parent.parent

SMALL = [
    "--layer.atoms=16",
    "--layer.channels=8",
    "--layer.pool=1",
    "--optimizer.epochs=2",
    "--optimizer.batch_size=256",
]
"""Settings that make a layer on digits take about a second."""

Command = Callable[..., subprocess.CompletedProcess[str]]


def environment() -> dict[str, str]:
    """The environment of a command: no W&B account, whoever runs the tests; compiled modules are kept, for speed."""
    dropped = ("WANDB", "PYTHONDONTWRITEBYTECODE")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    fonts = str(Path(tempfile.gettempdir()) / "layerwise-tests-matplotlib")  # looked for anew without a home
    return kept | {"WANDB_API_KEY": "", "NETRC": os.devnull, "HOME": "/nonexistent", "MPLCONFIGDIR": fonts}


def run_command(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a folder."""
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment(), capture_output=True, text=True, timeout=300
    )


@pytest.fixture
def command(tmp_path: Path) -> Command:
    """Run train.py, or `python -m layerwise` with tool=True, or plain Python, in an empty folder."""

    def run(*arguments: str, tool: bool = False, python: bool = False) -> subprocess.CompletedProcess[str]:
        program = ["-m", "layerwise"] if tool else [] if python else [str(ROOT / "train.py")]
        return run_command(tmp_path, *program, *arguments)

    return run


@pytest.fixture
def generator() -> torch.Generator:
    """A seeded generator."""
    return torch.Generator().manual_seed(0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of images that can be learned: 60 each of bright and dark 8×8 noise, in colour."""
    rng = np.random.default_rng(0)
    for name, level in (("bright", 160), ("dark", 40)):
        (tmp_path / "images" / "train" / name).mkdir(parents=True)
        for i in range(60):
            noise = rng.integers(0, 80, (8, 8, 3)) + level
            Image.fromarray(noise.astype(np.uint8)).save(tmp_path / "images" / "train" / name / f"{i:02}.png")
    return tmp_path / "images"
