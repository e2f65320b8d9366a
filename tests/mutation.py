"""Deliberate errors, one at a time, and which of them no test notices.

    python -m tests.mutation [--sample N] [--seed S] [PATHS…]

Each error (`tests.mutants`) has a process of its own, forked from one that has imported all but layerwise. It runs the
tests that reach the changed lines, the fastest first, until one fails or takes too long; which tests those are is
recorded once, as long as no file changes. A compiled function runs as plain Python, by tests of ops and nn that are
fast without a compiler. Tests that start processes have no part in it: those would read the source as it is.
"""

import argparse
import difflib
import importlib.machinery as machinery
import linecache
import os
import random
import sys
import tempfile
from functools import partial
from importlib import import_module
from pathlib import Path
from types import CodeType
from typing import Any

from tests.mutants import Mutant, mutants
from tests.reach import ROOT, Limit, Tests, in_child, recorded, run_tests

PACKAGES = [f"layerwise/{name}" for name in ("ops", "nn", "data", "training", "run", "experiments/paper")]
HEAVY = "torch._dynamo lightning.pytorch torchmetrics torchvision wandb sklearn.cluster sklearn.datasets jsonargparse"
"""what takes long to import"""
ONLY_ON_A_GPU = "cuda"
"""folder whose lines count where a test reaches them"""


class Reach:
    """The tests that reach a mutant."""

    def __init__(self, known: Tests) -> None:
        self.seconds = {name: seconds for name, (seconds, _) in known.items()}
        self.by_line: dict[tuple[str, int], set[str]] = {}
        for name, (_, found) in known.items():
            for path, lines in found.items():
                for line in lines:
                    self.by_line.setdefault((path, line), set()).add(name)

    def __call__(self, mutant: Mutant) -> list[str]:
        """The fastest first; of a mutant that acts at import, all tests of its file and folder."""
        path, folder = str(mutant.path), mutant.path.relative_to(ROOT / "layerwise").parent
        if mutant.function:
            names = set().union(*(self.by_line.get((path, line), set()) for line in mutant.lines))
        else:
            names = set().union(*(found for (own, _), found in self.by_line.items() if own == path))
            names |= {name for name in self.seconds if name.startswith(f"tests/{folder.parts[0]}/")}
        return sorted(names, key=self.seconds.__getitem__)


def run_mutant(mutant: Mutant, names: list[str], folder: str, limit: Limit) -> int:
    """Run tests with a mutant in place of its file, until one fails."""
    original, path = machinery.SourceFileLoader.get_code, str(mutant.path)

    def get_code(self: Any, name: str) -> CodeType | None:
        return compile(mutant.source, path, "exec") if self.path == path else original(self, name)

    machinery.SourceFileLoader.get_code = get_code  # type: ignore[assignment]
    linecache.cache[path] = len(mutant.source), None, mutant.source.splitlines(True), path  # what Triton reads
    return run_tests(["-x", *names], mutant.compiled, folder, limit)


def main(arguments: list[str]) -> int:
    """Print what no test notices, and the share that one does."""
    parser = argparse.ArgumentParser("python -m tests.mutation", description=__doc__)
    parser.add_argument("paths", nargs="*", default=PACKAGES, metavar="PATHS", help="files or folders, all if none")
    parser.add_argument("--sample", type=int, default=10**9, metavar="N", help="so many errors, drawn at random")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of the draw")
    given = parser.parse_args(arguments)
    os.environ["TRITON_INTERPRET"] = "1"
    for name in HEAVY.split():
        import_module(name)
    roots = [Path(path).resolve() for path in given.paths]
    files = sorted({file for root in roots for file in ([root] if root.is_file() else root.rglob("*.py"))})
    with tempfile.TemporaryDirectory() as folder:
        reaches = {plain: Reach(recorded(plain, folder)) for plain in (False, True)}
        found = [mutant for file in files for mutant in mutants(file)]
        found = [
            mutant for mutant in found if mutant.path.parent.name != ONLY_ON_A_GPU or reaches[mutant.compiled](mutant)
        ]
        chosen = random.Random(given.seed).sample(found, min(given.sample, len(found)))
        print(f"{len(chosen)} of {len(found)} errors in {len(files)} files", flush=True)
        unnoticed = 0
        for number, mutant in enumerate(chosen, 1):
            reach = reaches[mutant.compiled]
            names = reach(mutant)
            if names and in_child(partial(run_mutant, mutant, names, folder, Limit(reach.seconds))) != 0:
                continue
            unnoticed += 1
            before, after = mutant.path.read_text().splitlines(), mutant.source.splitlines()
            place = f"{number}. {mutant.path.relative_to(ROOT)}:{mutant.lines.start}, unnoticed by {len(names)} tests"
            print(place, *list(difflib.unified_diff(before, after, n=0, lineterm=""))[3:], sep="\n    ", flush=True)
    print(f"{len(chosen) - unnoticed} of {len(chosen)} noticed: {1 - unnoticed / len(chosen):.1%}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
