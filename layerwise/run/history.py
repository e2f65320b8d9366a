"""Which W&B run a run directory is, run-id, and what it has logged there, history.jsonl, in which of W&B's folders.

W&B keeps each process's part in a folder of its own, and a kill costs what it has not written yet. This file has every
row, so that no resumed training logs one again that W&B's server has, and each offline folder holds all that lacks
there.
"""

import json
import os
import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from layerwise.run.files import commit

HISTORY, IDENTITY = "history.jsonl", "run-id"


@dataclass(frozen=True)
class Row:
    """What was logged at once."""

    folder: str
    """of W&B's that it is in; nothing where W&B had failed"""
    step: int
    """W&B's own, which counts all rows that a run has there"""
    axis: str
    """such as layer1/step, or summary/depth"""
    at: int
    """the position on it"""
    values: dict[str, float | None]
    """by name; None stands for a picture or a table, which is made anew where it is needed"""

    @property
    def layer(self) -> int:
        """The layer, from 1, that the row depends on; of several the top one."""
        group = self.axis.partition("/")[0]
        return self.at if group == "summary" else int(group.removeprefix("layer"))


class History:
    """The rows in `folder`, the W&B folder of a run directory."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / HISTORY
        self._set(_read(self._path))

    def _set(self, rows: Iterator[Row] | list[Row]) -> None:
        self._rows = list(rows)
        self._known = {(name, row.at) for row in self._rows for name in row.values}

    @property
    def folders(self) -> set[str]:
        """All folders of W&B's that rows are in."""
        return {row.folder for row in self._rows}

    def has(self, name: str, at: int) -> bool:
        """Whether a value was logged at a position of its axis."""
        return (name, at) in self._known

    def of(self, name: str) -> list[float]:
        """All values of a name, in order."""
        found = (row.values.get(name) for row in self._rows)
        return [value for value in found if value is not None]

    def last(self, axis: str) -> int:
        """The last position on an axis; 0 where there is none."""
        return max((row.at for row in self._rows if row.axis == axis), default=0)

    def add(self, row: Row) -> None:
        """Note what is logged; OSError where it cannot be written."""
        self._rows.append(row)
        self._known |= {(name, row.at) for name in row.values}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(_line(row))

    def move(self, folder: str, step: int, sent: Callable[[Row], bool]) -> list[Row]:
        """Let all rows that were not `sent` be in `folder`, from a step on; returns them, to be logged there.

        Pictures and tables among them are forgotten.
        """
        kept, moved = [row for row in self._rows if sent(row)], list[Row]()
        for row in self._rows:
            numbers: dict[str, float | None] = {n: value for n, value in row.values.items() if value is not None}
            if numbers and not sent(row):
                moved.append(replace(row, folder=folder, step=step + len(moved), values=numbers))
        self._set([*kept, *moved])
        _write(self._path, self._rows)
        return moved


def forget(folder: Path, layer: int) -> None:
    """Forget the rows of layers from `layer` on, which are deleted; those below are then the start of another W&B run.

    The old one stays as it is, on the server or in its folder.
    """
    (folder / IDENTITY).unlink(missing_ok=True)
    if (path := folder / HISTORY).exists():
        _write(path, [replace(row, folder="") for row in _read(path) if row.layer < layer and row.values])


def identity(folder: Path) -> str:
    """The id of the W&B run of a run directory, which a file in its W&B folder keeps, with the directory's path.

    A directory that was moved goes on in the same W&B run; a copy of one that is still there gets an id of its own.
    """
    folder.mkdir(exist_ok=True)
    path, here = folder / IDENTITY, os.fsencode(folder.resolve())
    found, place = _noted(path)
    original = Path(os.fsdecode(place)) / IDENTITY
    if place and _noted(original)[0] == found and not original.samefile(path):
        print(f"W&B: this is a copy of {original.parent.parent}, so it becomes a W&B run of its own")
        found = b""
    given = os.environ.get("WANDB_RUN_ID", "").encode()
    if found and given and given != found:
        print(f"W&B: {folder.parent} is the W&B run {found.decode()}, so WANDB_RUN_ID is not followed")
    found = found or given or secrets.token_hex(4).encode()
    commit(path, lambda temporary: temporary.write_bytes(found + b"\n" + here))
    return found.decode()


def _noted(path: Path) -> tuple[bytes, bytes]:
    """The id in a file and the W&B folder that it was given to; nothing where the file holds no id."""
    try:
        found, _, place = path.read_bytes().partition(b"\n")
    except (OSError, ValueError):
        return b"", b""
    return (found, place) if re.fullmatch(rb"[0-9A-Za-z_-]{1,64}", found) else (b"", b"")


def _read(path: Path) -> Iterator[Row]:
    """Every row that is whole: a kill may have cut off the last one."""
    with suppress(OSError):
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            with suppress(ValueError, TypeError, AttributeError, RecursionError):
                row = Row(**json.loads(line))
                numbers = row.step, row.at, *(value for value in row.values.values() if value is not None)
                if row.layer and isinstance(row.folder, str) and all(isinstance(n, (int, float)) for n in numbers):
                    yield row


def _write(path: Path, rows: list[Row]) -> None:
    commit(path, lambda temporary: temporary.write_text("".join(map(_line, rows)), encoding="utf-8"))


def _line(row: Row) -> str:
    return json.dumps(asdict(row)) + "\n"
