"""What a layer is trained on: the output of the frozen layers below, or of none; and the patches sampled from it."""

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor

from layerwise import ops
from layerwise.config.choices import PIXELS
from layerwise.console import progress
from layerwise.data.batches import EVALUATION_BATCH, Batches, ViewStore
from layerwise.nn.stack import FrozenStack
from layerwise.seeds import fold_seed


class LayerData(LightningDataModule):
    """The inputs of one layer: stored views of the training images, one an epoch in turn, or without a stored view the
    images augmented anew and pushed through the stack in each step; validation images as they are.

    The stack of layers below is kept here, outside the module that is trained, so that nothing can write to it.
    """

    def __init__(self, stack: FrozenStack, store: ViewStore, batch_size: int, seed: int) -> None:
        super().__init__()
        self.stack = stack
        self.store = store
        self.batch_size = batch_size
        self.seed = seed  # of this layer
        self.device = store.device

    def train_dataloader(self) -> Batches:
        """The pass of the current epoch; a resumed epoch sees what it would have seen."""
        assert self.trainer is not None
        epoch, views, size = self.trainer.current_epoch, self.store.train, self.batch_size
        seed = fold_seed(self.seed, epoch)
        if views:
            return Batches(views[epoch % len(views)], size, self.device, shuffle=True, seed=seed)
        images, layers, augmentation = self.store.data.train, self.stack.layers, self.store.data.augmentation
        return Batches(images, size, self.device, layers, shuffle=True, augmentation=augmentation, seed=seed)

    def val_dataloader(self) -> Batches:
        """The validation images."""
        if self.store.val:
            return Batches(self.store.val[0], EVALUATION_BATCH, self.device)
        return Batches(self.store.data.val, EVALUATION_BATCH, self.device, self.stack.layers)


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
    images = store.data.train
    _, h, w = stack.shape(images.shape)
    each = min(16, (h - patch_size + 1) * (w - patch_size + 1))
    chosen = torch.randperm(len(images), generator=generator)[: -(-count // each)].sort().values
    if store.train and pixels == "input":
        batches = Batches(store.train[0].subset(chosen), device=store.device)
    else:
        batches = Batches(images.subset(chosen), device=store.device, layers=stack.layers, pixels=PIXELS[pixels])
    inputs = (x for x, _, _ in progress(batches, what, len(batches)))
    return ops.sample_patches(inputs, patch_size, count, len(chosen), generator)
