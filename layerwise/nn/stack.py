"""The frozen stack of trained layers.

Shapes: B batch, C channels in, H W image side, D channels out, h' w' output side.
"""

from collections.abc import Iterable, Iterator
from typing import cast

import torch
from torch import Tensor, nn

from layerwise.nn.layer import ProbedLayer


class FrozenStack(nn.Module):
    """Trained layers, from the lowest, that never change again: always in eval mode, without gradients."""

    def __init__(self, layers: Iterable[nn.Module] = ()) -> None:
        super().__init__()
        self._layers = nn.ModuleList(layers)
        self.requires_grad_(False)
        self.eval()

    @property
    def layers(self) -> list[ProbedLayer]:
        """The layers, from the lowest."""
        return [cast(ProbedLayer, layer) for layer in self._layers]

    def __len__(self) -> int:
        return len(self._layers)

    def shape(self, images: tuple[int, int, int]) -> tuple[int, int, int]:
        """(D, h', w') of the stack's output for images (C, H, W) that it was made for."""
        return self.layers[-1].shape if len(self) else images

    def below(self, number: int) -> "FrozenStack":
        """The layers under layer `number`, from 1."""
        return FrozenStack(self.layers[: number - 1])

    def with_layer(self, layer: ProbedLayer) -> "FrozenStack":
        """The stack with one more layer on top, which is frozen by that."""
        return FrozenStack([*self.layers, layer])

    def train(self, mode: bool = True) -> "FrozenStack":
        """Stay in eval mode whatever is asked for: batch norm in train mode would drift."""
        return super().train(False)

    def depths(self, x: Tensor, logits: Tensor | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield output (B, D, h', w') and logits (B, classes) of each layer in turn."""
        for layer in self.layers:
            with torch.no_grad():
                x, logits = layer(x, logits)
            yield x, logits

    @torch.no_grad()
    def outputs(self, x: Tensor) -> Iterator[Tensor]:
        """Yield what the probe of each layer reads in turn, (B, D, h', w'): what it has learned to see."""
        for layer in self.layers:
            read, x = layer.layer.both(x)
            yield read

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Map (B, C, H, W) to the top layer's output and logits; an empty stack passes x on, without logits."""
        top: tuple[Tensor, Tensor | None] = x, None
        for top in self.depths(x):  # noqa: B007
            pass
        return top
