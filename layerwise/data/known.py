"""Which atoms are near the patches of inputs that come again: asked for once, since a dictionary never changes.

Shapes: n images, B batch, C channels, H W side, h w positions, S numbers of a position; see `layerwise.ops.near`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from layerwise import processes
from layerwise.data.crops import Shifts
from layerwise.data.images import Augmentation, Drawn, allocate_for_all, moved, place_for, to_input
from layerwise.data.rows import Rows, Stored

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

    def allocate(self, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor | Stored | None:
        """Room for what a device will need: on it, in memory or in a temporary file; None where there is none."""
        size = torch.Size(shape).numel() * dtype.itemsize
        reason = f"more than what --features.gigabytes leaves, {max(0.0, self.limit) / 1e9:.2g}"
        if size <= self.limit:
            try:
                room = allocate_for_all(shape, dtype, 1, place_for(size, device))
                self.limit -= size
                return room
            except OSError as error:
                reason = f"and there is no room for them ({error.strerror})"
        if not self.told:
            takes = f"which atoms are near takes {size / 1e9:.2g} GB, {reason}"
            print(f"{self.what}: {takes}: finding them anew in every step, which is slower", flush=True)
            self.told = True
        return None


@dataclass(frozen=True)
class Chosen:
    """Which images there are, in which order, and what becomes of them: on the CPU, which decides, and on a device."""

    index: Tensor
    """(B,) int64"""
    drawn: Drawn | None = None
    """None where nothing does"""
    elsewhere: "Chosen | None" = None
    """the same on the device that computes; None where that is the CPU"""

    def known_to(self, device: torch.device | str) -> "Chosen":
        """The same, on a device, too: at once for all, so that no step waits for its part."""
        if torch.device(device).type == "cpu":
            return self
        there = Chosen(self.index.to(device), self.drawn and self.drawn.to(device))
        return Chosen(self.index, self.drawn, there)

    def part(self, some: slice | Tensor) -> "Chosen":
        """Some of them."""
        drawn, elsewhere = self.drawn and self.drawn.part(some), self.elsewhere and self.elsewhere.part(some)
        return Chosen(self.index[some], drawn, elsewhere)

    def beside(self, values: Tensor | Rows) -> "Chosen":
        """The same, on the device of `values` alone."""
        return self.elsewhere if self.elsewhere is not None and values.device.type != "cpu" else self


class Known:
    """Which atoms are near, of n inputs that are always the same; of one that comes for the first time it is asked.

    It may lie elsewhere than the inputs do, and comes to where they are. Which inputs have come the CPU keeps, so that
    no step waits for a device's answer. Several processes of a machine share it: what one has asked for another knows
    in the next epoch.
    """

    def __init__(self, ask: Ask, count: int, room: Room) -> None:
        self.ask, self.count, self.room = ask, count, room
        self._near: Tensor | Stored | None = None
        self._seen = torch.zeros(count, dtype=torch.bool)
        self._full = False

    def __call__(self, chosen: Chosen, x: Tensor, pixels: Tensor) -> Tensor | None:
        """What is near in `x`, the inputs that are `chosen`: (B, h, w, S); None where there is no room for it."""
        new = self._new(chosen)
        if len(new):
            self._keep(chosen.index[new], self.ask(x[moved(new, x.device)]))
        if self._near is None:
            return None
        return moved(self._near[chosen.beside(self._near).index], x.device)

    @property
    def bytes(self) -> int:
        """What it takes."""
        return 0 if self._near is None else self._near.numel() * self._near.itemsize

    def _new(self, chosen: Chosen) -> Tensor:
        """Which of the chosen come for the first time, if there is room for more, as positions, (m,)."""
        return torch.empty(0, dtype=torch.long) if self._full else (~self._seen[self._places(chosen)]).nonzero()[:, 0]

    def _places(self, chosen: Chosen) -> Tensor:
        """Where each is kept, (B,), on the device of `chosen`."""
        return chosen.index

    def _keep(self, places: Tensor, near: Tensor) -> None:
        """Keep what has been asked, the first time with room for all, of `count` inputs."""
        if self._near is None:
            self._near = self.room.allocate((self.count, *near.shape[1:]), near.dtype, near.device)
            self._full = self._near is None
            if self._near is not None and processes.count() > 1:
                self._seen = processes.shared((self.count,), torch.bool)
        if self._near is not None:
            self._near[moved(places, self._near.device)] = near.to(self._near.device)
            self._seen[places] = True


class KnownCrops(Known):
    """Which atoms are near in every crop of n images: in the images with what may enter at their borders, and mirrored.

    Any augmented image is a part of one of the two. Or of stored features, of which `shifts` are drawn.
    """

    def __init__(self, ask: Ask, count: int, room: Room, augmentation: Augmentation | Shifts) -> None:
        super().__init__(ask, 2 * count if augmentation.flip else count, room)
        self.augmentation, self.images = augmentation, count

    def __call__(self, chosen: Chosen, x: Tensor, pixels: Tensor) -> Tensor | None:
        """What is near in those that are `chosen`, of which x (B, C, H, W) is the part that was drawn.

        `pixels` are the images that they are parts of, or the features (B, H, W, C); where nothing is drawn x is all.
        """
        if chosen.drawn is None:
            return super().__call__(chosen, x, pixels)
        new = self._new(chosen)
        if len(new):
            there = moved(new, pixels.device)
            if isinstance(self.augmentation, Shifts):
                whole = moved(pixels[there], x.device).float().permute(0, 3, 1, 2)
            else:
                drawn = chosen.beside(pixels).drawn
                assert drawn is not None
                whole = to_input(moved(self.augmentation.bordered(pixels[there], drawn.flipped[there]), x.device))
            self._keep(self._places(chosen)[new], self.ask(whole))
        if self._near is None:
            return None
        here = chosen.beside(self._near)
        assert here.drawn is not None
        return moved(self.augmentation.part(here.index, here.drawn, self.images).of(self._near), x.device)

    def _places(self, chosen: Chosen) -> Tensor:
        """The mirror images come after all images."""
        return chosen.index if chosen.drawn is None else chosen.index + self.images * chosen.drawn.flipped[:, 0]

    @staticmethod
    def pays(margin: int, sides: int, shape: tuple[int, int, int], patch_size: int, passes: int) -> bool:
        """Whether so many passes over crops (C, H, W) ask for more patches than there are with margins, on all sides.

        A side is the image, or its mirror image.
        """
        h, w = (side - patch_size + 1 for side in shape[1:])
        return passes * h * w > sides * (h + margin) * (w + margin)
