"""Images as they are handed to a stack, of any kind and number: what the first layer takes, a few at a time.

Shapes: n images, C H W of the images that the stack was trained on.
"""

import os
import warnings
from collections.abc import Iterable, Iterator, Sequence, Sized
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from layerwise.data.arrays import arranged, as_tensor, checked
from layerwise.data.images import to_input
from layerwise.data.reading import fitted, read_picture, upright


@dataclass(frozen=True)
class Given:
    """How images become inputs; ValueError for what is no image, or has another size."""

    shape: tuple[int, int, int]
    """(C, H, W)"""
    dimmest: int
    """of 99 in 100 images that were trained on, the brightest pixel is at least so bright"""
    together: int = 64
    """images that are read at once"""

    def inputs(self, images: Any) -> Iterator[Tensor]:
        """What the first layer takes, a few images at a time."""
        brightest = None
        for chunk in self._chunks(images):
            if chunk.dtype == torch.uint8:
                brightest = max(brightest or 0, int(chunk.max()))
            yield to_input(chunk) if chunk.dtype == torch.uint8 else chunk.float() * 2 - 1
        if brightest is not None and brightest < self.dimmest // 2:
            reached = f"99 in 100 images that the stack was trained on reach {self.dimmest}"
            seen = f"no pixel is above {brightest}, but {reached}"
            warnings.warn(f"images: {seen}; pixels of uint8 range from 0 to 255", stacklevel=4)

    def count(self, images: Any) -> int | None:
        """How many images there are; None of what is only told at its end."""
        if isinstance(images, (str, os.PathLike, Image.Image)):
            return 1
        if isinstance(images, (np.ndarray, Tensor)):
            return len(self._batch(images))
        return len(images) if isinstance(images, Sized) else None

    def _chunks(self, images: Any) -> Iterator[Tensor]:
        """Images as they are given, in chunks (m, C, H, W), m ≥ 1."""
        if isinstance(images, (str, os.PathLike, Image.Image)):
            images = [images]
        if isinstance(images, (np.ndarray, Tensor)):
            yield from (checked(part) for part in torch.split(self._batch(images), self.together) if len(part))
            return
        if not isinstance(images, Iterable):
            raise ValueError(f"images: {type(images).__name__} is none; give paths, PIL images, arrays or tensors")
        remaining = iter(images)
        while several := list(islice(remaining, self.together)):
            with ThreadPoolExecutor() as pool:
                singles = list(pool.map(self.one, several))
            alike = len({single.dtype for single in singles}) == 1
            yield from [torch.stack(singles)] if alike else [single[None] for single in singles]

    def one(self, image: Any) -> Tensor:
        """One image of any kind, (C, H, W)."""
        if isinstance(image, (np.ndarray, Tensor)) or isinstance(image, Sequence) and not isinstance(image, str):
            return checked(self._batch(image, one=True))[0]
        if self.shape[0] not in (1, 3):
            raise ValueError(f"images: the stack was trained on {self.shape[0]} channels, which no picture has")
        mode = "L" if self.shape[0] == 1 else "RGB"
        if isinstance(image, Image.Image):
            return fitted(upright(image, mode), self.shape)
        if not isinstance(image, (str, os.PathLike)):
            raise ValueError(f"images: {type(image).__name__} is none; give paths, PIL images, arrays or tensors")
        try:
            return fitted(read_picture(Path(image), mode), self.shape)
        except Exception as error:  # a damaged file can make a decoder raise anything
            reason = " ".join(str(error).split()) or type(error).__name__
            raise ValueError(f"images: {image} is not a readable image ({reason})") from error

    def _batch(self, images: Any, one: bool = False) -> Tensor:
        """An array, whose channels may be missing or come last, as (n, C, H, W)."""
        x = as_tensor(images)
        if (found := arranged(x, self.shape, one)) is not None:
            return found
        c, h, w = self.shape
        remedy = "paths and PIL images are brought to this size"
        raise ValueError(f"images: shape {tuple(x.shape)}, but the stack was trained on (n, {c}, {h}, {w}); {remedy}")
