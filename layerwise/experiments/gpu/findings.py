"""What is tried on a GPU, and what came of it."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One line of the table."""

    what: str
    found: str
    wanted: str = ""
    holds: bool | None = None
    """whether it is what is wanted; None where nothing is"""
    value: float | None = None
    """what was found, as a number"""


@dataclass(frozen=True)
class Check:
    """Something that is tried at once: done, or done anew."""

    name: str
    run: Callable[[], list[Finding]]
