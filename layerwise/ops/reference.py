"""Patches, gate and embedding in plain torch: any device, any dtype. The other backends are tested against this file.

For shapes see `layerwise.ops`; M sampled patches. A patch vector is ordered (row, column, channel): with channels last,
a patch is s contiguous runs of s*C numbers.
"""

from collections.abc import Iterable
from itertools import chain

import torch
import torch.nn.functional as F
from torch import Tensor

from layerwise.ops.bounded import NUMBERS
from layerwise.ops.exact import exactly
from layerwise.ops.near import mask_of, near_of

TOGETHER = 1 << 25
"""elements (images, positions, atoms) that are computed at once, unless one image has more: 128 MiB of float32"""


def extract_patches(x: Tensor, size: int) -> Tensor:
    """Cut every patch of every image, at stride 1 and without padding: (B, C, H, W) to (B, h, w, P), s ≤ min(H, W)."""
    return _windows(x, size).flatten(3)


def _windows(x: Tensor, size: int) -> Tensor:
    """Every patch, (B, h, w, s, s, C), as a view that takes no memory."""
    return x.permute(0, 2, 3, 1).unfold(1, size, 1).unfold(2, size, 1).permute(0, 1, 2, 4, 5, 3)


def sample_patches(batches: Iterable[Tensor], size: int, count: int, total: int, generator: torch.Generator) -> Tensor:
    """Draw patches at uniformly random positions, equally many from every one of `total` images (B, C, H, W).

    Returns (M, P) with M = min(count, total*h*w), in random order: no position of an image is drawn twice. The
    generator is a CPU's; the draw is the same on every device.
    """
    remaining = iter(batches)
    first = next(remaining)
    h, w = (side - size + 1 for side in first.shape[2:])
    each = min(-(-count // total), h * w)
    positions = torch.empty(total, each, dtype=torch.long)
    for some in torch.split(positions, max(1, NUMBERS // (h * w))):
        some.copy_(torch.rand(len(some), h * w, generator=generator).argsort(1)[:, :each])
    # the order is drawn at first, too, so that each patch is written where it will stay
    places = torch.randperm(total * each, generator=generator).argsort().view(total, each)
    sample, start = first.new_empty(total * each, size * size * first.shape[1]), 0
    for x in chain([first], remaining):
        part = slice(start, start + len(x))
        where, image = positions[part].to(x.device), torch.arange(len(x), device=x.device)[:, None]
        sample[places[part].to(x.device)] = _windows(x, size)[image, where // w, where % w].flatten(2)
        start += len(x)
    return sample[:count]


def affine(patches: Tensor, weight: Tensor) -> Tensor:
    """Apply an affine map whose last row is the offset: (..., P) and (P+1, N) to (..., N)."""
    return patches @ weight[:-1] + weight[-1]


def _gate(patches: Tensor, scorer: Tensor, neighbors: int) -> Tensor:
    """Which atoms are near, (..., N) bool."""
    with exactly():
        return nearest_mask(affine(patches, scorer), neighbors)


def nearest_mask(scores: Tensor, k: int) -> Tensor:
    """Mark the k lowest scores, 1 ≤ k ≤ N, of each row of (..., N): exactly k, of equal ones those of lowest index."""
    threshold = kth_lowest(scores, k)
    below, tied = scores < threshold, scores == threshold
    room = k - below.sum(-1, keepdim=True)
    return below | (tied & (tied.cumsum(-1) <= room))


def kth_lowest(scores: Tensor, k: int) -> Tensor:
    """The k-th lowest of each row: (..., N) to (..., 1)."""
    return scores.topk(k, largest=False).values[..., -1:]  # of kthvalue, other programs know nothing


def average_pool(a: Tensor, size: int) -> Tensor:
    """Average over windows of size x size of (B, N, h, w); a window at the border averages what it covers."""
    return F.avg_pool2d(a, size, ceil_mode=True)


def _pooled(gate: Tensor, patches: Tensor, maps: Tensor | None, pool: int) -> Tensor:
    gated = gate.to(patches.dtype) if maps is None else gate * affine(patches, maps)
    return average_pool(gated.permute(0, 3, 1, 2), pool)


def embed(x: Tensor, scorer: Tensor, maps: Tensor | None, patch_size: int, neighbors: int, pool: int) -> Tensor:
    """The embedding as torch differentiates it: what every backend and its backward pass are tested against."""
    patches = extract_patches(x, patch_size)
    return _pooled(_gate(patches, scorer, neighbors), patches, maps, pool)


def _parts(x: Tensor, patch_size: int, atoms: int) -> list[slice]:
    """Images of a batch that are computed together."""
    h, w = (side - patch_size + 1 for side in x.shape[2:])
    step = max(1, TOGETHER // (h * w * atoms))
    return [slice(start, start + step) for start in range(0, len(x), step)]


def forward(
    x: Tensor,
    scorer: Tensor,
    maps: Tensor | None,
    patch_size: int,
    neighbors: int,
    pool: int,
    near: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Pooled embedding of a batch, and what is near; see `layerwise.ops`. Without maps each near atom counts 1."""
    atoms, pooled, found = scorer.shape[1], list[Tensor](), list[Tensor]()
    for part in _parts(x, patch_size, atoms):
        patches = extract_patches(x[part], patch_size)
        gate = _gate(patches, scorer, neighbors) if near is None else mask_of(near[part], atoms)
        pooled.append(_pooled(gate, patches, maps, pool))
        found += [near_of(gate, neighbors)] if near is None else []
    return torch.cat(pooled), torch.cat(found) if near is None else near


def near(x: Tensor, scorer: Tensor, patch_size: int, neighbors: int, mirror: Tensor | None = None) -> Tensor:
    """Which atoms are near each patch, (B, h, w, S)."""
    patches = (extract_patches(x[part], patch_size) for part in _parts(x, patch_size, scorer.shape[1]))
    return torch.cat([near_of(_gate(some, scorer, neighbors), neighbors) for some in patches])


def convolve(x: Tensor, maps: Tensor, patch_size: int, pool: int) -> tuple[Tensor, Tensor]:
    """As `forward`, where the maps' own sign is the gate."""
    pooled, found = list[Tensor](), list[Tensor]()
    # an exported program takes batches of any size, whose parts it cannot count
    for part in [slice(None)] if torch.compiler.is_exporting() else _parts(x, patch_size, maps.shape[1]):
        patches = extract_patches(x[part], patch_size)
        gate = affine(patches, maps) > 0
        pooled.append(_pooled(gate, patches, maps, pool))
        found.append(near_of(gate, gate.shape[3]))
    return torch.cat(pooled), torch.cat(found)


def backward(x: Tensor, grad: Tensor, near: Tensor, patch_size: int, pool: int) -> Tensor:
    """Gradient of the maps, (P+1, N); see `layerwise.ops`."""
    atoms = grad.shape[1]
    total = x.new_zeros(patch_size * patch_size * x.shape[1] + 1, atoms)
    for part in _parts(x, patch_size, atoms):
        total += _backward(extract_patches(x[part], patch_size), grad[part], mask_of(near[part], atoms), pool)
    return total


def _backward(patches: Tensor, grad: Tensor, gate: Tensor, pool: int) -> Tensor:
    h, w = patches.shape[1:3]
    tall, wide = (torch.arange(0, side, pool, device=grad.device).neg().add(side).clamp_max(pool) for side in (h, w))
    shares = grad / (tall[:, None] * wide)  # what each position of a window has of its average
    spread = shares.repeat_interleave(pool, 2).repeat_interleave(pool, 3)[:, :, :h, :w].permute(0, 2, 3, 1)
    mapped = (gate * spread).flatten(0, 2)
    return torch.cat([patches.flatten(0, 2).T @ mapped, mapped.sum(0)[None]])


def unfolded(weight: Tensor, bias: Tensor, factors: Tensor, mean: Tensor, order: Tensor | None) -> Tensor:
    """Maps of all atoms as they act on patches, (P+1, N); see `layerwise.ops.unfolded`."""
    rows = weight.T  # an atom's numbers lie together, as the embedding reads them
    if order is not None:
        rows, bias = torch.cat([rows, rows[:, order]]), torch.cat([bias, bias])
    folded = rows * factors
    return torch.cat([folded, (bias - folded @ mean)[:, None]], 1).T


def lowest(scores: Tensor) -> tuple[Tensor, Tensor]:
    """Find the lowest score of each row, (M, N): index (M,) int64, of equal ones the first, and score (M,)."""
    least, index = scores.min(1)
    return index, least


def add_up(points: Tensor, index: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Sum the points (M, P) of each cluster: sums (N, P), and sizes (N,) int64."""
    sums = points.new_zeros(count, points.shape[1]).index_add_(0, index, points)
    return sums, torch.bincount(index, minlength=count)
