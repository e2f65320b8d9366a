"""The command `layerwise VERB`: one file a verb, whose docstring is its meaning; errors become one line and a code."""

import argparse
import difflib
import signal
import sys
from functools import partial
from importlib import import_module
from types import FrameType
from typing import NoReturn

from layerwise.errors import DamagedRun, SettingError, TrainingFailed
from layerwise.version import VERSION

VERBS = ["train", "evaluate", "paper", "theorem", "patches", "benchmark", "selftest"]
RESUMING = {"train", "paper", "theorem"}
"""verbs that go on where they were stopped"""


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code: 0; 2 for a mistake in what was given; 1 for any other failure.

    Raises:
        SystemExit: 0 after the --help of a verb; 130 and 143 on SIGINT and SIGTERM.
    """
    verb, *rest = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if verb in ("--help", "-h"):
        print("usage: layerwise VERB [OPTIONS]\n\nTrain deep patch-based networks, one layer at a time.\n")
        for name in VERBS:
            print(f"  {name:10} {import_module(f'layerwise.cli.{name}').__doc__}")
        print("\nlayerwise VERB --help lists the options of a verb, layerwise --version the version.")
        return 0
    if verb == "--version":
        print(f"layerwise {VERSION}")
        return 0
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, partial(_stop, verb))
    try:
        if verb not in VERBS:
            near = difflib.get_close_matches(verb, VERBS, 1)
            guess = f"did you mean {near[0]}" if near else f"there are {', '.join(VERBS)}"
            raise SettingError(f"{verb}: there is no such verb, {guess}; see layerwise --help")
        import_module(f"layerwise.cli.{verb}").main(rest)
    except (SettingError, TrainingFailed, DamagedRun, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2 if isinstance(error, SettingError) else 1
    return 0


def _stop(verb: str, number: int, frame: FrameType | None) -> None:
    for other in (signal.SIGINT, signal.SIGTERM):  # a second signal ends the process at once
        signal.signal(other, signal.SIG_DFL)
    then = "goes on from here" if verb in RESUMING else "begins anew"
    print(f"\nstopped by {signal.Signals(number).name}; the same command {then}", file=sys.stderr)
    raise SystemExit(128 + number)


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
