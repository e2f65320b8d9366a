"""The trained part of Phi_full: one affine map of the patch for each atom, shared over positions (paper, section 3).

Shapes: P patch dimension, N atoms.
"""

import torch
from torch import Tensor, nn

from layerwise.config.choices import MAPS
from layerwise.nn.dictionary import PatchDictionary


class AffineMaps(nn.Module):
    """u_j and b_j of each atom j, as they are trained.

    Args:
        weight: (P, N).
        bias: (N,).
    """

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(bias)


@MAPS("whitened")
class WhitenedMaps(AffineMaps):
    """Whitened patches, so that one learning rate and one decay suit every direction."""

    def __init__(self, dictionary: PatchDictionary) -> None:
        atoms, dimension = dictionary.atoms.shape
        super().__init__(torch.randn(dimension, atoms) / dimension**0.5, torch.zeros(atoms))

    def forward(self, dictionary: PatchDictionary) -> Tensor:
        """The maps as they act on patches that are not whitened, (P+1, N)."""
        return dictionary.unwhiten(self.weight, self.bias)

    @staticmethod
    def argument(dictionary: PatchDictionary, patches: Tensor) -> Tensor:
        """What a map acts on, (..., P)."""
        return dictionary.whiten(patches)


@MAPS("raw")
class RawMaps(AffineMaps):
    """Patches as they are, with weights begun as PyTorch begins a convolution: what the authors train."""

    def __init__(self, dictionary: PatchDictionary) -> None:
        atoms, dimension = dictionary.atoms.shape
        weight = torch.empty(dimension, atoms).uniform_(-1, 1) / dimension**0.5
        super().__init__(weight, torch.empty(atoms).uniform_(-1, 1) / dimension**0.5)

    def forward(self, dictionary: PatchDictionary) -> Tensor:
        """The maps, (P+1, N)."""
        return torch.cat([self.weight, self.bias[None]])

    @staticmethod
    def argument(dictionary: PatchDictionary, patches: Tensor) -> Tensor:
        """What a map acts on, (..., P)."""
        return patches
