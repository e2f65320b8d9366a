"""Covering numbers: how many balls of a radius cover nearly all patches (paper, section 4).

Shapes: M patches, P patch numbers.
"""

import math

import torch
from torch import Tensor


def greedy_cover(points: Tensor, radius: float, share: float, most: int, generator: torch.Generator) -> int | None:
    """Number of balls of a radius, around points of the set, that cover a share of it: an upper bound.

    Puts a ball around a random point that is not covered yet, again and again.

    Args:
        points: (M, P).
        radius: of a ball, in the unit of the points.
        share: of the points to be covered, above 0, at most 1.
        most: gives up beyond so many balls.
        generator: a CPU generator.

    Returns:
        The number; None where it is more than `most`.
    """
    left = points[torch.randperm(len(points), generator=generator).to(points.device)]
    allowed = math.floor(len(points) * (1 - share) + 1e-9)
    balls = 0
    while len(left) > allowed:
        if balls == most:
            return None
        left = left[(left - left[0]).square().sum(1) > radius * radius]
        balls += 1
    return balls


def slope(radii: list[float], balls: list[int]) -> float | None:
    """By what power the number of balls grows as their radius shrinks: minus the slope of log number over log radius.

    None where the radii do not differ.
    """
    x, y = torch.tensor(radii, dtype=torch.float64).log(), torch.tensor(balls, dtype=torch.float64).log()
    if len(x) < 2 or not bool((x != x[0]).any()):
        return None
    x, y = x - x.mean(), y - y.mean()
    return float(-(x @ y) / (x @ x))
