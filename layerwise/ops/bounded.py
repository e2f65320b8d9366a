"""Rows of a large matrix a few at a time, so that what is made of them is small beside it."""

import torch
from torch import Tensor

NUMBERS = 1 << 21
"""that are computed with at once: 8 MiB of float32, so that they stay in a CPU's cache"""


def chunks(rows: Tensor) -> tuple[Tensor, ...]:
    """Views of (M, P), of a few rows each, in order."""
    return torch.split(rows, max(1, NUMBERS // rows.shape[1]))
