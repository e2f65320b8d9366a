"""How much memory there is, and one line, which names what asked for more, where it is too little."""

import ctypes
import os
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from layerwise.errors import TrainingFailed

GROUPS = "/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"
"""where a container or a scheduler says how much it lends, version 2 and 1"""

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""of mallopt: how much is freed before it is given back, in bytes, and from what size on memory is had apart"""


def total() -> int:
    """Bytes of memory that this process may take at most: of the machine, its container and its own limit."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), resource.getrlimit(resource.RLIMIT_AS)[0]]
    for path in GROUPS:
        with suppress(OSError, ValueError):  # none, or "max"
            limits.append(int(Path(path).read_text()))
    return min(limit for limit in limits if limit > 0)


def peak() -> int:
    """The most bytes of the processor's memory that this process has taken."""
    taken = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return taken if sys.platform == "darwin" else 1024 * taken


def keep_what_is_freed() -> None:
    """Let this process keep the memory that a step frees for the next, where its C library is GNU's.

    Otherwise each step gets its largest tensors from the system and gives them back, a page at a time.
    """
    with suppress(OSError, AttributeError):
        change = ctypes.CDLL(None).mallopt
        change(M_MMAP_THRESHOLD, 1 << 25)
        change(M_TRIM_THRESHOLD, 1 << 30)


def is_lacking(error: BaseException) -> bool:
    """Whether an error says that memory is lacking, of the processor or of a GPU."""
    return isinstance(error, MemoryError) or "memory" in str(error) and "alloc" in str(error)


@contextmanager
def needed(what: str, remedy: str) -> Iterator[None]:
    """Raise TrainingFailed, with what to do, where memory is lacking within."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_lacking(error):
            raise
        raise TrainingFailed(f"{what}: too little memory; {remedy}") from error
