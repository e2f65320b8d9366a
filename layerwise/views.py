"""What a layer is trained on, computed once: the images as they come out of the frozen layers below.

Each image is stored in several augmented views. The views of one layer are made from those of the layer below, so that
a layer costs the same at any depth; a process that starts in the middle makes them from the images, bit for bit the
same. Training uses one view an epoch, in turn.

Shapes: n images, B batch, C channels, H W image side.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from layerwise.batches import EVALUATION_BATCH, Augmentation, Images, allocate, fold_seed, to_input
from layerwise.config import FeaturesConfig
from layerwise.data import DataSet
from layerwise.layer import FrozenStack
from layerwise.progress import progress

Batch = tuple[Tensor, Tensor, Tensor]
"""features (B, C, H, W) float32, logits of the layers below (B, classes), labels (B,)"""


@dataclass(frozen=True)
class View:
    """One view of every image."""

    features: Tensor
    """(n, C, H, W), float16 for training and float32 for validation"""
    logits: Tensor
    """(n, classes) float32"""
    labels: Tensor
    """(n,)"""

    def subset(self, index: Tensor) -> "View":
        """The images at `index`, (m,) int64."""
        return View(*(values[index.to(values.device)] for values in (self.features, self.logits, self.labels)))


class ViewBatches:
    """One pass over a view.

    Args:
        view: what is stored.
        size: images a batch.
        device: where the batches go.
        seed: of the shuffle, which drops what does not fill the last batch; without it, all images in order.
    """

    def __init__(self, view: View, size: int, device: torch.device, seed: int | None = None) -> None:
        self.view = view
        self.size = size
        self.device = device
        self.seed = seed

    def __len__(self) -> int:
        n = len(self.view.labels)
        return -(-n // self.size) if self.seed is None else n // self.size

    def __iter__(self) -> Iterator[Batch]:
        n = len(self.view.labels)
        order = torch.arange(n)
        if self.seed is not None:
            order = torch.randperm(n, generator=torch.Generator().manual_seed(self.seed))
        for index in torch.split(order[: len(self) * self.size], self.size):
            features, logits, labels = (
                values[index.to(values.device)].to(self.device)
                for values in (self.view.features, self.view.logits, self.view.labels)
            )
            yield features.float(), logits, labels


@dataclass
class ViewStore:
    """The views of the highest stack so far.

    Args:
        config: how many views, and how much room.
        data: the images.
        seed: of the run; the same views at every depth.
        device: what computes.
    """

    config: FeaturesConfig
    data: DataSet
    seed: int
    device: torch.device
    depth: int = 0
    train: list[View] = field(default_factory=list)
    val: list[View] = field(default_factory=list)

    def raise_to(self, stack: FrozenStack) -> None:
        """Make the views that the layer above `stack` is trained on; none for the first, none where none are wanted."""
        if self.train and self.depth == len(stack.layers):
            return
        number = len(stack.layers) + 1
        count = self._affordable(stack) if stack.layers else 0
        if len(self.train) < count or not count:
            self.depth, self.train, self.val = 0, [], []
        if count:
            what = f"layer {number}: features"
            self.train = list(self._pushed(stack, self.data.train, self.train, count, torch.float16, what))
            self.val = list(self._pushed(stack, self.data.val, self.val, 1, torch.float32, f"{what} for validation"))
            self.depth = len(stack.layers)

    def _affordable(self, stack: FrozenStack) -> int:
        """How many views there is room for, at most as many as are asked for."""
        wanted = self.config.views
        if not self.data.augmentation.changes:
            wanted = min(wanted, 1)
        numbers, limit = math.prod(stack.layers[-1].shape), self.config.gigabytes * 1e9
        validation = len(self.data.val) * (4 * numbers + 4 * stack.classes)
        view = len(self.data.train) * (2 * numbers + 4 * stack.classes)
        count = max(0, min(wanted, int((limit - validation) // view)))
        if count < wanted:
            effect = f"storing {count}" if count else "computing them anew in every step, which is slower"
            print(
                f"layer {len(stack.layers) + 1}: {wanted} views of the features take "
                f"{(wanted * view + validation) / 1e9:.1f} GB, more than --features.gigabytes {self.config.gigabytes}: "
                + effect,
                flush=True,
            )
        return count

    def _pushed(
        self, stack: FrozenStack, images: Images, below: list[View], count: int, dtype: torch.dtype, what: str
    ) -> Iterator[View]:
        """Push each view through the layers that it has not seen yet; those in `below` are let go one by one."""
        shape = (len(images), *stack.layers[-1].shape)
        steps = iter(progress(range(count * -(-len(images) // EVALUATION_BATCH)), what))
        layers = stack.layers[self.depth :]
        for number in range(count):
            view = View(
                self._allocate(shape, dtype, count),
                self._allocate((len(images), stack.classes), torch.float32, count),
                images.labels,
            )
            if below:
                source: ViewBatches | _ImageBatches = ViewBatches(below.pop(0), EVALUATION_BATCH, self.device)
            else:
                augmentation = self.data.augmentation if dtype == torch.float16 else None
                seed = fold_seed(self.seed, number, 1)
                source = _ImageBatches(images, stack.classes, augmentation, seed, self.device)
            start = 0
            for x, logits, _ in source:
                next(steps, None)
                with torch.no_grad():
                    for layer in layers:
                        x, logits = layer(x, logits)
                        x = x.to(dtype).float()  # as it would have been stored
                view.features[start : start + len(x)] = x.to(dtype)
                view.logits[start : start + len(x)] = logits
                start += len(x)
            yield view
        next(steps, None)

    def _allocate(self, shape: tuple[int, ...], dtype: torch.dtype, count: int) -> Tensor:
        """Room for one of `count` views: on the GPU if all fit into half of what is free there."""
        size = math.prod(shape) * dtype.itemsize
        if self.device.type == "cuda" and count * size < torch.cuda.mem_get_info(self.device)[0] // 2:
            return torch.empty(shape, dtype=dtype, device=self.device)
        return allocate(shape, dtype, count)


class _ImageBatches:
    """Augmented images in their order, as the input of the first layer."""

    def __init__(
        self, images: Images, classes: int, augmentation: Augmentation | None, seed: int, device: torch.device
    ) -> None:
        self.images = images
        self.classes = classes
        self.augmentation = augmentation
        self.generator = torch.Generator().manual_seed(seed)
        self.device = device

    def __iter__(self) -> Iterator[Batch]:
        for start in range(0, len(self.images), EVALUATION_BATCH):
            pixels = self.images.pixels[start : start + EVALUATION_BATCH]
            if self.augmentation is not None:
                pixels = self.augmentation(pixels, self.generator)
            x = to_input(pixels.to(self.device))
            yield x, x.new_zeros(len(x), self.classes), self.images.labels[start : start + EVALUATION_BATCH]
