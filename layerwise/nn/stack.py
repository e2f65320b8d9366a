"""The frozen stack of trained layers.

Shapes: B batch, C channels in, H W image side, D channels out, h' w' output side.
"""

from collections.abc import Iterable, Iterator
from typing import cast

import torch
from torch import Tensor, nn

from layerwise.config import Layer
from layerwise.nn.layer import ProbedLayer


class FrozenStack(nn.Module):
    """Trained layers, from the lowest, that never change again: always in eval mode, without gradients.

    A layer is given what the layer below hands on, or the images anew, and then begins another column; `anew`, if that
    is what the layer above will do. The logits go through all layers.
    """

    def __init__(self, layers: Iterable[nn.Module] = (), anew: bool = False) -> None:
        super().__init__()
        self._layers = nn.ModuleList(layers)
        self.anew = anew
        self.requires_grad_(False)
        self.eval()

    @property
    def layers(self) -> list[ProbedLayer]:
        """The layers, from the lowest."""
        return [cast(ProbedLayer, layer) for layer in self._layers]

    def __len__(self) -> int:
        return len(self._layers)

    def shape(self, images: tuple[int, int, int]) -> tuple[int, int, int]:
        """(D, h', w') of what the stack hands on of images (C, H, W) that it was made for."""
        return self.layers[-1].shape if len(self) and not self.anew else images

    @property
    def column(self) -> "FrozenStack":
        """The layers that make what the stack hands on of the images; their logits are those of the column alone."""
        begun = [i for i, layer in enumerate(self.layers) if layer.anew]
        return FrozenStack([] if self.anew else self.layers[max(begun, default=0) :])

    @property
    def lower(self) -> "FrozenStack":
        """The layers that make what the top layer is given of the images."""
        return self.below(len(self)).column

    def below(self, number: int) -> "FrozenStack":
        """The layers under layer `number`, from 1."""
        return FrozenStack(
            self.layers[: number - 1], self.layers[number - 1].anew if number <= len(self) else self.anew
        )

    def under(self, settings: Layer) -> "FrozenStack":
        """The stack as what a layer of such settings is put upon."""
        return FrozenStack(self.layers, settings.input == "images")

    def with_layer(self, layer: ProbedLayer) -> "FrozenStack":
        """The stack with one more layer on top, which is frozen by that."""
        return FrozenStack([*self.layers, layer])

    def train(self, mode: bool = True) -> "FrozenStack":
        """Stay in eval mode whatever is asked for: batch norm in train mode would drift."""
        return super().train(False)

    def depths(self, x: Tensor, logits: Tensor | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield output (B, D, h', w') and logits (B, classes) of each layer in turn."""
        images = x
        for layer in self.layers:
            with torch.no_grad():
                x, logits = layer(images if layer.anew else x, logits)
            yield x, logits

    def said(self, x: Tensor) -> Iterator[Tensor]:
        """Yield the logits (B, classes) at each depth; what no layer is given is not computed."""
        images, logits = x, None
        for layer, above in zip(self.layers, [*self.layers[1:], None], strict=True):
            given = images if layer.anew else x
            with torch.no_grad():
                if above is None or above.anew:
                    logits = layer.said(given, logits)
                else:
                    x, logits = layer(given, logits)
            yield logits

    @torch.no_grad()
    def outputs(self, x: Tensor) -> Iterator[Tensor]:
        """Yield what the probe of each layer reads in turn, (B, D, h', w'): what it has learned to see."""
        images = x
        for layer in self.layers:
            read, x = layer.layer.both(images if layer.anew else x)
            yield read

    def forward(self, x: Tensor, logits: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Map (B, C, H, W) to what the layer above is given and logits; an empty stack passes both on."""
        top = x, logits
        for top in self.depths(x, logits):  # noqa: B007
            pass
        return (x, top[1]) if self.anew else top
