"""What a data set holds, image by image, in a few bytes each: tells which images changed.

Shapes: n images of all splits.
"""

import hashlib
import os
from collections import Counter
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from layerwise.data.images import Images


@dataclass(frozen=True)
class Content:
    """Hashes of images, those for training first, then those for validation and those for the test."""

    images: Tensor
    """(n,) int64, of class and pixels"""
    names: Tensor
    """(n,) int64, of split and name; (0,) where images have none"""

    def __sub__(self, before: "Content") -> str:
        """What has become of the images since, in words, such as `2 added, 1 changed`; nothing if nothing has."""
        if torch.equal(self.images, before.images):
            return ""
        named = len(self.names) and len(before.names)
        if named:
            now, then = (dict(zip(c.names.tolist(), c.images.tolist(), strict=True)) for c in (self, before))
        elif len(self.images) == len(before.images):
            now, then = (dict(enumerate(c.images.tolist())) for c in (self, before))
        else:  # by what they show, as nothing else tells which is which
            counts = Counter(self.images.tolist()), Counter(before.images.tolist())
            return _in_words((counts[0] - counts[1]).total(), (counts[1] - counts[0]).total(), 0)
        changed = sum(now[key] != then[key] for key in now.keys() & then.keys())
        return _in_words(len(now.keys() - then.keys()), len(then.keys() - now.keys()), changed)


def content_of(splits: dict[str, Images]) -> Content:
    """Hash every label and pixel of the splits."""
    images, names = list[bytes](), list[bytes]()
    for split, own in splits.items():
        labels = iter(own.labels.tolist())
        for pixels in own.parts():
            images += [_hash(f"{next(labels)}\0".encode(), np.ascontiguousarray(image)) for image in pixels.numpy()]
        names += [_hash(os.fsencode(f"{split}\0{name}")) for name in own.names or ()]
    return Content(*(torch.from_numpy(np.frombuffer(b"".join(v), np.int64).copy()) for v in (images, names)))


def _hash(start: bytes, image: object = b"") -> bytes:
    sha = hashlib.blake2b(start, digest_size=8)
    sha.update(image)  # type: ignore[arg-type]
    return sha.digest()


def _in_words(added: int, removed: int, changed: int) -> str:
    counts = {"added": added, "removed": removed, "changed": changed}
    told = [f"{count} {what}" for what, count in counts.items() if count]
    return ", ".join(told) or "the same ones in another order or split"
