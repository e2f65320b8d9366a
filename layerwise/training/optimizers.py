"""Optimizers and schedules of the learning rate."""

from typing import Any

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, MultiStepLR, OneCycleLR

from layerwise import config
from layerwise.config.choices import OPTIMIZERS, SCHEDULES


@OPTIMIZERS("adamw")
def adamw(groups: list[dict[str, Any]], settings: config.Optimizer) -> Optimizer:
    """AdamW."""
    return _AdamW(groups, lr=settings.learning_rate, fused=_fused(groups))


@OPTIMIZERS("sgd")
def sgd(groups: list[dict[str, Any]], settings: config.Optimizer) -> Optimizer:
    """Stochastic gradient descent with momentum."""
    fused = _fused(groups)
    return torch.optim.SGD(groups, lr=settings.learning_rate, momentum=settings.momentum, fused=fused)


@SCHEDULES("cycle")
def cycle(optimizer: Optimizer, settings: config.Optimizer, steps: int) -> LRScheduler:
    """One cycle: up to the learning rate in the share `warmup` of the steps, then down to next to nothing."""
    # OneCycleLR divides by warmup * steps - 1
    warmup = settings.warmup if abs(settings.warmup * steps - 1) > 1e-6 else 1.5 / steps
    # a cycle of the momentum, too, is more than what is asked for
    return OneCycleLR(optimizer, settings.learning_rate, total_steps=steps, pct_start=warmup, cycle_momentum=False)


@SCHEDULES("steps")
def steps(optimizer: Optimizer, settings: config.Optimizer, steps: int) -> LRScheduler:
    """A tenth after half of the steps, a hundredth after three quarters: the authors' epochs 100 and 150 of 200."""
    return MultiStepLR(optimizer, [steps // 2, steps * 3 // 4], gamma=0.1)


class _AdamW(torch.optim.AdamW):
    """As torch has it, but for asking the driver in every step whether a CUDA graph is captured, which none is here."""

    def _accelerator_graph_capture_health_check(self) -> None:
        """Ask nothing."""


def _fused(groups: list[dict[str, Any]]) -> bool | None:
    """Whether to take all steps of an update in one pass, without waiting for a GPU; elsewhere torch decides."""
    return True if all(p.device.type in ("cpu", "cuda") for group in groups for p in group["params"]) else None
