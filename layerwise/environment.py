"""Variables that are set for other programs, and that the libraries in use here would follow: hidden from them."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

LAUNCHERS = ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "WORLD_SIZE", "MASTER_", "SLURM_PROCID", "JSM_NAMESPACE_")
"""how those begin by which a launcher tells processes that belong together of each other"""
OTHERS = (
    *("PL_", "LT_"),  # Lightning takes the arguments of a Trainer and of Fabric from them
    *("TQDM_", "MPLBACKEND", "MATPLOTLIBRC"),
    "WANDB_SERVICE",  # of a process that may have ended
    "NUMBA_",
)
KEPT = ("NUMBA_CACHE_DIR", "NUMBA_CPU_")

_held: dict[str, str] = {}  # those that are hidden at present


@contextmanager
def hidden(names: tuple[str, ...] = LAUNCHERS + OTHERS) -> Iterator[None]:
    """Hide variables that begin so, then set them again."""
    found = {name: value for name, value in os.environ.items() if _misleads(name, value, names)}
    for name in found:
        del os.environ[name]
    _held.update(found)
    try:
        yield
    finally:
        os.environ |= found
        for name in found:
            _held.pop(name, None)


def show_launcher() -> None:
    """Set again what a launcher has set, since its processes are to train together."""
    os.environ |= {name: _held.pop(name) for name in list(_held) if name.startswith(LAUNCHERS)}


def number_on_machine() -> int:
    """Which of the processes that a launcher has started on this machine this is, from 0; 0 without a launcher."""
    for name in ("LOCAL_RANK", "SLURM_LOCALID"):
        with suppress(ValueError):
            return int(_held.get(name) or os.environ.get(name, ""))
    return 0


def _misleads(name: str, value: str, names: tuple[str, ...]) -> bool:
    return name.startswith(names) and not name.startswith(KEPT)
