"""Patches of a batch of feature maps: cutting and sampling (paper, section 3).

Shapes: B batch, C channels, H W image side, s patch side, h = H-s+1, w = W-s+1, P = s*s*C, M sampled patches.
A patch vector is ordered (row, column, channel): with channels last, a patch is s contiguous runs of s*C numbers.
"""

from collections.abc import Iterable

import torch
from torch import Tensor


def extract_patches(x: Tensor, size: int) -> Tensor:
    """Cut every patch of every image, at stride 1 and without padding.

    Args:
        x: images or feature maps, (B, C, H, W).
        size: patch side s, at most min(H, W).

    Returns:
        The patches, (B, h, w, P).
    """
    windows = x.permute(0, 2, 3, 1).unfold(1, size, 1).unfold(2, size, 1)  # (B, h, w, C, s, s)
    return windows.permute(0, 1, 2, 4, 5, 3).flatten(3)


def sample_patches(batches: Iterable[Tensor], size: int, count: int, total: int, generator: torch.Generator) -> Tensor:
    """Draw patches at uniformly random positions, equally many from every image.

    Args:
        batches: feature maps (B, C, H, W); together `total` images.
        size: patch side s.
        count: how many patches to return; no position of an image is drawn twice, so fewer where there are fewer.
        total: number of images in all batches.
        generator: a CPU generator; the draw is the same on every device.

    Returns:
        Patches, (M, P) with M = min(count, total*h*w), in random order.
    """
    drawn = []
    for x in batches:
        patches = extract_patches(x, size).flatten(1, 2)  # (B, h*w, P)
        each = min(-(-count // total), patches.shape[1])
        order = torch.rand(patches.shape[:2], generator=generator).argsort(1)[:, :each].to(x.device)
        drawn.append(patches.gather(1, order[..., None].expand(-1, -1, patches.shape[2])).flatten(0, 1))
    sample = torch.cat(drawn)
    return sample[torch.randperm(len(sample), generator=generator)[:count].to(sample.device)]
