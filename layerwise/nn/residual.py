"""What is handed on of a layer's input beside its output.

Shapes: B batch, C channels in, D channels out, H W image side, h' w' output side.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from layerwise.config.choices import RESIDUALS
from layerwise.ops import average_pool


@RESIDUALS("none")
def alone(out: Tensor, x: Tensor, patch_size: int, pool: int) -> Tensor:
    """The input is not used further."""
    return out


@RESIDUALS("concatenate")
def concatenated(out: Tensor, x: Tensor, patch_size: int, pool: int) -> Tensor:
    """The input's channels are appended, averaged over the middles of the patches that a window averages."""
    border, middle = (patch_size - 1) // 2, 2 - patch_size % 2  # a pixel, or the middle 2×2 of an even side
    h, w = (side - 2 * border for side in x.shape[2:])
    inner = x[:, :, border : border + h, border : border + w]
    if middle > 1:
        inner = F.avg_pool2d(inner, middle, 1)
    return joined(out, average_pool(inner, pool) if pool > 1 else inner)


def joined(*parts: Tensor) -> Tensor:
    """The channels of several after one another: copied by position, where those of each lie together."""
    return torch.cat([part.permute(0, 2, 3, 1) for part in parts], 3).permute(0, 3, 1, 2)
