"""The runs in a folder: how deep, how good, how far."""

import os
from pathlib import Path

from layerwise.cli import Options
from layerwise.errors import SettingError

FOLDER = "runs"
"""where runs go by themselves"""
HEADER = ("run", "data", "state", "depth", "val", "test", "changed")


def main(arguments: list[str]) -> None:
    """Print one line a run: data set, state, finished layers of those asked for, accuracies, date of last change."""
    options = Options("runs", __doc__)
    options.add_argument("folder", metavar="DIR", nargs="?", help=f"look here and below; default: {FOLDER}")
    options.add_argument("--json", action="store_true", help="a list of objects")
    given, _ = options.read(arguments)

    import json

    from layerwise.console import one_line, print_table
    from layerwise.run.overview import Overview, overviews

    folder = Path(os.path.expanduser(given.folder or FOLDER))
    if given.folder and not folder.is_dir():
        raise SettingError(f"DIR: {folder} is not a folder; give one that holds runs, such as {FOLDER}")
    found = overviews(folder)
    if given.json:
        print(json.dumps([vars(run) for run in found], indent=2))
        return
    if not found:
        print(f"no runs in {folder}")
        return

    def row(run: Overview) -> tuple[str, ...]:
        asked = " auto" if run.asked == "auto" else f"/{run.asked}"
        shares = ("" if share is None else f"{share:.2%}" for share in (run.val_accuracy, run.test_accuracy))
        return run.name, f"{run.data}", f"{run.state}", f"{run.depth}{asked}", *shares, run.changed[:10]

    if whole := [row(run) for run in found if run.problem is None]:
        print_table([HEADER, *whole], left=3)
    for run in found:
        if run.problem is not None:
            print(one_line(f"{run.name}: {run.problem}"))
