"""How well a stack classifies, at every depth.

Shapes: n images, L depths from 1 to that of the stack, r classes, the likeliest few.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torchmetrics.functional.classification import multiclass_calibration_error

from layerwise.console import progress
from layerwise.data.batches import Batches
from layerwise.data.images import Images
from layerwise.nn.layer import ProbedLayer
from layerwise.nn.stack import FrozenStack

RANKS = 5
"""classes that are kept of an image, the likeliest first, unless more are asked for"""
BINS = 15
"""of confidence, for the calibration error (Guo et al., 2017)"""


@dataclass(frozen=True)
class Evaluation:
    """What a stack says of images; on the CPU. A depth is counted from 1, -1 stands for the whole stack."""

    labels: Tensor
    """(n,) int64: the true classes"""
    ranked: Tensor
    """(L, n, r) int64: the likeliest classes, from the likeliest"""
    shares: Tensor
    """(L, n, r) float32: their probabilities"""
    classes: int
    """how many there are"""

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def accuracies(self) -> list[float]:
        """The share of images classified correctly, in [0, 1], at each depth."""
        return self.top(1)

    def top(self, k: int) -> list[float]:
        """The share of images whose true class is among the k ≤ r likeliest, at each depth."""
        found = (self.ranked[:, :, :k] == self.labels[:, None]).any(2)
        return [float(count) / max(1, len(self)) for count in found.sum(1)]

    @property
    def standard_errors(self) -> list[float]:
        """Of the accuracies p on n images: sqrt(p (1 - p) / n)."""
        return [(share * (1 - share) / max(1, len(self))) ** 0.5 for share in self.accuracies]

    def calibration_error(self, depth: int = -1) -> float:
        """The mean distance, in [0, 1], of confidence from accuracy, in bins of confidence weighted by their images."""
        shares, wrong = self.shares[self._row(depth)], self.ranked[self._row(depth), :, 0] != self.labels
        return float(multiclass_calibration_error(shares, wrong.long(), shares.shape[1], BINS))

    def confusion(self, depth: int = -1) -> Tensor:
        """Counts of (true class, predicted class), (classes, classes) int64."""
        pairs = self.labels * self.classes + self.ranked[self._row(depth), :, 0]
        return torch.bincount(pairs, minlength=self.classes**2).reshape(self.classes, self.classes)

    def by_class(self, depth: int = -1) -> list[float | None]:
        """The share of each class's images classified correctly; None for a class without one."""
        counts = self.confusion(depth)
        pairs = zip(counts.diag().tolist(), counts.sum(1).tolist(), strict=True)
        return [right / total if total else None for right, total in pairs]

    def confusions(self, depth: int = -1) -> list[tuple[int, int, int]]:
        """(true class, predicted class, images) of every mistake that is made, the most frequent first."""
        wrong = self.confusion(depth).fill_diagonal_(0)
        pairs = [(i, j, int(wrong[i, j])) for i, j in wrong.nonzero().tolist()]
        return sorted(pairs, key=lambda pair: -pair[2])

    def _row(self, depth: int) -> int:
        return depth if depth < 0 else depth - 1


def evaluate(stack: FrozenStack, images: Images, device: torch.device, ranks: int = RANKS) -> Evaluation:
    """Classify images at depth 1, 2, … of a stack of one layer or more, on its device.

    At most `ranks` classes are kept of each.
    """
    said = _Said(images, ranks)
    for x in _inputs(stack, images, device):
        said.add(_logits(stack, x))
    return said.evaluation


def evaluate_mirrored(
    stack: FrozenStack, images: Images, device: torch.device, ranks: int = RANKS
) -> tuple[Evaluation, Evaluation]:
    """As `evaluate`, and with the logits of each image's mirror image added to its own."""
    alone, both = _Said(images, ranks), _Said(images, ranks)
    for x in _inputs(stack, images, device):
        logits = _logits(stack, x)
        alone.add(logits)
        both.add(logits + _logits(stack, x.flip(3)))
    return alone.evaluation, both.evaluation


def evaluate_alone(stack: FrozenStack, images: Images, device: torch.device) -> tuple[Evaluation, Evaluation]:
    """As `evaluate`, and with each layer's own logits in place of those of the stack up to it."""
    whole, alone = _Said(images, RANKS), _Said(images, RANKS)
    for x in _inputs(stack, images, device):
        logits = _logits(stack, x)
        whole.add(logits)
        parts = zip(stack.layers, logits, [None, *logits[:-1]], strict=True)
        alone.add(torch.stack([layer.alone(said, below) for layer, said, below in parts]))
    return whole.evaluation, alone.evaluation


def _inputs(stack: FrozenStack, images: Images, device: torch.device) -> Iterator[Tensor]:
    batches = Batches(images, device=device, above=stack.layers)
    yield from (x for x, _, _, _ in progress(batches, "testing", len(batches)))


def _logits(stack: FrozenStack, x: Tensor) -> Tensor:
    """Those of each depth, (L, B, classes)."""
    return torch.stack(list(stack.said(x)))


class _Said:
    """What is kept of the logits of images, which come a few at a time, in order."""

    def __init__(self, images: Images, ranks: int) -> None:
        self.labels, self.ranks, self.seen = images.labels.cpu(), ranks, 0

    def add(self, logits: Tensor) -> None:
        """Keep what the next images' logits, (L, B, classes), say."""
        depths, count, self.classes = logits.shape
        order = logits.topk(min(self.ranks, self.classes)).indices
        if not self.seen:
            shape = depths, len(self.labels), order.shape[2]
            self.ranked, self.shares = torch.empty(shape, dtype=torch.long), torch.empty(shape)
        part = slice(self.seen, self.seen + count)
        self.ranked[:, part], self.shares[:, part] = order.cpu(), logits.float().softmax(2).gather(2, order).cpu()
        self.seen += count

    @property
    def evaluation(self) -> Evaluation:
        """Once all have come."""
        return Evaluation(self.labels, self.ranked, self.shares, self.classes)


@torch.no_grad()
def statistics(
    below: FrozenStack, layer: ProbedLayer, images: Images, chosen: Tensor, device: torch.device
) -> list[list[float]]:
    """Mean and deviation, 1 where that is 0, of each channel that a layer's probe reads, over all positions.

    Of the images at `chosen`, (m,) int64.
    """
    count, total, squares = 0, torch.zeros(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    for x, _, _, _ in Batches(images, device=device, stack=below, above=[layer], chosen=chosen):
        flat = layer.layer(x).transpose(0, 1).flatten(1).double()
        count, total, squares = count + flat.shape[1], total + flat.sum(1).cpu(), squares + flat.square().sum(1).cpu()
    mean = total / count
    deviation = (squares / count - mean.square()).clamp_min(0).sqrt()
    return [mean.tolist(), torch.where(deviation > 1e-6 * mean.abs() + 1e-9, deviation, 1.0).tolist()]
