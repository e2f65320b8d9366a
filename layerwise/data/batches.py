"""The one source of batches: of images or of stored views, in order or shuffled, pushed through frozen layers or not.

Shapes: n images, B batch, C channels, H W side.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass, field

import torch
from torch import Tensor, nn

from layerwise.config import Features
from layerwise.console import progress
from layerwise.data.images import Augmentation, Images, allocate, place_for, to_input
from layerwise.data.known import Known
from layerwise.data.splits import DataSet
from layerwise.errors import TrainingFailed
from layerwise.nn.stack import FrozenStack
from layerwise.seeds import fold_seed

EVALUATION_BATCH = 256
"""images a batch where nothing is trained"""
Batch = tuple[Tensor, Tensor | None, Tensor, Tensor | None]
"""input (B, C, H, W) float32, logits of the layers below (B, classes) or None under the first layer, labels (B,);
which atoms are near, (B, h, w, S), or None where that is not known"""


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


@dataclass(eq=False)
class Batches:
    """One pass over images or a view, the same at every pass."""

    source: Images | View
    """where it lies is where the batches are made"""
    size: int = EVALUATION_BATCH
    """images a batch"""
    device: torch.device | str = "cpu"
    """where the batches go"""
    layers: Sequence[nn.Module] = ()
    """frozen layers that the input is pushed through"""
    _: KW_ONLY
    shuffle: bool = False
    """in random order, without what does not fill the last batch, so that each step weighs the same"""
    augmentation: Augmentation | None = None
    """of images"""
    seed: int = 0
    """of order and augmentation; every epoch of every layer has its own"""
    pixels: Callable[[Tensor], Tensor] = to_input
    """how pixels become input"""
    known: Known | None = None
    """what is known of the inputs"""
    chosen: Tensor | None = None
    """the images that are passed over, (m,) int64; None for all"""

    def __len__(self) -> int:
        n = len(self.source if self.chosen is None else self.chosen)
        return n // self.size if self.shuffle else -(-n // self.size)

    def __iter__(self) -> Iterator[Batch]:
        generator = torch.Generator().manual_seed(self.seed)
        order = torch.arange(len(self.source)) if self.chosen is None else self.chosen
        if self.shuffle:
            order = order[torch.randperm(len(order), generator=generator)]
        for index in torch.split(order[: len(self) * self.size], self.size):
            logits, pixels, drawn = None, torch.empty(0), None
            if isinstance(self.source, View):
                part = self.source.subset(index)
                x, logits = part.features.to(self.device).float(), part.logits.to(self.device)
            else:
                pixels = self.source.pixels[index.to(self.source.pixels.device)]
                drawn = self.augmentation.draw(len(index), generator) if self.augmentation else None
                shown = self.augmentation(pixels, drawn) if self.augmentation and drawn else pixels
                x = self.pixels(shown.to(self.device))
            for layer in self.layers:
                with torch.no_grad():
                    x, logits = layer(x, logits)
            labels = self.source.labels[index.to(self.source.labels.device)].to(self.device)
            near = None if self.known is None else self.known(index, x, pixels, drawn)
            yield x, logits, labels, near


@dataclass
class ViewStore:
    """Features computed once: the images as they come out of the highest stack so far.

    Each image is stored in several augmented views. The views of one layer are made from those of the layer below, so
    that a layer costs the same at any depth; a process that starts in the middle makes them from the images, bit for
    bit the same. Training uses one view an epoch, in turn.
    """

    config: Features
    data: DataSet
    seed: int
    """of the run; the same views at every depth"""
    device: torch.device
    """what computes"""
    depth: int = field(default=0, init=False)
    train: list[View] = field(default_factory=list, init=False)
    val: list[View] = field(default_factory=list, init=False)

    def raise_to(self, stack: FrozenStack) -> None:
        """Make the views that the layer above `stack` is trained on; none for the first layer, or if views is 0."""
        if self.train and self.depth == len(stack):
            return
        count = self._affordable(stack) if len(stack) else 0
        if len(self.train) < count or not count:
            self.depth, self.train, self.val = 0, [], []
        if count:
            what = f"layer {len(stack) + 1}: features"
            self.train = list(self._pushed(stack, self.data.train, self.train, count, torch.float16, what))
            self.val = list(self._pushed(stack, self.data.val, self.val, 1, torch.float32, f"{what} for validation"))
            self.depth = len(stack)

    @property
    def bytes(self) -> int:
        """What the views take."""
        tensors = [tensor for view in (*self.train, *self.val) for tensor in (view.features, view.logits)]
        return sum(tensor.numel() * tensor.itemsize for tensor in tensors)

    def _affordable(self, stack: FrozenStack) -> int:
        """How many views there is room for, at most as many as are asked for."""
        wanted, limit = self.config.views, self.config.gigabytes
        if not self.data.augmentation.changes:
            wanted = min(wanted, 1)
        elements, logits = math.prod(stack.layers[-1].shape), 4 * len(self.data.classes)
        validation = len(self.data.val) * (4 * elements + logits)
        view = len(self.data.train) * (2 * elements + logits)
        count = max(0, min(wanted, int((limit * 1e9 - validation) // view)))
        if count < wanted:
            effect = f"storing {count}" if count else "computing them anew in every step, which is slower"
            needed = f"{(wanted * view + validation) / 1e9:.1f} GB, more than --features.gigabytes {limit}"
            print(f"layer {len(stack) + 1}: {wanted} views of the features take {needed}: {effect}", flush=True)
        return count

    def _pushed(
        self, stack: FrozenStack, images: Images, below: list[View], count: int, dtype: torch.dtype, what: str
    ) -> Iterator[View]:
        """Push each view through the layers that it has not seen yet; those in `below` are let go one by one."""
        shape = (len(images), *stack.layers[-1].shape)
        place = place_for(count * math.prod(shape) * dtype.itemsize, self.device)  # for all views
        steps = iter(progress(range(count * -(-len(images) // EVALUATION_BATCH)), what))
        for number in range(count):
            logits_shape = (len(images), len(self.data.classes))
            stored = allocate(shape, dtype, count, place), allocate(logits_shape, torch.float32, count, place)
            view = View(*stored, images.labels)
            augmentation = self.data.augmentation if dtype == torch.float16 and not below else None
            source = below.pop(0) if below else images
            seed, start = fold_seed(self.seed, number, 1), 0
            for x, logits, _, _ in Batches(source, device=self.device, augmentation=augmentation, seed=seed):
                next(steps, None)
                with torch.no_grad():
                    for i, layer in enumerate(stack.layers[self.depth :], self.depth + 1):
                        exact, logits = layer(x, logits)
                        x = exact.to(dtype).float()  # as it would have been stored
                        if not bool(x.isfinite().all()):
                            raise TrainingFailed(_not_finite(i, exact, dtype))
                view.features[start : start + len(x)] = x.to(dtype)
                assert logits is not None
                view.logits[start : start + len(x)] = logits
                start += len(x)
            yield view
        next(steps, None)


def _not_finite(layer: int, output: Tensor, dtype: torch.dtype) -> str:
    if bool(output.isfinite().all()):
        reach = f"reaches {float(output.abs().max()):.3g}, beyond {torch.finfo(dtype).max:g}, the highest {dtype}"
        return f"layer {layer}: its output {reach}, in which views are stored; give --features.views 0"
    return f"layer {layer}: its output is not finite; train it again with --restart_from {layer}"
