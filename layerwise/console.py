"""What the console shows: a bar for every long step, or one plain line where the output is no terminal; tables."""

import io
import logging
import os
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Sequence, Sized
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from tqdm import tqdm

T = TypeVar("T")
_muted = False


class _Lasting(io.FileIO):
    """A stream whose reader may go away, or whose disk may fill: what cannot be written is lost, and no more."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data) or len(data)
        except OSError:
            return len(data)


def secure() -> None:
    """Make printing safe: where a stream is closed, its reader is gone, or it cannot encode a character.

    What a stream lacks is printed as ?; descriptors that are closed are opened, lest a file get the number of one.
    """
    logging.raiseExceptions = False  # so is what libraries note in files of their own
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # which takes the lowest number that is free
    for number, name in ((1, "stdout"), (2, "stderr")):
        stream = getattr(sys, name)
        if stream is not getattr(sys, f"__{name}__"):
            continue  # someone collects what is printed
        if stream is not None:
            stream.flush()
        raw, encoding = _Lasting(number, "w", closefd=False), getattr(stream, "encoding", "utf-8")
        lasting = io.TextIOWrapper(io.BufferedWriter(raw), encoding, "replace", line_buffering=True)
        setattr(sys, name, lasting)
        setattr(sys, f"__{name}__", lasting)


@contextmanager
def mute(whether: bool = True) -> Iterator[None]:
    """Show nothing of this process within, as of one of several that train together, but for its errors."""
    global _muted
    before, _muted = _muted, whether or _muted
    try:
        if not whether:
            yield
            return
        with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
            yield
    finally:
        _muted = before


@contextmanager
def silenced() -> Iterator[None]:
    """Print nothing within, nor show what is told of warnings and errors, as of what is only tried."""
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        yield


def is_muted() -> bool:
    """Whether this process is to show nothing."""
    return _muted


def silence_lightning() -> None:
    """Keep it from noting what machine this is."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)


def bar(what: str, total: int | None) -> "tqdm[Any]":
    """A bar of one line, gone at its end: what, how much of it is done, and how long it will take."""
    from tqdm import tqdm  # which reads variables when it is imported

    shape = "{desc} {percentage:3.0f}%|{bar}| {remaining} left{postfix}"
    return tqdm(total=total, desc=what, bar_format=shape, leave=False, dynamic_ncols=True)


def progress(items: Iterable[T], what: str, total: int | None = None) -> Iterator[T]:
    """Pass the items on, showing how far a step such as "layer 2: k-means" is; `total` if they have no length."""
    if _muted or not sys.stderr.isatty():
        print(what, flush=True)
        yield from items
        return
    with bar(what, len(items) if isinstance(items, Sized) else total) as shown:
        for item in items:
            yield item
            shown.update()


def in_words(seconds: float) -> str:
    """A duration, to two digits or so."""
    if seconds < 120:
        return f"{seconds:.0f} seconds"
    minutes, hours = seconds / 60, seconds / 3600
    return f"{minutes:.{int(minutes < 10)}f} minutes" if hours < 2 else f"{hours:.{int(hours < 10)}f} hours"


def one_line(name: str, longest: int | None = None) -> str:
    """A name, of a class or a file, of at most so many letters; what is no letter in it is a question mark."""
    line = "".join("?" if unicodedata.category(letter) in ("Cc", "Cs") else letter for letter in name)
    return line if longest is None or len(line) <= longest else f"{line[: longest - 1]}…"


def print_table(table: Sequence[Sequence[str]], left: int = 0) -> None:
    """Print rows in columns, the first `left` of them left-aligned and the others right-aligned."""
    lines = [[one_line(cell) for cell in row] for row in table]
    widths = [max(map(_width, column)) for column in zip(*lines, strict=True)]
    for row in lines:
        padded = [(cell, " " * (width - _width(cell))) for cell, width in zip(row, widths, strict=True)]
        print("  ".join(cell + room if i < left else room + cell for i, (cell, room) in enumerate(padded)).rstrip())


def _width(text: str) -> int:
    """Columns of a terminal that a text takes."""
    wide = sum(unicodedata.east_asian_width(letter) in "WF" for letter in text)
    return len(text) + wide - sum(unicodedata.category(letter) in ("Mn", "Me", "Cf") for letter in text)
