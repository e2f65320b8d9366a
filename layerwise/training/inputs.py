"""What a layer is trained on: the output of the frozen layers below, or of none; and the patches sampled from it."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor, nn

from layerwise import ops, processes
from layerwise.config.choices import PIXELS
from layerwise.console import progress
from layerwise.data.batches import Batch, Batches
from layerwise.data.crops import Shifts
from layerwise.data.known import Ask, Known, KnownCrops, Room
from layerwise.data.views import ViewStore
from layerwise.nn.stack import FrozenStack
from layerwise.seeds import fold_seed

TOGETHER = 16
"""steps that Lightning gives at a time"""


@dataclass(frozen=True)
class Turns:
    """Batches, several at a time, each made once it is asked for."""

    batches: Batches

    def __len__(self) -> int:
        return -(-len(self.batches) // TOGETHER)

    def __iter__(self) -> Iterator[Iterator[Batch]]:
        batches = iter(self.batches)
        return (islice(batches, TOGETHER) for _ in range(len(self)))


class LayerData(LightningDataModule):
    """The inputs of one layer: stored views of the training images, one an epoch in turn, or without a stored view the
    images augmented anew and pushed through the stack in each step; validation images as they are. Of several processes
    each has its part of every batch, which together are those of one alone.

    The stack of layers below is kept here, outside the module that is trained, so that nothing can write to it. Which
    atoms are near is asked of the layer once for each input that comes again, if `ask` tells it, at first sight.
    """

    def __init__(
        self,
        stack: FrozenStack,
        store: ViewStore,
        batch_size: int,
        seed: int,
        ask: Ask | None = None,
        patch_size: int = 1,
        passes: int = 1,
        layer: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.stack = stack
        self.store = store
        self.batch_size = batch_size
        self.seed = seed  # of this layer
        self.device = store.device
        self.ask = ask
        self.patch_size = patch_size
        self.passes = passes  # over the training images: the epochs, and those that make the next layer's views
        self.layer = layer  # that is trained on them
        self._room = Room(f"layer {len(stack) + 1}", store.config.gigabytes * 1e9 - store.bytes)
        self.known = dict[str, Known]()  # of the inputs, by name

    def train_dataloader(self) -> "Turns":
        """The batches of the current epoch, several at a time."""
        assert self.trainer is not None
        return Turns(self.epoch(self.trainer.current_epoch))

    def epoch(self, epoch: int) -> Batches:
        """The pass of an epoch; a resumed one sees what it would have seen."""
        views, size = self.store.train, self.batch_size
        seed = fold_seed(self.seed, epoch)
        if views:
            number = epoch % len(views)
            view, known = views[number], self._known_of_view(number)
            shifts = Shifts(view.margin, self.store.augmentation.shifts) if view.margin else None
            return Batches(
                view, size, self.device, shuffle=True, augmentation=shifts, seed=seed, known=known, divided=True
            )
        images, column, augmentation = self.store.images, self.stack.column, self.store.augmentation
        known = None if len(column) else self._known_of_images()
        return Batches(
            *(images, size, self.device, column),
            shuffle=True,
            augmentation=augmentation,
            seed=seed,
            known=known,
            divided=True,
        )

    def val_dataloader(self) -> Batches:
        """The validation images."""
        known = self._known_of("validation", len(self.store.data.val)) if self.passes > 1 else None
        above = [] if self.layer is None else [self.layer]
        own = processes.own_share(len(self.store.data.val))
        if self.store.val:
            return Batches(self.store.val[0], 0, self.device, above=above, known=known, chosen=own)
        given = self.store.val_images, 0, self.device, self.stack.column, above
        return Batches(*given, said=self.store.said, known=known, chosen=own)

    def _known_of(self, what: str, count: int) -> Known | None:
        """What is known of so many inputs that come again just as they are."""
        if self.ask is None:
            return None
        return self.known.setdefault(what, Known(self.ask, count, self._room))

    def _known_of_view(self, number: int) -> Known | None:
        """What is known of a view, or of all its crops, where that pays: if it comes again."""
        views = self.store.train
        view, name = views[number], f"view {number}"
        if not view.margin:
            return self._known_of(name, len(view)) if self.passes > len(views) + number else None
        passes = len(range(number, self.passes, len(views)))
        if self.ask is None or not KnownCrops.pays(view.margin, 1, view.shape, self.patch_size, passes):
            return None
        return self.known.setdefault(
            name, KnownCrops(self.ask, len(view), self._room, Shifts(view.margin, self.store.augmentation.shifts))
        )

    def _known_of_images(self) -> Known | None:
        """What is known of training images, augmented or not, where that pays."""
        images, augmentation = self.store.data.train, self.store.augmentation
        if not augmentation.changes:
            return self._known_of("images", len(images)) if self.passes > 1 else None
        margin, sides = 2 * augmentation.crop, 1 + augmentation.flip
        if self.ask is None or not KnownCrops.pays(margin, sides, images.shape, self.patch_size, self.passes):
            return None
        return self.known.setdefault("images", KnownCrops(self.ask, len(images), self._room, augmentation))


def sample_inputs(
    stack: FrozenStack,
    store: ViewStore,
    patch_size: int,
    count: int,
    generator: torch.Generator,
    pixels: str = "input",
    what: str = "sampling patches",
) -> Tensor:
    """Sample M patches (M, P) of the input of the layer above a stack, fewer where there are fewer.

    Takes up to 16 patches an image, so that few images have to go through the stack where nothing is stored. The
    generator is a CPU's; `pixels` names one of `PIXELS`.
    """
    images = store.images
    _, h, w = stack.shape(images.shape)
    each = min(16, (h - patch_size + 1) * (w - patch_size + 1))
    chosen = torch.randperm(len(images), generator=generator)[: -(-count // each)].sort().values
    if store.train and pixels == "input":
        view = store.train[0]
        shifts = Shifts(view.margin, store.augmentation.shifts) if view.margin else None
        seed = int(torch.randint(1 << 62, (), generator=generator)) if shifts else 0
        batches = Batches(view, device=store.device, augmentation=shifts, seed=seed, chosen=chosen)
    else:
        shown = PIXELS[pixels]
        batches = Batches(images, device=store.device, stack=stack.column, pixels=shown, chosen=chosen)
    inputs = (x for x, _, _, _ in progress(batches, what, len(batches)))
    return ops.sample_patches(inputs, patch_size, count, len(chosen), generator)
