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
from layerwise.data.crops import Origin, origins
from layerwise.data.images import Images, allocate_for_all, place_for
from layerwise.data.known import Known
from layerwise.data.pushing import Pushed, chains, makes_crops_of_crops, through, together
from layerwise.data.splits import DataSet
from layerwise.nn.layer import ProbedLayer
from layerwise.nn.stack import FrozenStack
from layerwise.seeds import fold_seed

TRIED = 4
"""images on which it is tried whether crops can be cut of views"""


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
        plan = self._plan(stack) if len(stack) else []
        if not plan or not self._leads_to(plan):
            self.depth, self.train, self.val = 0, [], []
        if len(stack) != self.depth + 1 or not self._fits(stack, plan[-1] if plan else []):
            self.known = {}
        self.known = {name: one for name, one in self.known.items() if one.bytes}
        if plan:
            try:
                self._make(stack, plan)
            except _NoRoom as error:
                self.depth, self.train, self.val = 0, [], []
                views = f"layer {len(stack) + 1}: there is no room for {len(plan[-1])} views of the features ({error})"
                print(f"{views}: computing them anew in every step, which is slower", flush=True)
        self.known = {}

    def _make(self, stack: FrozenStack, plan: Sequence[Sequence[Origin]]) -> None:
        """Make the views of a plan, of those of the layer below where there are any."""
        what = f"layer {len(stack) + 1}: features"
        self.train = list(self._pushed(stack, self.images, self.train, plan, torch.float16, what))
        still, what = [[Origin(0, 0, 0, 0)]] * len(stack), f"{what} for validation"
        self.val = list(self._pushed(stack, self.val_images, self.val, still, torch.float32, what))
        self.depth = len(stack)
        processes.agreed(lambda: None)  # what the others have computed is there now

    @property
    def bytes(self) -> int:
        """What the views take."""
        tensors = [tensor for view in (*self.train, *self.val) for tensor in (view.features, view.logits)]
        return sum(tensor.numel() * tensor.itemsize for tensor in tensors)

    @property
    def wanted(self) -> int:
        """How many views are asked for; where nothing is augmented, all would be the same."""
        return self.config.views if self.augmentation.changes else min(self.config.views, 1)

    def views_of(self, stack: FrozenStack) -> list[Origin]:
        """The views of the output of a stack of one layer or more that would be made; none where there is no room."""
        plan = self._plan(stack)
        return plan[-1] if plan else []

    def _plan(self, stack: FrozenStack) -> list[list[Origin]]:
        """The views of each layer's output, as many as are asked for and there is room for; none where there is none.

        Those of fewer views are the first ones of more.
        """
        limit, validation = self.config.gigabytes * 1e9, self._size(stack, Origin(0, 0, 0, 0), len(self.data.val), 4)
        chosen: list[list[Origin]] = []
        asked = needed = held = 0
        for wide in [True, False] if self._cuts(stack) else [False]:
            for wanted in range(self.wanted, 0, -1):
                plan = self._levels(stack, wanted, wide)
                needed = validation + sum(self._size(stack, one, len(self.data.train), 2) for one in plan[-1])
                asked = asked or needed
                if needed <= limit:
                    chosen, held = plan, wanted
                    break
            if chosen:
                break
        if self.wanted and (held < self.wanted or not chosen):
            effect = f"storing {len(chosen[-1])}" if chosen else "computing them anew in every step, which is slower"
            room = f"{asked / 1e9:.1f} GB, more than --features.gigabytes {self.config.gigabytes}"
            print(f"layer {len(stack) + 1}: {self.wanted} views of the features take {room}: {effect}", flush=True)
        return chosen

    def _cuts(self, stack: FrozenStack) -> bool:
        """Whether crops can be cut of what the stack makes of whole images."""
        if not self.augmentation.crop:
            return False
        pixels = self.images.pixels[:TRIED]
        return makes_crops_of_crops(stack, pixels, self.augmentation, self.device)

    def _levels(self, stack: FrozenStack, wanted: int, wide: bool) -> list[list[Origin]]:
        """The views of each layer's output that hold so many crops: of whole images, or of images augmented once."""
        margins = [2 * self.augmentation.crop] * (1 + self.augmentation.flip) if wide else [0] * wanted
        levels = list[list[Origin]]()
        for layer in stack.layers:
            levels.append(origins(margins, layer.layer.embedding.pool, wanted))
            margins = [one.margin for one in levels[-1]]
        return levels

    def _leads_to(self, plan: list[list[Origin]]) -> bool:
        """Whether the views that there are suffice for a plan, and are of its kind."""
        if not self.depth:
            return True
        there = [view.margin for view in self.train]
        needed = [one.margin for one in plan[self.depth - 1]]
        return there[: len(needed)] == needed

    def _size(self, stack: FrozenStack, view: Origin, images: int, itemsize: int) -> int:
        """Bytes of a view of so many images."""
        numbers = math.prod(self._shape(stack, view, images))
        return itemsize * numbers + 4 * images * len(self.data.classes) * view.crops

    def _fits(self, stack: FrozenStack, views: Sequence[Origin]) -> bool:
        """Whether there is room for such views beside what is known of those that they are made from."""
        size = sum(self._size(stack, one, len(self.data.train), 2) for one in views)
        size += self._size(stack, Origin(0, 0, 0, 0), len(self.data.val), 4)
        return size + sum(one.bytes for one in self.known.values()) <= self.config.gigabytes * 1e9

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
        layers, ways = stack.layers[self.depth :], chains(plan, self.depth)
        shapes = [(below[0] if below else images).shape, *(layer.shape for layer in layers)]
        place = place_for(sum(self._size(stack, way[-1], len(images), dtype.itemsize) for way in ways), self.device)
        there, uses = dict(enumerate(below)), Counter(way[0].parent for way in ways)
        below.clear()
        # by the margin of its input, and then of each layer's output
        margins = [[self._margin(there, way[0], layers[0]), *(one.margin for one in way)] for way in ways]
        sizes = [list(map(together, layers, shapes, own[:-1])) for own in margins]
        shares = [processes.machine_share(len(images), math.lcm(*own)) for own in sizes]
        steps = iter(
            progress(range(sum(-(-len(mine) // own[0]) for mine, own in zip(shares, sizes, strict=True))), what)
        )
        for way, own, (size, *_), mine in zip(ways, margins, sizes, shares, strict=True):
            crops = (len(images), own[-1] + 1, own[-1] + 1, len(self.data.classes))
            try:
                features = allocate_for_all(self._shape(stack, way[-1], len(images)), dtype, len(ways), place)
                view = View(features, allocate_for_all(crops, torch.float32, len(ways), place), images.labels, own[-1])
            except OSError as error:
                raise _NoRoom(error.strerror) from error
            batches = self._batches(images, there, way[0], own[0], dtype == torch.float16, size, mine)
            parts: Pushed = (
                (x, _or_empty(logits, x), _or_empty(near, x))
                for (x, logits, _, near), _ in zip(batches, steps, strict=False)
            )
            for i, (layer, origin) in enumerate(zip(layers, way, strict=True)):
                parts = through(parts, self.depth + 1 + i, layer, shapes[i], own[i], origin, dtype)
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
            return Batches(images, size, self.device, known=known, chosen=mine)
        seed, drawn = fold_seed(self.seed, origin.parent, 1), None
        if margin:
            drawn = self.augmentation.whole(len(images), origin.parent == 1, origin.rows, origin.columns, margin)
        given = images, size, self.device
        return Batches(*given, augmentation=self.augmentation, drawn=drawn, seed=seed, known=known, chosen=mine)

    def _shape(self, stack: FrozenStack, view: Origin, images: int) -> tuple[int, int, int, int]:
        """That of a view of so many images, (n, H + margin, W + margin, D)."""
        d, h, w = stack.layers[-1].shape
        return images, h + view.margin, w + view.margin, d


def _or_empty(known: Tensor | None, x: Tensor) -> Tensor:
    return x.new_empty(len(x), 0) if known is None else known
