"""Small data, and a model that is a matrix: for tests of how layers are trained, whatever they are."""

import torch
from torch import Tensor, nn

from layerwise.data.images import Augmentation, Images
from layerwise.data.splits import DataSet

CPU = torch.device("cpu")
AS_THEY_ARE = Augmentation(flip=False, crop=0)


def numbered(count: int, seed: int, labels: Tensor | None = None, shape: tuple[int, int, int] = (1, 6, 6)) -> Images:
    """Random images; their labels are their numbers if none are given."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (count, *shape), generator=generator, dtype=torch.uint8)
    return Images(pixels, torch.arange(count) if labels is None else labels)


def world(count: int, augmentation: Augmentation = AS_THEY_ARE, classes: int | None = None) -> DataSet:
    """So many numbered images for training, half as many for validation and the test; or of a few classes in turn."""
    names = [str(number) for number in range(classes or count)]
    train, val, test = (
        numbered(n, seed, torch.arange(n) % len(names)) for seed, n in enumerate((count, count // 2, count // 2))
    )
    return DataSet(names, train, val, test, augmentation)


class Matrix(nn.Module):
    """Logits that are a matrix times the input, flattened: what `ProbedLayer` is to those who train it."""

    def __init__(self, inputs: int, classes: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.weight = nn.Parameter(torch.randn(inputs, classes, generator=generator))

    def said(self, x: Tensor, below: Tensor | None = None, near: Tensor | None = None) -> Tensor:
        """Map (B, C, H, W) to logits (B, classes)."""
        return x.flatten(1) @ self.weight
