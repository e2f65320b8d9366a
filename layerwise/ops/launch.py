"""Compiled loops over as many threads as torch uses, which threads and forked processes can call.

A kernel goes through tasks first … last-1, each of which writes what no other does, so that the result is the same
whatever the number of threads. The calling thread takes its part: a thread of its own pool alone, woken for a few
milliseconds, would often come to the core that another one is on.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache, wraps
from typing import Any

import torch
from numba import njit

PIECES = 4
"""that a thread has of a loop, so that one that is held up leaves its work to others"""


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(os.cpu_count(), "layerwise")


os.register_at_fork(after_in_child=_pool.cache_clear)


def parallel(function: Callable[..., None]) -> Callable[..., None]:
    """Compile a kernel, of first, last and what it needs; call what this returns with the number of tasks instead."""
    kernel = njit(nogil=True, cache=True)(function)

    @wraps(function)
    def launch(tasks: int, *arguments: Any) -> None:
        threads = min(torch.get_num_threads(), tasks)
        if threads < 2:
            kernel(0, tasks, *arguments)
            return
        count = min(tasks, PIECES * threads)
        pieces = iter([(i * tasks // count, (i + 1) * tasks // count) for i in range(count)])

        def work() -> None:
            for first, last in pieces:  # each of which one thread gets
                kernel(first, last, *arguments)

        others = [_pool().submit(work) for _ in range(threads - 1)]
        try:
            work()
        finally:
            for other in others:
                if not other.cancel():
                    other.result()

    return launch
