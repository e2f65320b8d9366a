"""The gate and the embedding in plain torch: any device, any dtype. The other backends are tested against this file.

Shapes: B batch, P patch numbers, N atoms, k neighbors, h w positions, h' = ceil(h/pool), w' = ceil(w/pool).
"""

import torch.nn.functional as F
from torch import Tensor

from layerwise.patches import extract_patches


def affine(patches: Tensor, weight: Tensor) -> Tensor:
    """Apply an affine map whose last row is the offset: (..., P) and (P+1, N) to (..., N)."""
    return patches @ weight[:-1] + weight[-1]


def nearest_mask(scores: Tensor, k: int) -> Tensor:
    """Mark the k lowest scores in the last dimension: exactly k, of equal ones those with the lowest index.

    Args:
        scores: (..., N), low is near.
        k: from 1 to N.

    Returns:
        Mask, (..., N) bool with k True in each row.
    """
    threshold = scores.kthvalue(k, dim=-1, keepdim=True).values
    below, tied = scores < threshold, scores == threshold
    room = k - below.sum(-1, keepdim=True)
    return below | (tied & (tied.cumsum(-1) <= room))


def average_pool(a: Tensor, size: int) -> Tensor:
    """Average over windows of size x size of (B, N, h, w); a window at the border averages what it covers."""
    return F.avg_pool2d(a, size, ceil_mode=True)


def embed_full(x: Tensor, scorer: Tensor, maps: Tensor, patch_size: int, neighbors: int, pool: int) -> Tensor:
    """See `layerwise.ops.embed_full`."""
    patches = extract_patches(x, patch_size)
    gate = nearest_mask(affine(patches.detach(), scorer), neighbors)
    return average_pool((gate * affine(patches, maps)).permute(0, 3, 1, 2), pool)


def embed_hard(x: Tensor, scorer: Tensor, patch_size: int, neighbors: int, pool: int) -> Tensor:
    """See `layerwise.ops.embed_hard`."""
    gate = nearest_mask(affine(extract_patches(x, patch_size), scorer), neighbors)
    return average_pool(gate.to(x.dtype).permute(0, 3, 1, 2), pool)
