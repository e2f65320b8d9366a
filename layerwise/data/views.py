"""Features computed once: the images as they come out of a stack, which the layer above it is trained on.

Shapes: n images, B batch, C channels, H W side.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from layerwise import processes
from layerwise.config import Features
from layerwise.console import progress
from layerwise.data.batches import Batches, View, images_in_room
from layerwise.data.images import Images, allocate_for_all, place_for
from layerwise.data.known import Known
from layerwise.data.splits import DataSet
from layerwise.errors import TrainingFailed
from layerwise.nn.layer import ProbedLayer, most_numbers
from layerwise.nn.stack import FrozenStack
from layerwise.seeds import fold_seed

Pushed = Iterator[tuple[Tensor, Tensor, Tensor]]
"""input (B, C, H, W), logits of the layers below (B, classes), of no class under the first layer; which atoms are near
to the input, (B, h, w, S), or (B, 0) where that is not known"""


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
    mirrored: bool = False
    """an image and its mirror image are the same to what is trained on them"""
    depth: int = field(default=0, init=False)
    train: list[View] = field(default_factory=list, init=False)
    val: list[View] = field(default_factory=list, init=False)
    known: dict[str, Known] = field(default_factory=dict, init=False)
    """what the layer that was trained on these inputs has asked of them, as `LayerData` names it"""

    def __post_init__(self) -> None:
        self.images = self.data.train.placed(self.device)
        """those of `data` to train on, and"""
        self.val_images = self.data.val.placed(self.device)
        """to validate with, where the device has them at hand if it has room"""
        self.augmentation = replace(self.data.augmentation, flip=self.data.augmentation.flip and not self.mirrored)

    def raise_to(self, stack: FrozenStack) -> None:
        """Make the views that the layer above `stack` is trained on; none for the first layer, or if views is 0."""
        if self.train and self.depth == len(stack):
            return
        count = self._affordable(stack) if len(stack) else 0
        if len(self.train) < count or not count:
            self.depth, self.train, self.val = 0, [], []
        if len(stack) != self.depth + 1 or not self._fits(stack, count):
            self.known = {}
        self.known = {name: one for name, one in self.known.items() if one.bytes}
        if count:
            what = f"layer {len(stack) + 1}: features"
            names = [f"view {number}" if self.train else "images" for number in range(count)]
            self.train = list(self._pushed(stack, self.images, self.train, names, torch.float16, what))
            names, what = ["validation"], f"{what} for validation"
            self.val = list(self._pushed(stack, self.val_images, self.val, names, torch.float32, what))
            self.depth = len(stack)
            processes.agreed(lambda: None)  # what the others have computed is there now
        self.known = {}

    @property
    def bytes(self) -> int:
        """What the views take."""
        tensors = [tensor for view in (*self.train, *self.val) for tensor in (view.features, view.logits)]
        return sum(tensor.numel() * tensor.itemsize for tensor in tensors)

    @property
    def wanted(self) -> int:
        """How many views are asked for; where nothing is augmented, all would be the same."""
        return self.config.views if self.augmentation.changes else min(self.config.views, 1)

    def _affordable(self, stack: FrozenStack) -> int:
        """How many views there is room for, at most as many as are asked for."""
        wanted, limit = self.wanted, self.config.gigabytes
        view, validation = self._sizes(stack)
        count = max(0, min(wanted, int((limit * 1e9 - validation) // view)))
        if count < wanted:
            effect = f"storing {count}" if count else "computing them anew in every step, which is slower"
            needed = f"{(wanted * view + validation) / 1e9:.1f} GB, more than --features.gigabytes {limit}"
            print(f"layer {len(stack) + 1}: {wanted} views of the features take {needed}: {effect}", flush=True)
        return count

    def _sizes(self, stack: FrozenStack) -> tuple[int, int]:
        """Bytes of a view of the training images, and of the validation images."""
        elements, logits = math.prod(stack.layers[-1].shape), 4 * len(self.data.classes)
        return len(self.data.train) * (2 * elements + logits), len(self.data.val) * (4 * elements + logits)

    def _fits(self, stack: FrozenStack, count: int) -> bool:
        """Whether there is room for so many views beside what is known of those that they are made from."""
        view, validation = self._sizes(stack)
        return count * view + validation + sum(one.bytes for one in self.known.values()) <= self.config.gigabytes * 1e9

    def _pushed(
        self, stack: FrozenStack, images: Images, below: list[View], names: Sequence[str], dtype: torch.dtype, what: str
    ) -> Iterator[View]:
        """Push views through the layers that they have not seen yet; those in `below` are let go one by one.

        Of each, what is known has a name. Each process of a machine does so with its part of the images, in the batches
        that one alone would make.
        """
        count = len(names)
        shape = (len(images), *stack.layers[-1].shape)
        place = place_for(count * math.prod(shape) * dtype.itemsize, self.device)  # for all views
        given, layers = (below[0] if below else images).shape, stack.layers[self.depth :]
        together = images_in_room(most_numbers(layers[:1], given))
        mine = processes.machine_share(len(images), math.lcm(together, *_together(layers, given)))
        steps = iter(progress(range(count * -(-len(mine) // together)), what))
        for number, name in enumerate(names):
            logits_shape = (len(images), len(self.data.classes))
            features = allocate_for_all(shape, dtype, count, place)
            view = View(features, allocate_for_all(logits_shape, torch.float32, count, place), images.labels)
            augmentation = self.augmentation if dtype == torch.float16 and not below else None
            source = below.pop(0) if below else images
            seed, start, own = fold_seed(self.seed, number, 1), 0, given
            batches = Batches(
                *(source, together, self.device),
                augmentation=augmentation,
                seed=seed,
                known=self.known.get(name),
                chosen=mine,
            )
            parts: Pushed = (
                (x, _or_empty(logits, x), _or_empty(near, x))
                for (x, logits, _, near), _ in zip(batches, steps, strict=False)
            )
            for i, layer in enumerate(layers, self.depth + 1):
                parts, own = _through(parts, i, layer, own, dtype), layer.shape
            for x, logits, _ in parts:
                where = mine[start : start + len(x)].to(features.device)
                features[where], view.logits[where] = x.to(features.device, dtype), logits.to(features.device)
                start += len(x)
            yield view
        next(steps, None)


def _or_empty(known: Tensor | None, x: Tensor) -> Tensor:
    return x.new_empty(len(x), 0) if known is None else known


def _together(layers: Sequence[ProbedLayer], shape: tuple[int, int, int]) -> Iterator[int]:
    """How many images each of several layers, one upon another, takes at a time, from an input (C, H, W)."""
    for layer in layers:
        yield images_in_room(most_numbers([layer], shape))
        shape = layer.shape


def _through(parts: Pushed, number: int, layer: nn.Module, shape: tuple[int, int, int], dtype: torch.dtype) -> Pushed:
    """Push inputs (C, H, W) through layer `number`, whose outputs are rounded as they would be stored.

    Its batches do not depend on the parts that the inputs come in, as the size of a batch may decide on the last bit.
    """
    for x, below, near in _regrouped(parts, images_in_room(most_numbers([layer], shape))):
        known = (near,) if near.ndim > 2 else ()
        with torch.no_grad():
            exact, logits = layer(x, below if below.shape[1] else None, *known)
        rounded = exact.to(dtype).float()
        if not bool(rounded.isfinite().all()):
            raise TrainingFailed(_not_finite(number, exact, dtype))
        yield rounded, logits, x.new_empty(len(x), 0)


def _regrouped(parts: Pushed, size: int) -> Pushed:
    """The same inputs, and what belongs to them, `size` at a time."""
    waiting = torch.empty(0), torch.empty(0), torch.empty(0)
    for part in parts:
        x, logits, near = map(torch.cat, zip(waiting, part, strict=True)) if len(waiting[0]) else part
        while len(x) >= size:
            yield x[:size], logits[:size], near[:size]
            x, logits, near = x[size:], logits[size:], near[size:]
        waiting = x, logits, near
    if len(waiting[0]):
        yield waiting


def _not_finite(layer: int, output: Tensor, dtype: torch.dtype) -> str:
    if bool(output.isfinite().all()):
        reach = f"reaches {float(output.abs().max()):.3g}, beyond {torch.finfo(dtype).max:g}, the highest {dtype}"
        return f"layer {layer}: its output {reach}, in which views are stored; give --features.views 0"
    return f"layer {layer}: its output is not finite; train it again with --restart_from {layer}"
