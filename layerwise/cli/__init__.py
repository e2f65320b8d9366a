"""The command `layerwise VERB`: one file a verb, whose docstring is its meaning; errors become one line and a code.

SIGTERM and SIGINT stop it, and so do SIGHUP, unless it was ignored as under nohup, and SIGUSR1 and SIGUSR2, which
schedulers send before they take a machine away: with one line, and code 128 plus the signal's number. A second signal
ends it at once.
"""

import _thread
import argparse
import atexit
import difflib
import os
import signal
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from types import FrameType, ModuleType
from typing import NoReturn

from layerwise import console, memory
from layerwise.environment import hidden
from layerwise.errors import TOLD_ELSEWHERE, DamagedRun, SettingError, TrainingFailed
from layerwise.version import VERSION

VERBS = ["train", "plan", "runs", "evaluate", "report", "predict", "features", "export"]
VERBS += ["explain", "paper", "theorem", "patches", "benchmark", "check-gpu", "selftest"]
RESUMING = {"train", "paper", "theorem", "check-gpu"}
"""verbs that go on where they were stopped"""
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
LIMIT = 20.0
"""seconds that the process may take to end"""


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code: 0; 2 for a mistake in what was given; 1 for any other failure.

    Raises:
        SystemExit: 0 after the --help of a verb; 130 and 143 on SIGINT and SIGTERM.
    """
    console.secure()
    verb, *rest = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if verb in ("--help", "-h"):
        print("usage: layerwise VERB [OPTIONS]\n\nTrain deep patch-based networks, one layer at a time.\n")
        for name in VERBS:
            print(f"  {name:10} {_module(name).__doc__}")
        print("\nlayerwise VERB --help lists the options of a verb, layerwise --version the version.")
        return 0
    if verb == "--version":
        print(f"layerwise {VERSION}")
        return 0
    stop = _Stop(verb, rest)
    for number in SIGNALS:
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, stop)
    try:
        code = _run(verb, rest)
    except BaseException as error:
        if stop.code is None:
            raise
        raise SystemExit(stop.code) from error  # whatever a library on the way has made of the exit
    code = stop.code or code
    atexit.unregister(_limit)
    atexit.register(_limit, code)  # what libraries do at the exit may hang
    return code


def _module(verb: str) -> ModuleType:
    """The file of a verb."""
    return import_module(f"layerwise.cli.{verb.replace('-', '_')}")


def _run(verb: str, arguments: list[str]) -> int:
    """Do what a verb does; its exit code."""
    try:
        if verb not in VERBS:
            near = difflib.get_close_matches(verb, VERBS, 1)
            guess = f"did you mean {near[0]}" if near else f"there are {', '.join(VERBS)}"
            raise SettingError(f"{verb}: there is no such verb, {guess}; see layerwise --help")
        try:
            os.getcwd()
        except FileNotFoundError:
            raise SettingError("the folder that this was started in is gone; change to another") from None
        # torch's threads, while they wait, are to leave their cores to those of compiled loops
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")
        with hidden():
            _module(verb).main(arguments)
    except (SettingError, TrainingFailed, DamagedRun, OSError) as error:
        if TOLD_ELSEWHERE not in getattr(error, "__notes__", ()):
            print(f"error: {console.one_line(' '.join(str(error).split()))}", file=sys.stderr)
        return 2 if isinstance(error, SettingError) else 1
    except (MemoryError, RuntimeError) as error:
        if not memory.is_lacking(error):
            raise
        print(
            "error: there is too little memory; give fewer or smaller images, or run it where there is more",
            file=sys.stderr,
        )
        return 1
    return 0


@dataclass
class _Stop:
    """What a signal does: one line, then an exit that nothing can hold up for long."""

    verb: str
    arguments: list[str]
    code: int | None = None
    """of the exit, once a signal has come"""

    def __call__(self, number: int, frame: FrameType | None) -> None:
        code = 128 + number
        if self.code is not None:  # Lightning sets handlers again that it found
            os._exit(code)
        self.code = code
        for other in SIGNALS:  # a second signal ends the process even within what is compiled
            signal.signal(other, signal.SIG_DFL)
        _limit(code)
        sys.unraisablehook = lambda _: os._exit(code)  # the exit would be lost in a destructor
        restarting = any(word.partition("=")[0] == "--restart_from" for word in self.arguments)
        then = "goes on from here" if self.verb in RESUMING else "begins anew"
        if restarting:
            then += ", without --restart_from once it has said that layers were deleted"
        if console.is_muted():
            raise SystemExit(code)
        with suppress(OSError):  # and no print, which this may have interrupted
            os.write(2, f"\nstopped by {signal.Signals(number).name}; the same command {then}\n".encode())
        raise SystemExit(code)


def _limit(code: int) -> None:
    """End the process with this code in a while, whatever it hangs in; takes no lock, as signal handlers must not."""

    def end() -> None:
        time.sleep(LIMIT)
        os._exit(code)

    with suppress(RuntimeError):  # where there is no memory for a thread
        _thread.start_new_thread(end, ())


def pictures(files: list[str]) -> list[tuple[str, str]]:
    """What the arguments FILE of a verb name, as `pictures_in` has it; for - the standard input has a name a line.

    Raises SettingError where that is nothing.
    """
    from layerwise.data.reading import pictures_in

    names = (_lines_given() if name == "-" else [name] for name in files)
    found = list(pictures_in(name for several in names for name in several if name))
    if not found:
        raise SettingError(f"FILE: there is no file in {', '.join(files)}; give pictures, or folders of them")
    return found


def _lines_given() -> list[str]:
    """The lines of the standard input, in whatever encoding names of files have."""
    with open(0, "rb", closefd=False) as given:
        return os.fsdecode(given.read()).split("\n")


def check_read(lost: int, count: int) -> None:
    """Raise OSError, for the exit code, where some files were no images; which ones has been said."""
    if lost:
        raise OSError(f"{lost} of {count} files are not readable images, as said above")


class Options(argparse.ArgumentParser):
    """The options of one verb; `settings` says in words which settings of `layerwise train` work, too."""

    def __init__(self, verb: str, meaning: str | None, settings: str | None = None) -> None:
        also = f"Also accepts these settings of `layerwise train`: {settings}." if settings else None
        super().__init__(f"layerwise {verb}", allow_abbrev=False, description=meaning, epilog=also)

    def error(self, message: str) -> NoReturn:
        """One line, as for every other mistake."""
        raise SettingError(f"{message}; see {self.prog} --help")

    def read(self, arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
        """The verb's own options, and the settings beside them."""
        given, settings = self.parse_known_args(arguments)
        if settings and not self.epilog:
            self.error(f"{settings[0]}: there is no such option")
        return given, settings
