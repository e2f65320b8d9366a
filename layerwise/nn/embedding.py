"""The embedding of a layer's input: gates, times maps or alone, averaged over windows (paper, section 3).

Shapes: B batch, C channels in, H W image side, P patch dimension, N atoms, h' w' output side.
"""

import torch
from torch import Tensor, nn

from layerwise import ops
from layerwise.config.choices import EMBEDDINGS, MAPS
from layerwise.nn.dictionary import PatchDictionary
from layerwise.nn.gates import Gate


class Embedding(nn.Module):
    """What describes a patch by its near atoms.

    Args:
        dictionary: the layer's fixed part.
        gate: which atoms are near.
        maps: a name in `MAPS`, what the maps act on if there are maps.
        pool: side of the windows that the embedding is averaged over.
    """

    def __init__(self, dictionary: PatchDictionary, gate: Gate, maps: str, pool: int) -> None:
        super().__init__()
        self.dictionary = dictionary
        self.gate = gate
        self.pool = pool
        self.maps: nn.Module | None = None
        self.channels = len(dictionary.atoms)

    def forward(self, x: Tensor) -> Tensor:
        """Embed (B, C, H, W) to (B, N, h', w')."""
        return self.gate.pooled(x, self.dictionary, self._maps(), self.pool)

    def usage(self, x: Tensor) -> Tensor:
        """How often each atom is near, over images and positions of (B, C, H, W): (N,)."""
        return self.gate.usage(x, self.dictionary, self._maps())

    def patterns(self) -> Tensor:
        """The patch that each atom stands for, (N, P)."""
        return self.gate.patterns(self.dictionary, self._maps())

    def _maps(self) -> Tensor | None:
        """The maps as they act on patches, (P+1, N), or None."""
        return None if self.maps is None else self.maps(self.dictionary)


@EMBEDDINGS("full")
class Full(Embedding):
    """A linear map of the patch per near atom, a_j = g_j·(u_jᵀz + b_j): the linear model on Φ_full."""

    def __init__(self, dictionary: PatchDictionary, gate: Gate, maps: str, pool: int) -> None:
        super().__init__(dictionary, gate, maps, pool)
        self.maps = MAPS[maps](dictionary)


@EMBEDDINGS("hard")
class Hard(Embedding):
    """Only which atoms are near, a_j = g_j: Φ_hard."""


class Factors(Embedding):
    """Φ_full itself, as the factors of its products g_j·z: the gates and the patch, for a probe to multiply.

    For arguments see `Embedding`; a map, which the probe has, is of whitened patches or of patches as they are.
    """

    def __init__(self, dictionary: PatchDictionary, gate: Gate, maps: str, pool: int) -> None:
        super().__init__(dictionary, gate, maps, pool)
        self.channels = sum(dictionary.atoms.shape)
        self.argument = MAPS[maps].argument

    def forward(self, x: Tensor) -> Tensor:
        """Embed (B, C, H, W) to (B, N+P, h, w)."""
        patches = self.argument(self.dictionary, ops.extract_patches(x, self.gate.patch_size))
        return torch.cat([self.gate.pooled(x, self.dictionary, None, 1), patches.permute(0, 3, 1, 2)], 1)
