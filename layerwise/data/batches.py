"""The one source of batches: of images or of stored views, in order or shuffled, pushed through frozen layers or not.

Shapes: n images, B batch, C channels, H W side.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from layerwise.data.augmentation import Augmentation
from layerwise.data.images import Images, to_input

EVALUATION_BATCH = 256
"""images a batch where nothing is trained"""
Batch = tuple[Tensor, Tensor | None, Tensor]
"""input (B, C, H, W) float32, logits of the layers below (B, classes) or None under the first layer, labels (B,)"""


@dataclass(frozen=True)
class View:
    """Every image as it comes out of a stack, in one view of it."""

    features: Tensor
    """(n, C, H, W), float16 for training and float32 for validation"""
    logits: Tensor
    """(n, classes) float32"""
    labels: Tensor
    """(n,)"""

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, index: Tensor) -> "View":
        """The images at `index`, (m,) int64."""
        return View(*(values[index.to(values.device)] for values in (self.features, self.logits, self.labels)))


class Batches:
    """One pass over images or a view, the same at every pass.

    Args:
        source: where it lies is where the batches are made.
        size: images a batch.
        device: where the batches go.
        layers: frozen layers that the input is pushed through.
        shuffle: in random order, without what does not fill the last batch, so that each step weighs the same.
        augmentation: of images.
        seed: of order and augmentation; every epoch of every layer has its own.
        pixels: how pixels become input.
    """

    def __init__(
        self,
        source: Images | View,
        size: int = EVALUATION_BATCH,
        device: torch.device | str = "cpu",
        layers: Sequence[nn.Module] = (),
        *,
        shuffle: bool = False,
        augmentation: Augmentation | None = None,
        seed: int = 0,
        pixels: Callable[[Tensor], Tensor] = to_input,
    ) -> None:
        self.source = source
        self.size = size
        self.device = torch.device(device)
        self.layers = layers
        self.shuffle = shuffle
        self.augmentation = augmentation
        self.seed = seed
        self.pixels = pixels

    def __len__(self) -> int:
        n = len(self.source)
        return n // self.size if self.shuffle else -(-n // self.size)

    def __iter__(self) -> Iterator[Batch]:
        n, generator = len(self.source), torch.Generator().manual_seed(self.seed)
        order = torch.randperm(n, generator=generator) if self.shuffle else torch.arange(n)
        for index in torch.split(order[: len(self) * self.size], self.size):
            x, logits = self._take(index, generator)
            for layer in self.layers:
                with torch.no_grad():
                    x, logits = layer(x, logits)
            labels = self.source.labels
            yield x, logits, labels[index.to(labels.device)].to(self.device)

    def _take(self, index: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor | None]:
        """Input and logits of the images at `index`."""
        if isinstance(self.source, View):
            features, logits = self.source.features, self.source.logits
            x = features[index.to(features.device)].to(self.device).float()
            return x, logits[index.to(logits.device)].to(self.device)
        pixels = self.source.pixels[index.to(self.source.pixels.device)]
        if self.augmentation:
            pixels = self.augmentation(pixels, generator)
        return self.pixels(pixels.to(self.device)), None
