"""The command as a process of its own, forked from one that has imported everything, so that it starts at once."""

import multiprocessing
import os
import re
import signal
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["layerwise.api", "layerwise.report.page", "wandb"])
Within = Callable[[], AbstractContextManager[object]]
CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "shutil.rmtree"}
"""of files, by their audit events"""


@dataclass(frozen=True)
class Ended:
    """A command that came to an end."""

    code: int
    """its exit code; the number of a signal, negative, that killed it"""
    printed: str

    @property
    def phase(self) -> str:
        """What it was about last, such as `layer 2: dictionary`; nothing where it had not begun."""
        found = re.findall(r"^(layer \d+).*?: ([a-z]+)|^(data|test accuracy)", self.printed, re.M)
        return " ".join(part for part in found[-1] if part) if found else ""

    @property
    def operations(self) -> int:
        """How often it changed a file of its folder."""
        return int(re.findall(r"^operations: (\d+)$", self.printed, re.M)[-1])

    def refused(self, code: int, *named: str) -> str:
        """Why this is not one line that names so much, with the exit code; nothing where it is."""
        line = self.printed.rpartition("\noperations: ")[0].rpartition("\n")[2]
        if self.code != code or "Traceback" in self.printed or not line.startswith("error: "):
            return f"exit code {self.code}, {line!r}"
        return "" if all(name in line for name in named) else f"{' and '.join(named)} not named in {line!r}"


class Started:
    """A command that runs in a folder, with its output in a file; see `call` for the arguments."""

    def __init__(self, folder: Path, arguments: list[str], kill_at: int = 0, within: Within = nullcontext) -> None:
        self._log = folder / f"{len(list(folder.glob('*.log')))}.log"
        self._log.touch()
        self.process: BaseProcess = SERVER.Process(target=_run, args=(folder, self._log, arguments, kill_at, within))
        self.process.start()

    @property
    def printed(self) -> str:
        """Output so far."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def ended(self, seconds: float | None = 300) -> Ended:
        """Wait for its end; after so many seconds it is killed, and its output says so."""
        self.process.join(seconds)
        if self.process.exitcode is None:
            self.process.kill()
            self.process.join()
            return Ended(-signal.SIGKILL, f"{self.printed}\nstill ran after {seconds} s")
        return Ended(self.process.exitcode, self.printed)


def call(folder: Path, arguments: list[str], kill_at: int = 0, within: Within = nullcontext) -> Ended:
    """Run the command in a folder; it kills itself before it changes a file for the time `kill_at`.

    `within`, which can be pickled, gives what surrounds it in its process.
    """
    return Started(folder, arguments, kill_at, within).ended()


def _run(folder: Path, log: Path, arguments: list[str], kill_at: int, within: Within) -> None:
    os.chdir(folder)
    output = os.open(log, os.O_WRONLY | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.stdout, sys.stderr = (open(i, "w", 1, encoding="utf-8", closefd=False) for i in (1, 2))  # noqa: SIM115
    changes, own = 0, str(folder.resolve())

    def count(event: str, given: tuple[object, ...]) -> None:
        nonlocal changes
        writes = event == "open" and isinstance(flags := given[2], int) and flags & (os.O_WRONLY | os.O_RDWR)
        if (writes or event in CHANGES) and os.path.abspath(str(given[0])).startswith(own):
            changes += 1
            if changes == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    from layerwise.cli import main

    with within():
        sys.addaudithook(count)
        code = main(arguments)
    print(f"operations: {changes}")
    sys.exit(code)
