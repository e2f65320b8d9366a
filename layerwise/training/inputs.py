"""What a layer is trained on: the output of the frozen layers below, or of none; and the patches sampled from it."""

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor

from layerwise import ops
from layerwise.config.choices import PIXELS
from layerwise.console import progress
from layerwise.data.batches import EVALUATION_BATCH, Batches
from layerwise.data.images import Images
from layerwise.data.views import ViewStore
from layerwise.nn.stack import FrozenStack
from layerwise.seeds import fold_seed


class LayerData(LightningDataModule):
    """The inputs of one layer: stored views of the training images, one an epoch in turn, or without a stored view the
    images augmented anew and pushed through the stack in each step; validation images as they are.

    The stack is kept here, outside the module that is trained, so that nothing can write to it.

    Args:
        stack: the layers below.
        store: what is stored of their output, and the images.
        batch_size: images a training step.
        seed: of this layer.
    """

    def __init__(self, stack: FrozenStack, store: ViewStore, batch_size: int, seed: int) -> None:
        super().__init__()
        self.stack = stack
        self.store = store
        self.batch_size = batch_size
        self.seed = seed
        self.device = store.device

    @property
    def steps(self) -> int:
        """Steps of an epoch."""
        return len(self.store.data.train) // self.batch_size

    def train_dataloader(self) -> Batches:
        """The pass of the current epoch; a resumed epoch sees what it would have seen."""
        assert self.trainer is not None
        return self.epoch(self.trainer.current_epoch)

    def epoch(self, number: int) -> Batches:
        """The pass of an epoch, from 0."""
        seed, views = fold_seed(self.seed, number), self.store.train
        if views:
            view = views[number % len(views)]
            return Batches(view, self.batch_size, self.device, shuffle=True, seed=seed)
        data, layers = self.store.data, self.stack.layers
        augmentation = data.augmentation
        return Batches(
            data.train, self.batch_size, self.device, layers, shuffle=True, augmentation=augmentation, seed=seed
        )

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
    """Sample patches of the input of the layer above a stack.

    Takes up to 16 patches an image, so that few images have to go through the stack where nothing is stored.

    Args:
        stack: the layers below.
        store: what is stored of their output, and the images.
        patch_size: s.
        count: number M of patches.
        generator: a CPU generator.
        pixels: a name in `PIXELS`.
        what: for the progress bar.

    Returns:
        (M, P), fewer where there are fewer.
    """
    images = store.data.train
    _, h, w = stack.shape(images.shape)
    each = min(16, (h - patch_size + 1) * (w - patch_size + 1))
    chosen = torch.randperm(len(images), generator=generator)[: -(-count // each)].sort().values
    if store.train and pixels == "input":
        batches = Batches(store.train[0].subset(chosen), device=store.device)
    else:
        some: Images = images.subset(chosen)
        batches = Batches(some, device=store.device, layers=stack.layers, pixels=PIXELS[pixels])
    inputs = (x for x, _, _ in progress(batches, what, len(batches)))
    return ops.sample_patches(inputs, patch_size, count, len(chosen), generator)
