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


@contextmanager
def in_float32() -> Iterator[None]:
    """New numbers of float32, whatever torch makes by itself."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def as_torch_begins() -> Iterator[None]:
    """Whatever is set around a call: gradients, and numbers of float32, multiplied as such."""
    with in_float32(), torch.inference_mode(False), torch.enable_grad(), exactly():
        yield
