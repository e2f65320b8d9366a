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
from tests.reach import ROOT, Tests, in_child, recorded, run_tests

PACKAGES = [f"layerwise/{name}" for name in ("ops", "nn", "data", "training", "run", "experiments/paper")]
HEAVY = "torch._dynamo lightning.pytorch torchmetrics torchvision wandb sklearn.cluster sklearn.datasets jsonargparse"
"""what takes long to import"""
ONLY_ON_A_GPU = {"cuda.py", "kernels.py"}
"""files whose lines count where a test reaches them"""


def reaching(mutant: Mutant, known: Tests) -> list[str]:
    """The tests that reach a mutant, the fastest first; of one that acts at import, all of its file and folder."""
    path, lines = str(mutant.path), set(mutant.lines)
    folder = str(mutant.path.relative_to(ROOT).parent).replace("layerwise/", "tests/").removesuffix("/paper")

    def reaches(name: str, found: dict[str, list[int]]) -> bool:
        if mutant.function:
            return not lines.isdisjoint(found.get(path, []))
        return path in found or name.startswith(folder)

    return sorted((name for name, (_, found) in known.items() if reaches(name, found)), key=lambda name: known[name][0])


def run_mutant(mutant: Mutant, names: list[str], folder: str) -> int:
    """Run tests with a mutant in place of its file."""
    original, path = machinery.SourceFileLoader.get_code, str(mutant.path)

    def get_code(self: Any, name: str) -> CodeType | None:
        return compile(mutant.source, path, "exec") if self.path == path else original(self, name)

    machinery.SourceFileLoader.get_code = get_code  # type: ignore[assignment]
    linecache.cache[path] = len(mutant.source), None, mutant.source.splitlines(True), path  # what Triton reads
    return run_tests(names, mutant.compiled, folder)


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
        known = {plain: recorded(plain, folder) for plain in (False, True)}
        pairs = [(mutant, reaching(mutant, known[mutant.compiled])) for file in files for mutant in mutants(file)]
        pairs = [pair for pair in pairs if pair[1] or pair[0].path.name not in ONLY_ON_A_GPU]
        chosen = random.Random(given.seed).sample(pairs, min(given.sample, len(pairs)))
        print(f"{len(chosen)} of {len(pairs)} errors in {len(files)} files", flush=True)
        unnoticed = 0
        for mutant, names in chosen:
            limit = 30 + 4 * sum(known[mutant.compiled][name][0] for name in names)
            if names and in_child(partial(run_mutant, mutant, names, folder), limit) != 0:
                continue
            unnoticed += 1
            before, after = mutant.path.read_text().splitlines(), mutant.source.splitlines()
            place = f"{mutant.path.relative_to(ROOT)}:{mutant.lines.start}, unnoticed by {len(names)} tests"
            print(place, *list(difflib.unified_diff(before, after, n=0, lineterm=""))[3:], sep="\n    ", flush=True)
    print(f"{len(chosen) - unnoticed} of {len(chosen)} noticed: {1 - unnoticed / len(chosen):.1%}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
