"""How well a stack classifies."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from layerwise.console import progress
from layerwise.data.batches import Batches
from layerwise.data.images import Images
from layerwise.nn.stack import FrozenStack


def accuracies(
    stack: FrozenStack, images: Images, device: torch.device, what: str = "testing", mirrored: bool = False
) -> list[float]:
    """The share of images classified correctly at depth 1, 2, … of a stack of one layer or more, on its device.

    Where `mirrored`, the logits of the mirrored image are added to those of the image.
    """
    right = torch.zeros(len(stack), dtype=torch.long)
    batches = Batches(images, device=device)
    for x, _, labels in progress(batches, what, len(batches)):
        logits = torch.stack([logits for _, logits in stack.depths(x)])
        if mirrored:
            logits = logits + torch.stack([logits for _, logits in stack.depths(x.flip(3))])
        right += (logits.argmax(2) == labels).sum(1).cpu()
    return [float(count) / len(images) for count in right]


def statistics(layers: Sequence[nn.Module], images: Images, device: torch.device) -> list[list[float]]:
    """Mean and deviation, 1 where that is 0, of each channel of the top layer's output, over images and positions."""
    count, total, squares = 0, torch.zeros(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    for x, _, _ in Batches(images, device=device, layers=layers):
        flat = x.transpose(0, 1).flatten(1).double()
        count, total, squares = count + flat.shape[1], total + flat.sum(1).cpu(), squares + flat.square().sum(1).cpu()
    mean = total / count
    deviation = (squares / count - mean.square()).clamp_min(0).sqrt()
    return [mean.tolist(), torch.where(deviation > 1e-6 * mean.abs() + 1e-9, deviation, 1.0).tolist()]


def confusion(layers: Sequence[nn.Module], images: Images, classes: int, device: torch.device) -> Tensor:
    """Counts of (true class, predicted class) over images, (classes, classes) int64 on the CPU, by the top layer."""
    counts = torch.zeros(classes, classes, dtype=torch.long)
    batches = Batches(images, device=device, layers=layers)
    for _, logits, labels in progress(batches, "testing", len(batches)):
        assert logits is not None
        pairs = (labels * classes + logits.argmax(1)).cpu()
        counts += torch.bincount(pairs, minlength=classes**2).reshape(classes, classes)
    return counts
