"""One progress bar with the time left for every long step; one plain line where the output is no terminal."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")


def progress(items: Iterable[T], what: str, total: int | None = None) -> Iterator[T]:
    """Pass the items on, showing how far along they are.

    Args:
        items: what is worked through.
        what: what the step does, such as "layer 2: k-means".
        total: number of items, where `items` has no length.
    """
    if not sys.stderr.isatty():
        print(what, flush=True)
        yield from items
        return
    from tqdm import tqdm

    yield from tqdm(items, desc=what, total=total, leave=False, dynamic_ncols=True)


def print_table(table: Sequence[Sequence[str]]) -> None:
    """Print rows in columns, right-aligned."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        print("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)))
