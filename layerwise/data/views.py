"""Features computed once: the images as they come out of a stack, which the layer above it is trained on.

Shapes: n images, B batch, C channels, H W side.
"""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from layerwise import processes
from layerwise.config import Features
from layerwise.console import progress
from layerwise.data.batches import Batches, View
from layerwise.data.crops import Origin
from layerwise.data.images import Images, allocate_for_all, place_for
from layerwise.data.known import Known
from layerwise.data.plans import TRIED, Plans, shape_of
from layerwise.data.pushing import Pushed, chains, through, together
from layerwise.data.splits import DataSet
from layerwise.nn.layer import ProbedLayer
from layerwise.nn.stack import FrozenStack
from layerwise.seeds import fold_seed


class _NoRoom(Exception):
    """Neither a disk nor a quarter of the memory has room for a view; why, in words."""


@dataclass
class ViewStore:
    """Features computed once: the images as they come out of the highest stack so far.

    Each image is stored in several augmented views, or where it can be, in views from which many crops can be cut. The
    views of one layer are made from those of the layer below, so that a layer costs the same at any depth; a process
    that starts in the middle makes them from the images, bit for bit the same. Training uses one view an epoch, in
    turn, and of each image a crop that is drawn.
    """

    config: Features
    data: DataSet
    seed: int
    """of the run; the same views at every depth"""
    device: torch.device
    """what computes"""
    mirrored: bool = False
    """an image and its mirror image are the same to what is trained on them"""
    plan: Sequence[Sequence[Origin]] = field(default=(), init=False)
    """where the views come from, layer by layer"""
    train: list[View] = field(default_factory=list, init=False)
    val: list[View] = field(default_factory=list, init=False)
    said: Tensor | None = field(default=None, init=False)
    """what the columns before say of validation images, (n, classes); with"""
    joined: int = field(default=0, init=False)
    """layers"""
    known: dict[str, Known] = field(default_factory=dict, init=False)
    """what the layer that was trained on these inputs has asked of them, as `LayerData` names it"""

    def __post_init__(self) -> None:
        self.images = self.data.train.placed(self.device)
        """those of `data` to train on, and"""
        self.val_images = self.data.val.placed(self.device)
        """to validate with, where the device has them at hand if it has room"""
        self.augmentation = replace(self.data.augmentation, flip=self.data.augmentation.flip and not self.mirrored)
        counts = len(self.images), len(self.val_images), len(self.data.classes)
        self.plans = Plans(self.config, self.augmentation, self.images.pixels[:TRIED], *counts, self.device)
        """which views are to be made"""

    def raise_to(self, stack: FrozenStack) -> None:
        """Make the views that the layer above `stack` is trained on; none of images themselves, or if views is 0."""
        self._join(stack)
        height = len(stack.column)
        if self.train and self.depth == height:
            return
        plan = self.plans.of(stack) if height else []
        if not plan or not self._leads_to(plan):
            self._let_go()
        remembered = sum(one.bytes for one in self.known.values())
        if height != self.depth + 1 or not self.plans.fit(stack, plan[-1] if plan else [], remembered):
            self.known = {}
        self.known = {name: one for name, one in self.known.items() if one.bytes}
        if plan:
            try:
                self._make(stack, plan)
            except _NoRoom as error:
                self._let_go()
                views = f"layer {len(stack) + 1}: there is no room for {len(plan[-1])} views of the features ({error})"
                print(f"{views}: computing them anew in every step, which is slower", flush=True)
        self.known = {}

    def _let_go(self) -> None:
        self.plan, self.train, self.val = (), [], []

    def _join(self, stack: FrozenStack) -> None:
        """Know what the finished columns of a stack say of validation images; the views are of the next one."""
        finished = FrozenStack(stack.layers[: len(stack) - len(stack.column)])
        if len(finished) == self.joined:
            return
        self._let_go()
        self.said, self.joined, self.known = None, len(finished), {}
        if len(finished):
            batches = Batches(self.val_images, device=self.device, above=finished.layers)
            shown = progress(batches, f"layer {len(finished) + 1}: logits for validation", len(batches))
            self.said = torch.cat([[*finished.said(x)][-1] for x, _, _, _ in shown])

    def _make(self, stack: FrozenStack, plan: Sequence[Sequence[Origin]]) -> None:
        """Make the views of a plan, of those of the layer below where there are any."""
        what = f"layer {len(stack) + 1}: features"
        self.train = list(self._pushed(stack, self.images, self.train, plan, torch.float16, what))
        still, what = [[Origin(0, 0, 0, 0)]] * len(stack.column), f"{what} for validation"
        self.val = list(self._pushed(stack, self.val_images, self.val, still, torch.float32, what))
        self.plan = plan
        processes.agreed(lambda: None)  # what the others have computed is there now

    @property
    def depth(self) -> int:
        """How many layers of their column the views have been through."""
        return len(self.plan)

    @property
    def bytes(self) -> int:
        """What the views take."""
        tensors = [tensor for view in (*self.train, *self.val) for tensor in (view.features, view.logits)]
        return sum(tensor.numel() * tensor.itemsize for tensor in tensors)

    def _leads_to(self, plan: list[list[Origin]]) -> bool:
        """Whether the views that there are were made as a plan has it, and suffice for it."""
        levels = zip(self.plan, plan, strict=False)
        return all(list(there[: len(needed)]) == list(needed) for there, needed in levels)

    def _pushed(
        self,
        stack: FrozenStack,
        images: Images,
        below: list[View],
        plan: Sequence[Sequence[Origin]],
        dtype: torch.dtype,
        what: str,
    ) -> Iterator[View]:
        """Push views through the layers that they have not seen yet; those in `below` are let go once they were used.

        Each process of a machine does so with its part of the images, in the batches that one alone would make.
        """
        column = stack.column
        layers, ways, lowest = column.layers[self.depth :], chains(plan, self.depth), len(stack) - len(column) + 1
        shapes = [(below[0] if below else images).shape, *(layer.shape for layer in layers)]
        place = place_for(sum(self.plans.bytes(stack, way[-1], len(images), dtype) for way in ways), self.device)
        there, uses = dict(enumerate(below)), Counter(way[0].parent for way in ways)
        below.clear()
        # by the margin of its input, and then of each layer's output
        margins = [[self._margin(there, way[0], layers[0]), *(one.margin for one in way)] for way in ways]
        sizes = [list(map(together, layers, shapes, own[:-1])) for own in margins]
        shares = [processes.machine_share(len(images), math.lcm(*own)) for own in sizes]
        told = self.plans.told(layers[-1].logits, dtype)
        steps = iter(
            progress(range(sum(-(-len(mine) // own[0]) for mine, own in zip(shares, sizes, strict=True))), what)
        )
        for way, own, (size, *_), mine in zip(ways, margins, sizes, shares, strict=True):
            crops = (len(images), own[-1] + 1, own[-1] + 1, told)
            try:
                features = allocate_for_all(shape_of(stack, way[-1], len(images)), dtype, len(ways), place)
                view = View(features, allocate_for_all(crops, torch.float32, len(ways), place), images.labels, own[-1])
            except OSError as error:
                raise _NoRoom(error.strerror) from error
            batches = self._batches(images, there, way[0], own[0], dtype == torch.float16, size, mine)
            parts: Pushed = (
                (x, _or_empty(logits, x), _or_empty(near, x))
                for (x, logits, _, near), _ in zip(batches, steps, strict=False)
            )
            for i, (layer, origin) in enumerate(zip(layers, way, strict=True)):
                parts = through(parts, lowest + self.depth + i, layer, shapes[i], own[i], origin, dtype, told > 0)
            start = 0
            for x, logits, _ in parts:
                where = mine[start : start + len(x)].to(features.device)
                features[where] = x.permute(0, 2, 3, 1).to(features.device, dtype)
                view.logits[where] = logits.to(features.device)
                start += len(x)
            uses[way[0].parent] -= 1
            if not uses[way[0].parent]:
                there.pop(way[0].parent, None)
            yield view
        next(steps, None)

    def _margin(self, there: dict[int, View], origin: Origin, layer: ProbedLayer) -> int:
        """That of what a view is made from: a view, or as much of images as is needed."""
        return there[origin.parent].margin if there else origin.margin * layer.layer.embedding.pool

    def _batches(
        self,
        images: Images,
        there: dict[int, View],
        origin: Origin,
        margin: int,
        training: bool,
        size: int,
        mine: Tensor,
    ) -> Batches:
        """What a view is made from: a view that is there, or images; those to train on are augmented as it shows them.

        What is known of it has a name.
        """
        if there:
            name = f"view {origin.parent}" if training else "validation"
            return Batches(there[origin.parent], size, self.device, known=self.known.get(name), chosen=mine)
        known = self.known.get("images" if training else "validation")
        if not training:
            return Batches(images, size, self.device, said=self.said, known=known, chosen=mine)
        seed, drawn = fold_seed(self.seed, origin.parent, 1), None
        if margin or origin.rows or origin.columns:
            drawn = self.augmentation.whole(len(images), origin.parent == 1, origin.rows, origin.columns, margin)
        given = images, size, self.device
        return Batches(*given, augmentation=self.augmentation, drawn=drawn, seed=seed, known=known, chosen=mine)


def _or_empty(known: Tensor | None, x: Tensor) -> Tensor:
    return x.new_empty(len(x), 0) if known is None else known
