"""Products of float32 as such, whatever precision is set: what is near must not depend on a setting."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import backends

_GPU: Any = backends.cuda.matmul
PRODUCTS: list[Any] = [_GPU, backends.mkldnn.matmul]  # type: ignore[attr-defined]
"""of matrices, on a GPU and on a processor; each may be set apart, by its `fp32_precision`"""


def rounded() -> bool:
    """Whether products of matrices of float32 may be rounded further, to TF32, on a GPU."""
    return bool(_GPU.fp32_precision == "tf32")


@contextmanager
def multiplied_with(precision: str) -> Iterator[None]:
    """Products of float32 at a precision of `torch.set_float32_matmul_precision`; afterwards at that of before."""
    if torch.compiler.is_compiling():  # a compiled program keeps what was set when it was compiled
        yield
        return
    apart = [products.fp32_precision for products in PRODUCTS]
    try:
        before = torch.get_float32_matmul_precision()
    except RuntimeError:  # set apart, which torch then does not tell by one word
        before = None
    if before == precision:
        yield
        return
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before or "highest")
        for products, each in zip(PRODUCTS, apart, strict=True):
            products.fp32_precision = each


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
