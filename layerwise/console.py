"""What the console shows: a bar for every long step, or one plain line where the output is no terminal; tables."""

import sys
from collections.abc import Iterable, Iterator, Sequence, Sized
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")


def bar(what: str, total: int | None) -> tqdm:  # type: ignore[type-arg]
    """A bar of one line, gone at its end: what, how much of it is done, and how long it will take."""
    shape = "{desc} {percentage:3.0f}%|{bar}| {remaining} left{postfix}"
    return tqdm(total=total, desc=what, bar_format=shape, leave=False, dynamic_ncols=True)


def progress(items: Iterable[T], what: str, total: int | None = None) -> Iterator[T]:
    """Pass the items on, showing how far a step such as "layer 2: k-means" is; `total` if they have no length."""
    if not sys.stderr.isatty():
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
    return f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"


def print_table(table: Sequence[Sequence[str]]) -> None:
    """Print rows in columns, right-aligned."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        print("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)))
