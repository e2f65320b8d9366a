"""The plain convolution with ReLU on a GPU: torch's own, by cuDNN, which is what a CNN would be trained with there.

For shapes see `layerwise.ops`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.backends import cudnn

from layerwise.ops.exact import rounded
from layerwise.ops.reference import average_pool


def convolve(x: Tensor, maps: Tensor, patch_size: int, pool: int) -> Tensor:
    """Convolve, keep what is above 0, and average over windows: (B, C, H, W) to (B, N, h', w'). No gradient for x.

    The same bits at every call; products as accurate as those of the kernels (`layerwise.ops.cuda`).
    """
    kernels = maps[:-1].T.reshape(-1, patch_size, patch_size, x.shape[1]).permute(0, 3, 1, 2)
    mapped: Tensor = _Convolution.apply(x, kernels, maps[-1])
    return average_pool(mapped.relu(), pool)


class _Convolution(torch.autograd.Function):
    """torch's, with cuDNN set alike in both passes."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernels: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, kernels)
        with _repeatable():
            return F.conv2d(x, kernels, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor, Tensor]:
        x, kernels = ctx.saved_tensors
        stride, padding, sizes = [1, 1], [0, 0], [len(kernels)]
        given = grad, x, kernels, sizes, stride, padding, stride, False, padding, 1, [False, True, True]
        with _repeatable():
            _, of_kernels, of_bias = torch.ops.aten.convolution_backward(*given)
        return None, of_kernels, of_bias


@contextmanager
def _repeatable() -> Iterator[None]:
    """No sum in any order, and no product rounded to TF32 unless those of matrices may be."""
    products: Any = cudnn.conv  # type: ignore[attr-defined]
    before = cudnn.deterministic, products.fp32_precision
    cudnn.deterministic, products.fp32_precision = True, "tf32" if rounded() else "ieee"
    try:
        yield
    finally:
        cudnn.deterministic, products.fp32_precision = before
