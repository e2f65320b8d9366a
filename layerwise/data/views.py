"""Features computed once: the images as they come out of the frozen layers below.

Each image is stored in several augmented views. The views of one layer are made from those of the layer below, so that
a layer costs the same at any depth; a process that starts in the middle makes them from the images, bit for bit the
same. Training uses one view an epoch, in turn.

Shapes: n images, B batch, C channels, H W image side.
"""

import math
from collections.abc import Iterator

import torch

from layerwise.config import Features
from layerwise.console import progress
from layerwise.data.batches import EVALUATION_BATCH, Batches, View
from layerwise.data.images import Images, allocate
from layerwise.data.splits import DataSet
from layerwise.nn.stack import FrozenStack
from layerwise.seeds import fold_seed


class ViewStore:
    """The views of the highest stack so far.

    Args:
        config: how many views, and how much room.
        data: the images.
        seed: of the run; the same views at every depth.
        device: what computes.
    """

    def __init__(self, config: Features, data: DataSet, seed: int, device: torch.device) -> None:
        self.config = config
        self.data = data
        self.seed = seed
        self.device = device
        self.depth = 0
        self.train: list[View] = []
        self.val: list[View] = []

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

    def _affordable(self, stack: FrozenStack) -> int:
        """How many views there is room for, at most as many as are asked for."""
        wanted = self.config.views
        if not self.data.augmentation.changes:
            wanted = min(wanted, 1)
        elements, limit = math.prod(stack.layers[-1].shape), self.config.gigabytes * 1e9
        logits = 4 * len(self.data.classes)
        validation = len(self.data.val) * (4 * elements + logits)
        view = len(self.data.train) * (2 * elements + logits)
        count = max(0, min(wanted, int((limit - validation) // view)))
        if count < wanted:
            effect = f"storing {count}" if count else "computing them anew in every step, which is slower"
            print(
                f"layer {len(stack) + 1}: {wanted} views of the features take "
                f"{(wanted * view + validation) / 1e9:.1f} GB, more than --features.gigabytes {self.config.gigabytes}: "
                + effect,
                flush=True,
            )
        return count

    def _pushed(
        self, stack: FrozenStack, images: Images, below: list[View], count: int, dtype: torch.dtype, what: str
    ) -> Iterator[View]:
        """Push each view through the layers that it has not seen yet; those in `below` are let go one by one."""
        shape, classes = (len(images), *stack.layers[-1].shape), len(self.data.classes)
        place = self._place(count * math.prod(shape) * dtype.itemsize)
        steps = iter(progress(range(count * -(-len(images) // EVALUATION_BATCH)), what))
        for number in range(count):
            view = View(
                allocate(shape, dtype, count, place),
                allocate((len(images), classes), torch.float32, count, place),
                images.labels,
            )
            augmentation = self.data.augmentation if dtype == torch.float16 and not below else None
            source = below.pop(0) if below else images
            seed, start = fold_seed(self.seed, number, 1), 0
            for x, logits, _ in Batches(source, device=self.device, augmentation=augmentation, seed=seed):
                next(steps, None)
                with torch.no_grad():
                    for layer in stack.layers[self.depth :]:
                        x, logits = layer(x, logits)
                        x = x.to(dtype).float()  # as it would have been stored
                view.features[start : start + len(x)] = x.to(dtype)
                assert logits is not None
                view.logits[start : start + len(x)] = logits
                start += len(x)
            yield view
        next(steps, None)

    def _place(self, size: int) -> torch.device:
        """Where views of `size` bytes together are kept: on the GPU if they fit into half of what is free there."""
        on_gpu = self.device.type == "cuda" and size < torch.cuda.mem_get_info(self.device)[0] // 2
        return self.device if on_gpu else torch.device("cpu")
