"""A layer, its probe, and the frozen stack of them (paper, section 3).

Shapes: B batch, C channels in, H W image side, P patch numbers, N atoms, D channels out, h' w' output side.
"""

from collections.abc import Callable, Iterable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from layerwise.config.layer import LayerConfig
from layerwise.nn.dictionary import PatchDictionary
from layerwise.nn.embedding import EMBEDDINGS

NORMS: dict[str, Callable[[int], nn.Module]] = {
    "batch": nn.BatchNorm2d,
    "damped": lambda atoms: nn.BatchNorm2d(atoms, eps=0.01),
    "none": lambda atoms: nn.Identity(),
}
MIXES: dict[str, Callable[[int, int], nn.Module]] = {
    "linear": lambda atoms, channels: nn.Conv2d(atoms, channels, 1),
    "none": lambda atoms, channels: nn.Identity(),
}


def alone(out: Tensor, x: Tensor) -> Tensor:
    """The layer's own output."""
    return out


def added(out: Tensor, x: Tensor) -> Tensor:
    """The sum of output and input, the input averaged to the output's size."""
    return out + F.adaptive_avg_pool2d(x, (out.shape[-2], out.shape[-1]))


def concatenated(out: Tensor, x: Tensor) -> Tensor:
    """Output and input side by side, the input averaged to the output's size."""
    return torch.cat([out, F.adaptive_avg_pool2d(x, (out.shape[-2], out.shape[-1]))], 1)


RESIDUALS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"none": alone, "add": added, "concatenate": concatenated}


class PatchLayer(nn.Module):
    """Embedding, average over windows, norm, 1×1 convolution; what comes in may be added or put beside.

    Args:
        dictionary: the layer's fixed part.
        config: the layer's settings.
    """

    def __init__(self, dictionary: PatchDictionary, config: LayerConfig) -> None:
        super().__init__()
        self.embedding = EMBEDDINGS[config.embedding](dictionary, config)
        self.norm = NORMS[config.norm](self.embedding.channels)
        self.mix = MIXES[config.mix](self.embedding.channels, config.channels)
        self.further = nn.Sequential(*(_convolution(config) for _ in range(config.convolutions - 1)))
        self.residual = RESIDUALS[config.residual]

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) float32 to (B, D, h', w'). No gradient flows to x."""
        with torch.autocast(x.device.type, enabled=False):  # half precision would change which atoms are near
            embedded = self.embedding(x.float())
        return self.residual(self.further(self.mix(self.norm(embedded))), x)


def _convolution(config: LayerConfig) -> nn.Module:
    """One more convolution of a CNN that is trained end to end."""
    channels = config.channels if config.mix == "linear" else config.atoms
    return nn.Sequential(
        nn.Conv2d(channels, config.atoms, 3), nn.ReLU(), MIXES[config.mix](config.atoms, config.channels)
    )


def _zero(weight: Tensor, bias: Tensor, inputs: int) -> None:
    nn.init.zeros_(weight)
    nn.init.zeros_(bias)


def _random(weight: Tensor, bias: Tensor, inputs: int) -> None:
    nn.init.uniform_(weight, -(inputs**-0.5), inputs**-0.5)
    nn.init.uniform_(bias, -(inputs**-0.5), inputs**-0.5)


STARTS: dict[str, Callable[[Tensor, Tensor, int], None]] = {"zero": _zero, "random": _random}


class Probe(nn.Module):
    """The linear classifier on a layer's flattened output.

    Args:
        shape: (D, h', w') of the layer's output.
        classes: number of classes.
        config: the layer's settings.
    """

    def __init__(self, shape: tuple[int, int, int], classes: int, config: LayerConfig) -> None:
        super().__init__()
        d, h, w = shape
        self.pool = pool = config.probe_pool
        self.linear = nn.Linear(d * -(-h // pool) * -(-w // pool), classes)
        STARTS[config.probe_start](self.linear.weight, self.linear.bias, self.linear.in_features)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, D, h', w') to logits (B, classes)."""
        logits: Tensor = self.linear(F.avg_pool2d(x, self.pool, ceil_mode=True).flatten(1))
        return logits


class UnconstrainedProbe(nn.Module):
    """The linear classifier on Phi_full, a map for each position, atom and class (paper, Table 2).

    Of the N·P numbers of Phi_full at a position k·P are not 0; they are never written down.

    Args:
        shape: (N+P, h, w) of the layer's output, gates and patches.
        classes: number of classes.
        config: the layer's settings.
    """

    def __init__(self, shape: tuple[int, int, int], classes: int, config: LayerConfig) -> None:
        super().__init__()
        self.atoms = config.atoms
        numbers = shape[0] - config.atoms
        self.weight = nn.Parameter(torch.zeros(shape[1] * shape[2], numbers, config.atoms * classes))
        self.bias = nn.Parameter(torch.zeros(classes))
        STARTS[config.probe_start](self.weight, self.bias, self.weight.shape[0] * numbers * config.atoms)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, N+P, h, w) to logits (B, classes)."""
        gates, patches = torch.split(x.flatten(2).permute(2, 0, 1), [self.atoms, self.weight.shape[1]], 2)
        logits = self.bias.expand(len(x), -1)
        step = max(1, ANSWERS // (len(x) * self.weight.shape[2]))  # positions at a time
        parts = (torch.split(values, step) for values in (gates, patches, self.weight))
        for gate, patch, weight in zip(*parts, strict=True):
            answers = torch.bmm(patch, weight).reshape(*gate.shape, -1)
            logits = logits + torch.einsum("pbn,pbnc->bc", gate, answers)
        return logits


ANSWERS = 1 << 22  # numbers (positions, B, N, classes) at a time: 16 MiB
PROBES: dict[str, type[Probe | UnconstrainedProbe]] = {"unconstrained": UnconstrainedProbe}


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
        self.shape = config.output_shape(*shape)
        self.summed = config.logits == "summed"
        self.layer = PatchLayer(dictionary, config)
        self.probe = PROBES.get(config.embedding, Probe)(self.shape, classes, config)

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
