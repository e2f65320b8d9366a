"""Which views of a stack's output are to be made, and the room that they take."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from layerwise.config import Features
from layerwise.data.crops import Origin, origins
from layerwise.data.images import Augmentation
from layerwise.data.pushing import makes_crops_of_crops
from layerwise.nn.stack import FrozenStack

TRIED = 4
"""images on which it is tried whether crops can be cut of views"""


@dataclass(frozen=True)
class Plans:
    """What is asked for, of which images."""

    config: Features
    augmentation: Augmentation
    tried: Tensor
    """(B, C, H, W) uint8, some of the images"""
    train: int
    """images to train on, and"""
    val: int
    """to validate with"""
    classes: int
    """how many there are"""
    device: torch.device
    """what computes"""

    @property
    def wanted(self) -> int:
        """How many views are asked for; where nothing is augmented, all would be the same."""
        return self.config.views if self.augmentation.changes else min(self.config.views, 1)

    def of(self, stack: FrozenStack) -> list[list[Origin]]:
        """The views of each layer's output, as many as are asked for and there is room for; none where there is none.

        Those of fewer views are the first ones of more.
        """
        limit, validation = self.config.gigabytes * 1e9, self._validation(stack)
        chosen: list[list[Origin]] = []
        asked = needed = held = 0
        for wide in [True, False] if self._cuts(stack) else [False]:
            for wanted in range(self.wanted, 0, -1):
                plan = self._levels(stack, wanted, wide)
                needed = validation + self._training(stack, plan[-1])
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
        return makes_crops_of_crops(stack, self.tried, self.augmentation, self.device)

    def _levels(self, stack: FrozenStack, wanted: int, wide: bool) -> list[list[Origin]]:
        """The views of each layer's output that hold so many crops: of whole images, or of images augmented once."""
        margins = [2 * self.augmentation.crop] * (1 + self.augmentation.flip) if wide else [0] * wanted
        levels = list[list[Origin]]()
        for layer in stack.column.layers:
            levels.append(origins(margins, layer.layer.embedding.pool, wanted))
            margins = [one.margin for one in levels[-1]]
        return levels

    def told(self, logits: str, dtype: torch.dtype) -> int:
        """How many logits of the layers below go with a crop: none to train averaged layers, each of which is alone."""
        return 0 if logits == "averaged" and dtype == torch.float16 else self.classes

    def bytes(self, stack: FrozenStack, view: Origin, images: int, dtype: torch.dtype) -> int:
        """Bytes of a view of so many images, float16 to train on or float32 to validate with."""
        numbers = math.prod(shape_of(stack, view, images))
        return dtype.itemsize * numbers + 4 * images * self.told(stack.layers[-1].logits, dtype) * view.crops

    def _training(self, stack: FrozenStack, views: Sequence[Origin]) -> int:
        return sum(self.bytes(stack, one, self.train, torch.float16) for one in views)

    def _validation(self, stack: FrozenStack) -> int:
        return self.bytes(stack, Origin(0, 0, 0, 0), self.val, torch.float32)

    def fit(self, stack: FrozenStack, views: Sequence[Origin], beside: int) -> bool:
        """Whether there is room for such views beside so many bytes."""
        return self._training(stack, views) + self._validation(stack) + beside <= self.config.gigabytes * 1e9


def shape_of(stack: FrozenStack, view: Origin, images: int) -> tuple[int, int, int, int]:
    """That of a view of so many images, (n, H + margin, W + margin, D)."""
    d, h, w = stack.layers[-1].shape
    return images, h + view.margin, w + view.margin, d
