"""A layer, its probe, and the frozen stack of them (paper, section 3).

Shapes: B batch, C channels in, H W image side, P patch numbers, N atoms, D channels out, h' w' output side.
"""

from collections.abc import Iterable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from layerwise import ops
from layerwise.config import LayerConfig
from layerwise.dictionary import PatchDictionary


class FullEmbedding(nn.Module):
    """a_j = g_j * (u_j . z + b_j): the linear model on Phi_full with one linear map per atom, shared over positions.

    The maps act on whitened patches, so that one learning rate and one decay suit every direction.
    """

    def __init__(self, dictionary: PatchDictionary, config: LayerConfig) -> None:
        super().__init__()
        atoms, numbers = dictionary.atoms.shape
        self.dictionary = dictionary
        self.size, self.k, self.pool = config.patch_size, config.k, config.pool
        self.weight = nn.Parameter(torch.randn(numbers, atoms) / numbers**0.5)
        self.bias = nn.Parameter(torch.zeros(atoms))

    def forward(self, x: Tensor) -> Tensor:
        """Embed (B, C, H, W) to (B, N, h', w')."""
        maps = self.dictionary.unwhiten(self.weight, self.bias)
        return ops.embed_full(x, self.dictionary.scorer, maps, self.size, self.k, self.pool)


class HardEmbedding(nn.Module):
    """a_j = g_j: which atoms are near, Phi_hard."""

    def __init__(self, dictionary: PatchDictionary, config: LayerConfig) -> None:
        super().__init__()
        self.dictionary = dictionary
        self.size, self.k, self.pool = config.patch_size, config.k, config.pool

    def forward(self, x: Tensor) -> Tensor:
        """Embed (B, C, H, W) to (B, N, h', w')."""
        return ops.embed_hard(x, self.dictionary.scorer, self.size, self.k, self.pool)


Embedding = FullEmbedding | HardEmbedding
EMBEDDINGS: dict[str, type[Embedding]] = {"full": FullEmbedding, "hard": HardEmbedding}


class PatchLayer(nn.Module):
    """Embedding, average over windows, batch norm, 1×1 convolution.

    Args:
        dictionary: the layer's fixed part.
        config: the layer's settings.
    """

    def __init__(self, dictionary: PatchDictionary, config: LayerConfig) -> None:
        super().__init__()
        atoms = len(dictionary.atoms)
        self.embedding: Embedding = EMBEDDINGS[config.embedding](dictionary, config)
        self.norm = nn.BatchNorm2d(atoms)
        self.mix = nn.Conv2d(atoms, config.channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) float32 to (B, D, h', w'). No gradient flows to x."""
        with torch.autocast(x.device.type, enabled=False):  # half precision would change which atoms are near
            embedded = self.embedding(x.float())
        out: Tensor = self.mix(self.norm(embedded))
        return out


class Probe(nn.Module):
    """The linear classifier on a layer's flattened output. It starts at zero, which favours no class.

    Args:
        shape: (D, h', w') of the layer's output.
        classes: number of classes.
        pool: side of the windows over which the output is averaged first.
    """

    def __init__(self, shape: tuple[int, int, int], classes: int, pool: int) -> None:
        super().__init__()
        d, h, w = shape
        self.pool = pool
        self.linear = nn.Linear(d * -(-h // pool) * -(-w // pool), classes)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, D, h', w') to logits (B, classes)."""
        logits: Tensor = self.linear(F.avg_pool2d(x, self.pool, ceil_mode=True).flatten(1))
        return logits


class ProbedLayer(nn.Module):
    """A layer and its probe, which corrects the logits of the layers below: what is trained at once.

    Args:
        dictionary: the layer's fixed part.
        config: the layer's settings.
        shape: (C, H, W) of the layer's input.
        classes: number of classes.
    """

    def __init__(
        self, dictionary: PatchDictionary, config: LayerConfig, shape: tuple[int, int, int], classes: int
    ) -> None:
        super().__init__()
        self.shape = (config.channels, config.output_side(shape[1]), config.output_side(shape[2]))
        self.summed = config.logits == "summed"
        self.layer = PatchLayer(dictionary, config)
        self.probe = Probe(self.shape, classes, config.probe_pool)

    def forward(self, x: Tensor, below: Tensor) -> tuple[Tensor, Tensor]:
        """Map an input (B, C, H, W) and the logits below (B, classes) to output (B, D, h', w') and logits."""
        out = self.layer(x)
        logits: Tensor = self.probe(out)
        return out, logits + below if self.summed else logits


class FrozenStack(nn.Module):
    """Trained layers that never change again: always in eval mode, without gradients.

    Args:
        layers: from the lowest; may be empty.
        classes: number of classes.
    """

    def __init__(self, layers: Iterable[ProbedLayer], classes: int) -> None:
        super().__init__()
        self._layers = nn.ModuleList(layers)
        self.classes = classes
        self.requires_grad_(False)
        self.eval()

    @property
    def layers(self) -> list[ProbedLayer]:
        """The layers, from the lowest."""
        return [cast(ProbedLayer, layer) for layer in self._layers]

    def train(self, mode: bool = True) -> "FrozenStack":
        """Stay in eval mode whatever is asked for: batch norm in train mode would drift."""
        return super().train(False)

    def depths(self, x: Tensor) -> Iterable[tuple[Tensor, Tensor]]:
        """Yield output (B, D, h', w') and logits (B, classes) of each layer in turn."""
        logits = x.new_zeros(x.shape[0], self.classes)
        with torch.no_grad():
            for layer in self.layers:
                x, logits = layer(x, logits)
                yield x, logits

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map (B, C, H, W) to the top layer's output and logits; an empty stack passes x on, with logits of zero."""
        top = x, x.new_zeros(x.shape[0], self.classes)
        for top in self.depths(x):  # noqa: B007
            pass
        return top
