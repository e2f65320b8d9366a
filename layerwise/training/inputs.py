"""What a layer is trained on: the frozen stack's outputs, for training, validation and sampling."""

from collections.abc import Callable, Iterator

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor

from layerwise.config.layer import LayerConfig
from layerwise.console import progress
from layerwise.data.batches import EVALUATION_BATCH, Batches, Images, fold_seed
from layerwise.data.splits import DataSet
from layerwise.data.views import Batch, ViewBatches, ViewStore
from layerwise.nn.layer import FrozenStack
from layerwise.ops.patches import sample_patches


class FrozenInputs:
    """Batches pushed through a frozen stack, anew in each pass; `pixels` is applied to them first."""

    def __init__(self, stack: FrozenStack, batches: Batches, pixels: Callable[[Tensor], Tensor] = lambda x: x) -> None:
        self.stack = stack
        self.batches = batches
        self.pixels = pixels

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        for x, labels in self.batches:
            with torch.no_grad():
                features, logits = self.stack(self.pixels(x))
            yield features, logits, labels


class LayerData(LightningDataModule):
    """The inputs of one layer: stored views of the training images, one an epoch in turn, or without a stored view the
    images augmented anew and pushed through the stack in each step; validation images as they are.

    The stack is kept here, outside the module that is trained, so that nothing can write to it.

    Args:
        data: the data set.
        stack: the layers below.
        store: what is stored of their output.
        batch_size: images a training step.
        seed: of this layer.
    """

    def __init__(self, data: DataSet, stack: FrozenStack, store: ViewStore, batch_size: int, seed: int) -> None:
        super().__init__()
        self.data = data
        self.stack = stack
        self.store = store
        self.batch_size = batch_size
        self.seed = seed
        self.device = store.device

    def train_dataloader(self) -> FrozenInputs | ViewBatches:
        """The pass of the current epoch; a resumed epoch sees what it would have seen."""
        assert self.trainer is not None
        epoch = self.trainer.current_epoch
        seed, views = fold_seed(self.seed, epoch), self.store.train
        if views:
            return ViewBatches(views[epoch % len(views)], self.batch_size, self.device, seed)
        return FrozenInputs(
            self.stack, Batches(self.data.train, self.batch_size, self.device, self.data.augmentation, seed)
        )

    def val_dataloader(self) -> FrozenInputs | ViewBatches:
        """The validation images."""
        if self.store.val:
            return ViewBatches(self.store.val[0], EVALUATION_BATCH, self.device)
        return FrozenInputs(self.stack, Batches(self.data.val, EVALUATION_BATCH, self.device))


def as_trained(x: Tensor) -> Tensor:
    """Pixels from -1 to 1."""
    return x


def unit(x: Tensor) -> Tensor:
    """Pixels from 0 to 1, on which the authors learn their dictionaries, though they train on -1 to 1."""
    return (x + 1) / 2


PIXELS = {"input": as_trained, "unit": unit}


def sample_inputs(
    stack: FrozenStack, store: ViewStore, config: LayerConfig, generator: torch.Generator, what: str
) -> Tensor:
    """Sample patches (M, P) of a layer's input.

    Takes up to 16 patches an image, so that few images have to go through the stack where nothing is stored.
    """
    images, device, size = store.data.train, store.device, config.patch_size
    h, w = (stack.layers[-1].shape if stack.layers else images.pixels.shape[1:])[-2:]
    each = min(16, (h - size + 1) * (w - size + 1))
    chosen = torch.randperm(len(images), generator=generator)[: -(-config.sample // each)].sort().values
    batches: FrozenInputs | ViewBatches
    if store.train and config.sample_pixels == "input":
        batches = ViewBatches(store.train[0].subset(chosen), EVALUATION_BATCH, device)
    else:
        batches = FrozenInputs(
            stack, Batches(images.subset(chosen), EVALUATION_BATCH, device), PIXELS[config.sample_pixels]
        )
    inputs = (features for features, _, _ in progress(batches, what, len(batches)))
    return sample_patches(inputs, size, config.sample, len(chosen), generator)


def accuracies(
    stack: FrozenStack, images: Images, device: torch.device, what: str, mirrored: bool = False
) -> list[float]:
    """The share of images classified rightly at depth 1, 2, … of the stack.

    Args:
        stack: of one layer or more.
        images: what is classified.
        device: where the stack is.
        what: for the progress bar.
        mirrored: add the logits of the mirrored image to those of the image.
    """
    right = torch.zeros(len(stack.layers), dtype=torch.long)
    batches = Batches(images, EVALUATION_BATCH, device)
    for x, labels in progress(batches, what, len(batches)):
        logits = torch.stack([logits for _, logits in stack.depths(x)])
        if mirrored:
            logits = logits + torch.stack([logits for _, logits in stack.depths(x.flip(3))])
        right += (logits.argmax(2) == labels).sum(1).cpu()
    return [float(count) / len(images) for count in right]
