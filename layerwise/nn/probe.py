"""The linear classifier on a layer's output (paper, section 3 and Table 2).

Shapes: B batch, D channels, h' w' output side, P patch dimension, N atoms.
"""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from layerwise.config import Probe
from layerwise.config.choices import PROBES, STARTS
from layerwise.nn.embedding import Embedding, Factors

TOGETHER = 1 << 22  # elements (positions, B, N, classes) that the unconstrained probe processes at once: 16 MiB


@STARTS("zero")
def zero(weight: Tensor, bias: Tensor, inputs: int) -> None:
    """Zero, which favors no class."""
    nn.init.zeros_(weight)
    nn.init.zeros_(bias)


@STARTS("random")
def random(weight: Tensor, bias: Tensor, inputs: int) -> None:
    """Uniform within ± 1/√inputs, as PyTorch begins a linear layer."""
    nn.init.uniform_(weight, -(inputs**-0.5), inputs**-0.5)
    nn.init.uniform_(bias, -(inputs**-0.5), inputs**-0.5)


@PROBES("linear")
class LinearProbe(nn.Module):
    """The layer's output, flattened."""

    embedding: ClassVar[type[Embedding] | None] = None
    """what the probe classifies in place of the layer's own embedding"""

    def __init__(self, shape: tuple[int, int, int], classes: int, settings: Probe, atoms: int) -> None:
        super().__init__()
        d, h, w = shape
        self.pool = pool = settings.pool
        self.dropout = nn.Dropout(settings.dropout)
        self.linear = nn.Linear(d * -(-h // pool) * -(-w // pool), classes)
        STARTS[settings.init](self.linear.weight, self.linear.bias, self.linear.in_features)

    def forward(self, x: Tensor, averaged: bool = False) -> Tensor:
        """Map (B, D, h', w'), of which windows are averaged, unless they are already, to logits (B, classes)."""
        seen = x if averaged or self.pool == 1 else F.avg_pool2d(x, self.pool, ceil_mode=True)
        logits: Tensor = self.linear(self.dropout(seen.flatten(1)))
        return logits


@PROBES("unconstrained")
class UnconstrainedProbe(nn.Module):
    """Φ_full as it is, with a map of its own for each position, atom and class, so that the embedding has none.

    Of the N·P elements of Φ_full at a position k·P are not 0; they are never written down.
    """

    embedding: ClassVar[type[Embedding] | None] = Factors

    def __init__(self, shape: tuple[int, int, int], classes: int, settings: Probe, atoms: int) -> None:
        super().__init__()
        self.atoms = atoms
        dimension = shape[0] - atoms
        self.weight = nn.Parameter(torch.zeros(shape[1] * shape[2], dimension, atoms * classes))
        self.bias = nn.Parameter(torch.zeros(classes))
        STARTS[settings.init](self.weight, self.bias, self.weight.shape[0] * dimension * atoms)

    def forward(self, x: Tensor) -> Tensor:
        """Map gates and patches, (B, N+P, h, w), to logits (B, classes)."""
        gates, patches = torch.split(x.flatten(2).permute(2, 0, 1), [self.atoms, self.weight.shape[1]], 2)
        logits = self.bias.expand(x.shape[0], -1)  # len(x) would be one number in an exported program
        step = len(self.weight)  # positions at a time; all for an exported program, which takes batches of any size
        if not torch.compiler.is_exporting():
            step = max(1, TOGETHER // (len(x) * self.weight.shape[2]))
        parts = (torch.split(values, step) for values in (gates, patches, self.weight))
        for gate, patch, weight in zip(*parts, strict=True):
            responses = torch.bmm(patch, weight).reshape(*gate.shape, -1)
            logits = logits + torch.einsum("pbn,pbnc->bc", gate, responses)
        return logits
