"""Try every promise, and tell what came of it."""

import os
import random
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from layerwise.errors import SettingError, TrainingFailed
from layerwise.experiments.selftest import damage, faults, stops, tracking
from layerwise.experiments.selftest.bench import Bench, Outcome
from layerwise.run.files import write_json

PROMISES = [stops.killed, stops.signaled, damage.damaged, *faults.FAULTS, tracking.untracked]
NOT_PROMISED = """\
Not promised: the same bits on another processor, on a GPU, with other versions of layerwise, PyTorch or Numba, or with
another number of threads; that seconds, W&B's files and the order of its uploads repeat; anything about files that
another program changes while a command runs, or about a file system that says a file is on disk when it is not.
"""


def selftest(folder: str | None, effort: float, path: Path | None) -> list[Outcome]:
    """Try all promises in a folder that is made in `folder`, print a table; TrainingFailed where one does not hold."""
    if folder is not None and not Path(folder).is_dir():
        raise SettingError(f"--folder: {folder} is not a folder; create it, or give another")
    sys.warnoptions.append("ignore:resource_tracker")  # what killed processes leave is cleared away
    outcomes = []
    with _one_thread(), tempfile.TemporaryDirectory(prefix="layerwise-selftest-", dir=folder) as made:
        bench = Bench(Path(made).resolve(), effort, random.Random(effort))
        for promise in PROMISES:
            print(f"\n… {(promise.__doc__ or '').strip()}", flush=True)
            outcomes.append(outcome := promise(bench))
            print(f"{outcome.promise}\n  {outcome.trials} trials, {len(outcome.failures)} failures", flush=True)
            for told in [*([outcome.note] if outcome.note else []), *outcome.failures]:
                print(textwrap.fill(told, 100, initial_indent="  ", subsequent_indent="    "), flush=True)
    print(f"\n{NOT_PROMISED}")
    failures = sum(len(outcome.failures) for outcome in outcomes)
    if path is not None:
        write_json(path, [vars(outcome) for outcome in outcomes])
    trials = sum(outcome.trials for outcome in outcomes)
    print(f"{len(outcomes)} promises, {trials} trials, {failures} failures")
    if failures:
        raise TrainingFailed(f"selftest: {failures} of {trials} trials failed; please report what is printed above")
    return outcomes


@contextmanager
def _one_thread() -> Iterator[None]:
    """One thread for what is started within, as the layers are small."""
    before = dict(os.environ)
    os.environ["OMP_NUM_THREADS"] = "1"
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
