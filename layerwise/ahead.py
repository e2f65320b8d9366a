"""Compile the CPU's kernels before anything is timed: on a machine's first run, while everything else is imported.

Numba compiles a kernel when it is first called, and keeps it beside its module. That takes half a minute, once; two
processes share it.
"""

import os
import subprocess
import sys
from functools import cache
from pathlib import Path


@cache
def start() -> subprocess.Popen[bytes] | None:
    """Begin to compile the slower half in a process of its own; None where that was done before."""
    caches = [Path(__file__).parent / "ops" / "__pycache__", Path(os.environ.get("NUMBA_CACHE_DIR") or os.devnull)]
    caches.append(Path(os.path.expanduser("~/.cache/numba")))  # where the package's own folder cannot be written to
    if any(True for folder in caches for _ in folder.rglob("cpu._pool-*.nbi")):
        return None
    command = [sys.executable, "-m", "layerwise.ahead"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def finish() -> None:
    """Compile the other half, and wait for the process; what fails there is compiled when it is called."""
    if (process := start()) is None:
        return
    print("compiling for this processor, which takes half a minute once", flush=True)
    try:
        import torch

        from layerwise import ops

        backend = ops.backend(torch.zeros(1))
        backend.lowest(torch.zeros(2, 2))
        backend.add_up(torch.zeros(2, 2), torch.zeros(2, dtype=torch.long), 2)
        near = torch.zeros(1, 2, 2, 1, dtype=torch.uint8)
        backend.backward(torch.zeros(1, 1, 4, 4), torch.zeros(1, 4, 1, 1), near, 3, 2)
        process.wait()
    finally:
        process.kill()
        start.cache_clear()


if __name__ == "__main__":
    import torch

    from layerwise import ops

    ops.embed(torch.zeros(1, 1, 4, 4), torch.zeros(10, 4), torch.zeros(10, 4), 3, 2, 2)
