"""How much memory there is, and one line, which names what asked for more, where it is too little."""

import ctypes
import os
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from layerwise.errors import TrainingFailed

GROUPS = {"": "memory.max", "memory": "memory/memory.limit_in_bytes"}
"""below /sys/fs/cgroup, by controller: where a container or a scheduler says how much it lends, version 2 and 1"""

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""of mallopt: how much is freed before it is given back, in bytes, and from what size on memory is had apart"""


def total() -> int:
    """Bytes of memory that this process may take at most: of the machine, its container and its own limit."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), resource.getrlimit(resource.RLIMIT_AS)[0]]
    return min(limit for limit in (*limits, *lent()) if limit > 0)


def lent(root: Path = Path("/")) -> Iterator[int]:
    """The limits in bytes of the control group of this process, and of those that it is in; `root` is the system's."""
    groups = {"": "/", "memory": "/"}  # a container may see its own as the outermost one, whatever path is told
    with suppress(OSError, ValueError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            groups |= dict.fromkeys(controllers.split(","), path)
    for controller, file in GROUPS.items():
        within, name = os.path.split(root / "sys/fs/cgroup" / file)
        parts = [part for part in groups[controller].split("/") if part]
        for depth in range(len(parts) + 1):
            with suppress(OSError, ValueError):  # none, or "max"
                yield int(Path(within, *parts[:depth], name).read_text())


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
