"""How an embedding is averaged over positions. A new way is a function here and its name in `POOLINGS`.

Each is given a function that yields the embedding averaged over windows of a side that tile the image, which is
cheapest while it is computed, and the layer's settings.
"""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

from layerwise.config.layer import LayerConfig

Averaged = Callable[[int], Tensor]


def average(averaged: Averaged, config: LayerConfig) -> Tensor:
    """Over windows of side `pool`, one every `pool_step` positions; border windows average what they cover."""
    if config.step == config.pool:
        return averaged(config.pool)
    return F.avg_pool2d(averaged(1), config.pool, config.step, ceil_mode=True)


def adaptive(averaged: Averaged, config: LayerConfig) -> Tensor:
    """Over windows chosen such that `pool` x `pool` are left, whatever the size of the input."""
    return F.adaptive_avg_pool2d(averaged(1), config.pool)


POOLINGS: dict[str, Callable[[Averaged, LayerConfig], Tensor]] = {"average": average, "adaptive": adaptive}
