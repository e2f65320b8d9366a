"""Variables that are set for other programs, and that the libraries in use here would follow: hidden from them."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

HIDDEN = (
    "PL_",  # Lightning takes the arguments of a Trainer from them
    *("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "WORLD_SIZE", "MASTER_", "SLURM_PROCID", "JSM_NAMESPACE_"),
    *("TQDM_", "MPLBACKEND", "MATPLOTLIBRC"),
    "WANDB_SERVICE",  # of a process that may have ended
    "NUMBA_",
)
"""how they begin"""
KEPT = ("NUMBA_CACHE_DIR", "NUMBA_CPU_")


@contextmanager
def hidden() -> Iterator[None]:
    """Hide them, then set them again."""
    found = {name: value for name, value in os.environ.items() if _misleads(name, value)}
    for name in found:
        del os.environ[name]
    try:
        yield
    finally:
        os.environ |= found


def _misleads(name: str, value: str) -> bool:
    return name.startswith(HIDDEN) and not name.startswith(KEPT)
