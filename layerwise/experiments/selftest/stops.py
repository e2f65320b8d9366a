"""Commands that are stopped, at random or at a chosen moment, and given again: what they leave in the end."""

import os
import signal
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

from layerwise.experiments.selftest.bench import DEEPER, FIRST, Bench, Outcome, differing
from layerwise.experiments.selftest.command import Ended, Started, call

KILLS, SIGNALS = 10, 4
"""for each unit of effort"""


def killed(bench: Bench) -> Outcome:
    """Kill commands at a random instant, or before a random change of a file, several times in a run."""
    outcome = Outcome("SIGKILL at any instant: the same command ends with the same files, and trains no layer twice")
    whole, undisturbed, seconds = bench.whole
    phases, chains = Counter[str](), 0
    while outcome.trials < bench.count(KILLS):
        place, chains, failure, stops = bench.place(), chains + 1, "", list[str]()
        for depth, ended, lasted in zip((FIRST, DEEPER), undisturbed, seconds, strict=True):
            for _ in range(bench.random.randint(1, 4)):
                before = _finished(place / "r")
                if bench.random.random() < 0.5:
                    change = bench.random.randint(1, ended.operations)
                    end = call(place, bench.command(depth), change)
                    stops.append(f"before change {change} of a file")
                else:
                    end = _signaled(bench, place, depth, signal.SIGKILL, bench.random.uniform(0, lasted))
                    stops.append("at some instant")
                if end.code not in (0, -signal.SIGKILL):
                    failure = failure or f"exit code {end.code} after {stops}: {end.printed[-300:]}"
                if before.items() - _finished(place / "r").items():
                    failure = failure or f"a finished layer was trained again after {stops}"
                outcome.trials += end.code == -signal.SIGKILL
                phases[end.phase or "start"] += end.code == -signal.SIGKILL
            end = call(place, bench.command(depth))
            if end.code:
                failure = failure or f"exit code {end.code} after {stops}: {end.printed[-300:]}"
        if failure := failure or differing(place / "r", whole):
            outcome.failures.append(f"kills {', '.join(stops)}: {failure}")
    told = ", ".join(f"{name} {count}" for name, count in phases.most_common())
    outcome.note = (
        f"{chains} runs of depth 2, then 3, on a folder of images, with stored features; last printed: {told}"
    )
    return outcome


def signaled(bench: Bench) -> Outcome:
    """Send SIGTERM or SIGINT at a random instant."""
    outcome = Outcome("SIGTERM ends with code 143, SIGINT with 130, in one line, and nothing is lost")
    whole, _, seconds = bench.whole
    for i in range(bench.count(SIGNALS)):
        number = (signal.SIGTERM, signal.SIGINT)[i % 2]
        place = bench.place()
        end = _signaled(bench, place, FIRST, number, bench.random.uniform(0.3, 0.9) * seconds[0])
        failure = "" if end.code in (0, 128 + number) else f"exit code {end.code}"
        if end.code and "the same command goes on from here" not in end.printed or "Traceback" in end.printed:
            failure = f"printed {end.printed[-300:]!r}"
        again = call(place, bench.command(FIRST)), call(place, bench.command(DEEPER))
        failure = failure or "".join(f"exit code {end.code}" for end in again if end.code)
        outcome.add(f"{number.name} at {end.phase or 'start'}", failure or differing(place / "r", whole))
    return outcome


def _signaled(bench: Bench, place: Path, depth: str, number: signal.Signals, seconds: float) -> Ended:
    started = Started(place, bench.command(depth))
    deadline = time.monotonic() + 60
    while number != signal.SIGKILL and not started.printed and time.monotonic() < deadline:
        time.sleep(0.01)  # before its first line it is not yet the command
    started.process.join(seconds)
    if (pid := started.process.pid) and started.process.exitcode is None:
        with suppress(ProcessLookupError):  # it has ended this instant
            os.kill(pid, number)
    return started.ended()


def _finished(run: Path) -> dict[str, int]:
    """When each finished layer was written."""
    return {str(path): path.stat().st_mtime_ns for path in run.glob("layer-*/layer.json")}
