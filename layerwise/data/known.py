"""Which atoms are near the patches of inputs that come again: asked for once, since a dictionary never changes.

Shapes: n images, B batch, C channels, H W side, h w positions, S numbers of a position; see `layerwise.ops.near`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from layerwise.data.images import Augmentation, Drawn, allocate, place_for, to_input

Ask = Callable[[Tensor], Tensor]
"""from a layer's input (B, C, H, W) to which atoms are near each patch, (B, h, w, S)"""


@dataclass
class Room:
    """Bytes for what is known of a layer's inputs; where they do not suffice, that is said once."""

    what: str
    """such as "layer 2" """
    limit: float
    """the bytes that are left"""
    told: bool = False

    def allocate(self, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor | None:
        """Room for what a device will need: on it, in memory or in a temporary file; None where there is none."""
        size = torch.Size(shape).numel() * dtype.itemsize
        reason = f"more than what --features.gigabytes leaves, {max(0.0, self.limit) / 1e9:.2g}"
        if size <= self.limit:
            try:
                room = allocate(shape, dtype, 1, place_for(size, device))
                self.limit -= size
                return room
            except OSError as error:
                reason = f"and there is no room for them ({error.strerror})"
        if not self.told:
            takes = f"which atoms are near takes {size / 1e9:.2g} GB, {reason}"
            print(f"{self.what}: {takes}: finding them anew in every step, which is slower", flush=True)
            self.told = True
        return None


class Known:
    """Which atoms are near, of n inputs that are always the same; of one that comes for the first time it is asked.

    It may lie elsewhere than the inputs do, and comes to where they are; `index` and what is drawn are a CPU's.
    """

    def __init__(self, ask: Ask, count: int, room: Room) -> None:
        self.ask, self.count, self.room = ask, count, room
        self._near: Tensor | None = None
        self._seen = torch.zeros(count, dtype=torch.bool)
        self._full = False

    def __call__(self, index: Tensor, x: Tensor, pixels: Tensor, drawn: Drawn | None) -> Tensor | None:
        """What is near in `x`, the inputs at `index` (B,): (B, h, w, S); None where there is no room for it."""
        new = ~self._seen[index]
        if new.any() and not self._full:
            self._keep(index[new], self.ask(x[new]))
        return None if self._near is None else self._near[index].to(x.device)

    @property
    def bytes(self) -> int:
        """What it takes."""
        return 0 if self._near is None else self._near.numel() * self._near.itemsize

    def _keep(self, index: Tensor, near: Tensor) -> None:
        """Keep what has been asked, the first time with room for all, of `count` inputs."""
        if self._near is None:
            self._near = self.room.allocate((self.count, *near.shape[1:]), near.dtype, near.device)
            self._full = self._near is None
        if self._near is not None:
            self._near[index] = near.to(self._near.device)
            self._seen[index] = True


class KnownCrops(Known):
    """Which atoms are near in every crop of n images: in the images with what may enter at their borders, and mirrored.

    Any augmented image is a part of one of the two.
    """

    def __init__(self, ask: Ask, count: int, room: Room, augmentation: Augmentation) -> None:
        super().__init__(ask, 2 * count if augmentation.flip else count, room)
        self.augmentation, self.images = augmentation, count

    def __call__(self, index: Tensor, x: Tensor, pixels: Tensor, drawn: Drawn | None) -> Tensor | None:
        """What is near in the images (B, C, H, W) at `index` once they are augmented as was `drawn`."""
        assert drawn is not None
        places = index + self.images * drawn.flipped[:, 0]
        new = ~self._seen[places]
        if new.any() and not self._full:
            bordered = self.augmentation.bordered(pixels[new], drawn.flipped[new])
            self._keep(places[new], self.ask(to_input(bordered.to(x.device))))
        if self._near is None:
            return None
        crop = self.augmentation.crop
        h, w = (side - 2 * crop for side in self._near.shape[1:3])
        tops = crop + drawn.shift[0, :, 0]
        lefts = crop + torch.where(drawn.flipped[:, 0], -drawn.shift[1, :, 0], drawn.shift[1, :, 0])
        parts = zip(places.tolist(), tops.tolist(), lefts.tolist(), strict=True)
        near = torch.stack([self._near[i, top : top + h, left : left + w] for i, top, left in parts])
        return near.to(x.device)

    @staticmethod
    def pays(augmentation: Augmentation, shape: tuple[int, int, int], patch_size: int, passes: int) -> bool:
        """Whether so many passes ask for more patches of images (C, H, W) than there are with borders and mirrored."""
        sides, (h, w) = 1 + augmentation.flip, (side - patch_size + 1 for side in shape[1:])
        return passes * h * w > sides * (h + 2 * augmentation.crop) * (w + 2 * augmentation.crop)
