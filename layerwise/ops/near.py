"""Which atoms are near each patch, as it is kept: a bit an atom, or the indices of the near ones, whichever is smaller.

Shapes: N atoms, k neighbors, S numbers of a position: ceil(N/8) bytes of bits, or k indices in ascending order.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def layout(atoms: int, neighbors: int) -> tuple[int, torch.dtype]:
    """(S, type) for k of N atoms: uint8 stands for bits, another type for indices."""
    index = torch.int16 if atoms <= 1 << 15 else torch.int32
    words = -(-atoms // 8)
    return (neighbors, index) if neighbors * index.itemsize < words else (words, torch.uint8)


def places(atoms: int, neighbors: int, pool: int) -> int:
    """For how many atoms there is to be room that are near to a window, (M): each position may have others."""
    return min(atoms, neighbors * pool * pool)


def near_of(mask: Tensor, neighbors: int) -> Tensor:
    """Keep a mask (..., N), with k set in each row, as (..., S)."""
    atoms = mask.shape[-1]
    size, dtype = layout(atoms, neighbors)
    if dtype != torch.uint8:
        return mask.nonzero()[:, -1].view(*mask.shape[:-1], size).to(dtype)
    padded = F.pad(mask.to(torch.uint8), (0, 8 * size - atoms)).view(*mask.shape[:-1], size, 8)
    weight = 2 ** torch.arange(8, device=mask.device, dtype=torch.uint8)
    return (padded * weight).sum(-1, dtype=torch.uint8)


def mask_of(near: Tensor, atoms: int) -> Tensor:
    """Undo `near_of`: (..., S) to (..., N) bool."""
    if near.dtype == torch.uint8:
        bits = near[..., None] >> torch.arange(8, device=near.device, dtype=torch.uint8) & 1
        return bits.flatten(-2)[..., :atoms].bool()
    mask = torch.zeros(*near.shape[:-1], atoms, dtype=torch.bool, device=near.device)
    return mask.scatter_(-1, near.long(), True)
