"""Products of float32 as such, whatever precision is set: what is near must not depend on a setting."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import torch


@contextmanager
def multiplied_with(precision: str) -> Iterator[None]:
    """Products of float32 at a precision of `torch.set_float32_matmul_precision`; afterwards at that of before."""
    before = torch.get_float32_matmul_precision()
    # a compiled program keeps what was set when it was compiled
    if before == precision or torch.compiler.is_compiling():
        yield
        return
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def exactly() -> AbstractContextManager[None]:
    """Products of float32 that are not rounded further."""
    return multiplied_with("highest")
