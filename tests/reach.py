"""Which tests reach a line, recorded once: as long as no file changes.

A compiled function runs as plain Python here, in tests of ops and nn that take less than two seconds of the processor
so. Tests that start processes are left out: a change made within this one does not reach those.
"""

import contextlib
import hashlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import numba
import pytest

ROOT = Path(__file__).parent.parent
LONGEST = 15
"""seconds; tests that take longer are left out, since an error that none notices has to wait for all of them"""
Tests = dict[str, tuple[float, dict[str, list[int]]]]
"""by name of a test: its seconds, and the numbers of the lines that it reaches, by file"""


def too_slow(*_: object) -> NoReturn:
    """End a test."""
    raise TimeoutError


class Recorder:
    """Notes of every test that passes how long it takes and which lines it reaches, or without a compiler functions."""

    def __init__(self, plain: bool) -> None:
        self.plain = plain
        self.passed = False
        self.hits: set[tuple[str, int]] = set()
        self.shared: dict[str, set[tuple[str, int]]] = {}  # by fixture that several tests share
        self.found: Tests = {}

    def __call__(self, frame: FrameType, event: str, _: object) -> Any:
        if not frame.f_code.co_filename.startswith(f"{ROOT}/layerwise/"):
            return None
        self.hits.add((frame.f_code.co_filename, frame.f_lineno))
        return None if self.plain else self

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        items[:] = [item for item in items if "process" not in item.fixturenames and "whole_program" not in item.nodeid]

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any) -> Iterator[None]:
        before, self.hits = self.hits, set()
        result = yield
        if fixturedef.scope != "function":
            self.shared[fixturedef.argname] = self.hits
        self.hits = self.hits | before
        return result

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: Any) -> Iterator[None]:
        self.hits, self.passed, start = set(), True, time.perf_counter()
        if self.plain:
            signal.signal(signal.SIGVTALRM, too_slow)
            signal.setitimer(signal.ITIMER_VIRTUAL, 2)  # of the processor, as others may work beside
        sys.settrace(self)
        threading.settrace(self)
        result = yield
        sys.settrace(None)
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        if self.passed and (seconds := time.perf_counter() - start) < LONGEST:
            lines: dict[str, list[int]] = {}
            for path, line in self.hits.union(*(self.shared.get(name, ()) for name in item.fixturenames)):
                lines.setdefault(path, []).append(line)
            self.found[item.nodeid] = seconds, lines
        return result

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.passed = self.passed and report.passed


class Limit:
    """Ends the process where a test takes far longer than it did."""

    def __init__(self, seconds: dict[str, float]) -> None:
        self.seconds = seconds

    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(20 + int(5 * self.seconds[item.nodeid]))


def in_child(work: Callable[[], int]) -> int:
    """Work in a process of its own, which ends with all that it started; its exit code, below 0 after a signal."""
    if (pid := os.fork()) == 0:
        os.setsid()
        for stream in (1, 2):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
        os._exit(work())
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    return code


def run_tests(names: list[str], plain: bool, folder: str, plugin: object) -> int:
    """Run tests in the order given, with or without a compiler; the exit code."""
    vars(numba.config)["DISABLE_JIT"] = plain
    return int(
        pytest.main(["-q", "-n0", "-p", "no:cacheprovider", f"--basetemp={folder}/pytest", *names], plugins=[plugin])
    )


def recorded(plain: bool, folder: str) -> Tests:
    """What each test reaches; of compiled functions with `plain` alone."""
    sources = sorted([*ROOT.glob("layerwise/**/*.py"), *ROOT.glob("tests/**/*.py")])
    stamp = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:16]
    place = ROOT / ".pytest_cache" / f"mutation-{stamp}{'-plain' if plain else ''}.json"

    def record() -> int:
        recorder = Recorder(plain)
        run_tests(["tests/ops", "tests/nn"] if plain else ["tests"], plain, folder, recorder)
        place.parent.mkdir(exist_ok=True)
        return 0 * place.write_text(json.dumps(recorder.found))

    if not place.exists():
        print("recording which lines the tests reach", flush=True)
        in_child(record)
    known: Tests = json.loads(place.read_text())
    return known
