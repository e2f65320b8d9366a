"""Compiled loops over all cores that threads and forked processes can call, as the workers of a DataLoader are.

Of Numba's threading layers GNU's OpenMP ends a forked process that uses it, and sets the number of torch's threads, on
which sums depend in their last bits. Its own, the work queue, does neither, but ends a process in which two threads use
it at once. So it is the work queue, one loop at a time.
"""

import os
from collections.abc import Callable
from functools import wraps
from threading import RLock
from typing import Any

from numba import config, njit
from numba.np.ufunc.parallel import threading_layer

if not os.environ.get("NUMBA_THREADING_LAYER"):
    config.THREADING_LAYER = "workqueue"  # type: ignore[attr-defined]

_lock = RLock()
_home = os.getpid()


def _forked() -> None:
    global _lock
    _lock = RLock()  # a thread that is not here may hold the other


os.register_at_fork(after_in_child=_forked)


def parallel(function: Callable[..., None]) -> Callable[..., None]:
    """Compile a loop with `prange`; RuntimeError where a forked process cannot run it."""
    kernel = njit(parallel=True, cache=True)(function)

    @wraps(function)
    def launch(*arguments: Any) -> None:
        with _lock:
            if os.getpid() != _home and _launched_with_openmp():
                remedy = "start processes by spawn, as DataLoader does with multiprocessing_context='spawn'"
                raise RuntimeError(f"Numba's OpenMP threads do not survive a fork; {remedy}")
            kernel(*arguments)

    return launch


def _launched_with_openmp() -> bool:
    try:
        return bool(threading_layer() == "omp")  # type: ignore[no-untyped-call]
    except ValueError:  # none was launched yet
        return False
