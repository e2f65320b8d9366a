"""What the trials share: a folder of pictures, the commands for it, an undisturbed run to compare with."""

import hashlib
import json
import random
import re
import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image

from layerwise.experiments.selftest.command import Ended, call

T = TypeVar("T")
SETTINGS = ["--config=plain_digits", "--data.name=image_folder", "--layer.atoms=8", "--layer.channels=4"]
SETTINGS += ["--layer.patch_size=3", "--layer.pool=1", "--layer.probe.dropout=0.3"]
SETTINGS += ["--optimizer.epochs=3", "--optimizer.batch_size=16"]
SETTINGS += ["--trainer.accelerator=cpu", "--wandb.mode=disabled"]
FIRST, DEEPER = "--depth=2", "--depth=3"
"""a stack, and one more layer on it"""


@dataclass
class Outcome:
    """What came of the trials of one promise."""

    promise: str
    trials: int = 0
    failures: list[str] = field(default_factory=list)
    note: str = ""

    def add(self, what: str, failure: str) -> None:
        """Count a trial, which failed if `failure` says how."""
        self.trials += 1
        if failure:
            self.failures.append(f"{what}: {failure}")


@dataclass
class Bench:
    """A place for trials, and how many there are to be."""

    folder: Path
    effort: float
    random: random.Random

    def count(self, trials: int) -> int:
        """How many trials there are to be where a unit of effort means so many."""
        return max(1, round(trials * self.effort))

    def some(self, cases: Iterable[T]) -> list[T]:
        """All cases, or where there is to be less than a unit of effort, some of them."""
        drawn = list(cases)
        return self.random.sample(drawn, min(len(drawn), self.count(len(drawn))))

    @cached_property
    def images(self) -> Path:
        """Three classes of 40 pictures of 8×8, which differ in brightness."""
        root, noise = self.folder / "images", np.random.default_rng(0)
        for name, level in (("bright", 150), ("dark", 0), ("gray", 75)):
            (root / name).mkdir(parents=True)
            for i in range(40):
                pixels = noise.integers(0, 106, (8, 8, 3)) + level
                Image.fromarray(pixels.astype(np.uint8)).save(root / name / f"{i:02}.png")
        return root

    def command(self, *more: str) -> list[str]:
        """Train in the folder r."""
        return ["train", *SETTINGS, f"--data.root={self.images}", "--run_dir=r", *more]

    def place(self) -> Path:
        """A new empty folder."""
        self._places = getattr(self, "_places", 0) + 1
        place = self.folder / f"trial-{self._places}"
        place.mkdir()
        return place

    @cached_property
    def whole(self) -> tuple[Path, list[Ended], list[float]]:
        """The folder of a run that nothing disturbed, first of depth 2, then of 3; how its commands ended, seconds."""
        place, ended, seconds = self.place(), [], []
        for depth in (FIRST, DEEPER):
            start = time.perf_counter()
            ended.append(call(place, self.command(depth)))
            seconds.append(time.perf_counter() - start)
            if ended[-1].code:
                raise RuntimeError(f"the command fails without any trial:\n{ended[-1].printed}")
            if depth == FIRST:
                shutil.copytree(place / "r", self.folder / "shallow")
        return place / "r", ended, seconds

    @property
    def shallow(self) -> Path:
        """The same run when its depth was 2."""
        return self.whole[0] and self.folder / "shallow"

    @cached_property
    def half(self) -> Path:
        """A run of one layer that was killed after its first epoch."""
        place, changes = self.place(), 0
        while not (place / "r" / "layer-1" / "last.ckpt").exists():
            changes += 2
            call(place, self.command(FIRST), changes)
        return place / "r"


def content(run: Path) -> dict[str, str]:
    """What is in each file of a run, but for the seconds that it took, and for what is hidden."""
    return dict(_content(run))


def _content(run: Path) -> Iterator[tuple[str, str]]:
    for path in sorted(run.rglob("*")):
        if path.is_file() and not path.name.startswith(".") and "wandb" not in path.parts:
            known = path.read_bytes()
            if path.suffix == ".json":
                known = repr(_timeless(json.loads(known))).encode()
            elif path.suffix == ".html":
                known = re.sub(rb"(?s)<span class=\"made\">.*?</span>|\b\d+\.\d\b", b"", known)
            yield str(path.relative_to(run)), hashlib.sha256(known).hexdigest()


def _timeless(values: Any) -> Any:
    if isinstance(values, dict):
        return {
            name: _timeless(value) for name, value in values.items() if name not in ("seconds", "fingerprint", "made")
        }
    return [_timeless(value) for value in values] if isinstance(values, list) else values


def differing(run: Path, other: Path) -> str:
    """Which files differ between two runs, in words; nothing where none does."""
    mine, theirs = content(run), content(other)
    names = sorted(name for name in mine.keys() | theirs.keys() if mine.get(name) != theirs.get(name))
    return f"other content of {', '.join(names)}" if names else ""
