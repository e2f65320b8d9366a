"""The command `layerwise VERB`: one file a verb; errors become one line and an exit code."""

import ast
import difflib
import signal
import sys
from importlib import import_module
from pathlib import Path
from types import FrameType

from layerwise.errors import DamagedRun, SettingError, TrainingFailed

VERBS = ["train", "evaluate", "paper", "theorem", "patches", "benchmark"]


def main(arguments: list[str] | None = None) -> int:
    """Run the command.

    Returns:
        The exit code: 0; 2 for a mistake in what was given; 1 for any other failure.

    Raises:
        SystemExit: 0 after --help; 130 and 143 on SIGINT and SIGTERM.
    """
    verb, *rest = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if verb in ("--help", "-h"):
        print(_overview())
        return 0
    if verb == "--version":
        from layerwise import __version__

        print(f"layerwise {__version__}")
        return 0
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    try:
        if verb not in VERBS:
            near = difflib.get_close_matches(verb, VERBS, 1)
            guess = f"did you mean {near[0]}" if near else f"there are {', '.join(VERBS)}"
            raise SettingError(f"{verb}: there is no such verb, {guess}; see layerwise --help")
        import_module(f"layerwise.cli.{verb}").main(rest)
    except SettingError as error:
        return _complain(error, 2)
    except (TrainingFailed, DamagedRun, OSError) as error:
        return _complain(error, 1)
    return 0


def _overview() -> str:
    lines = ["usage: layerwise VERB [OPTIONS]", "", "Train deep patch-based networks, one layer at a time.", ""]
    for verb in VERBS:
        source = (Path(__file__).parent / f"{verb}.py").read_text(encoding="utf-8")
        meaning = (ast.get_docstring(ast.parse(source)) or "").partition(": ")[2].splitlines()[0]
        lines.append(f"  {verb:10} {meaning}")
    return "\n".join(
        [*lines, "", "layerwise VERB --help lists the options of a verb, layerwise --version the version."]
    )


def _stop(number: int, frame: FrameType | None) -> None:
    for other in (signal.SIGINT, signal.SIGTERM):  # a second signal ends the process at once
        signal.signal(other, signal.SIG_DFL)
    print(f"\nstopped by {signal.Signals(number).name}; the same command goes on from here", file=sys.stderr)
    raise SystemExit(128 + number)


def _complain(error: Exception, code: int) -> int:
    print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
    return code
