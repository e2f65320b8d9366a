"""The embedding of a layer's input: gates, times maps or alone, averaged over windows (paper, section 3).

The maps are the trained part of Phi_full: one affine map of the patch for each atom, shared over positions.

Shapes: B batch, C channels in, H W image side, P patch dimension, N atoms, h' w' output side.
"""

from collections.abc import Callable
from inspect import signature

import torch
from torch import Tensor, nn

from layerwise import ops
from layerwise.config.choices import EMBEDDINGS, MAPS
from layerwise.nn.dictionary import PatchDictionary
from layerwise.nn.gates import Gate


class AffineMaps(nn.Module):
    """u_j and b_j of each atom j, as they are trained: weight (P, N) and bias (N,); of pairs, of the first (N/2)."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(bias)


def _first(dictionary: PatchDictionary) -> tuple[int, int]:
    """How many atoms have maps of their own, and the patch dimension."""
    atoms, dimension = dictionary.atoms.shape
    return atoms if dictionary.mirror is None else atoms // 2, dimension


@MAPS("whitened")
class WhitenedMaps(AffineMaps):
    """Whitened patches, so that one learning rate and one decay suit every direction."""

    def __init__(self, dictionary: PatchDictionary) -> None:
        atoms, dimension = _first(dictionary)
        super().__init__(torch.randn(dimension, atoms) / dimension**0.5, torch.zeros(atoms))

    def forward(self, dictionary: PatchDictionary) -> Tensor:
        """The maps as they act on patches that are not whitened, (P+1, N)."""
        return dictionary.unwhiten_all(self.weight, self.bias)

    @staticmethod
    def argument(dictionary: PatchDictionary, patches: Tensor) -> Tensor:
        """What a map acts on, (..., P)."""
        return dictionary.whiten(patches)


@MAPS("raw")
class RawMaps(AffineMaps):
    """Patches as they are, with weights begun as PyTorch begins a convolution: what the authors train."""

    def __init__(self, dictionary: PatchDictionary) -> None:
        atoms, dimension = _first(dictionary)
        weight = torch.empty(dimension, atoms).uniform_(-1, 1) / dimension**0.5
        super().__init__(weight, torch.empty(atoms).uniform_(-1, 1) / dimension**0.5)

    def forward(self, dictionary: PatchDictionary) -> Tensor:
        """The maps, (P+1, N)."""
        ones, zeros = torch.ones_like(dictionary.mean), torch.zeros_like(dictionary.mean)
        return ops.unfolded(self.weight, self.bias, ones, zeros, dictionary.mirror)

    @staticmethod
    def argument(dictionary: PatchDictionary, patches: Tensor) -> Tensor:
        """What a map acts on, (..., P)."""
        return patches


class Embedding(nn.Module):
    """What describes a patch by its near atoms, averaged over windows of side `pool`; `maps` names one of `MAPS`."""

    def __init__(self, dictionary: PatchDictionary, gate: Gate, maps: str, pool: int) -> None:
        super().__init__()
        self.dictionary = dictionary
        self.gate = gate
        self.pool = pool
        self.maps: nn.Module | None = None
        self.channels = len(dictionary.atoms)

    def forward(self, x: Tensor, near: Tensor | None = None, wider: int = 1) -> Tensor:
        """Embed (B, C, H, W) to (B, N, h', w'); `near`, where it is known, is what `ask` says of x.

        Windows are so many times as wide as `pool` says.
        """
        known = () if near is None else (near,)
        return self.gate.pooled(x, self.dictionary, self._maps(), self.pool * wider, *known)

    @property
    def widens(self) -> bool:
        """Whether windows can be wider; not of an embedding that is defined elsewhere, in its own way."""
        return type(self).forward is Embedding.forward

    def gathered(self, x: Tensor, near: Tensor | None = None, wider: int = 1) -> tuple[Tensor, Tensor] | None:
        """`forward` without its zeros, as `layerwise.ops.gather` says; None where the gate or the embedding cannot."""
        pool = self.pool * wider
        if self.maps is None or not self.widens or not self.gate.gathers(x, self.channels, pool):
            return None
        maps, gate = self._maps(), self.gate
        assert maps is not None
        if near is None and (ask := gate.ask(self.dictionary)):
            near = ask(x)
        return ops.gather(x, self.dictionary.scorer, maps, gate.patch_size, gate.neighbors, pool, near)

    @property
    def ask(self) -> Callable[[Tensor], Tensor] | None:
        """What tells which atoms are near, (B, C, H, W) to (B, h, w, S), as it never changes; None of other gates."""
        # embeddings and gates that users define may take no such thing
        take = all("near" in signature(method).parameters for method in (self.forward, self.gate.pooled))
        return self.gate.ask(self.dictionary) if take else None

    def gates(self, x: Tensor) -> Tensor:
        """The gate of each atom at each position of (B, C, H, W): (B, N, h, w)."""
        return self.gate.values(x, self.dictionary, self._maps())

    def usage(self, x: Tensor) -> Tensor:
        """How often each atom is near, over images and positions of (B, C, H, W): (N,)."""
        return self.gate.usage(x, self.dictionary, self._maps())

    def answers(self, x: Tensor) -> Tensor:
        """How much each atom answers to each patch, (B, C, H, W) to (B, h, w, N); comparable for one atom only."""
        return self.gate.answers(x, self.dictionary, self._maps())

    def patterns(self) -> Tensor:
        """The patch that each atom stands for, (N, P)."""
        return self.gate.patterns(self.dictionary, self._maps())

    def kernels(self) -> Tensor | None:
        """The maps as they act on patches, less their offsets, (N, P); None where there are none."""
        maps = self._maps()
        return None if maps is None else maps[:-1].T.detach()

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

    The maps, which the probe has, are of whitened patches or of patches as they are, as `maps` says.
    """

    def __init__(self, dictionary: PatchDictionary, gate: Gate, maps: str, pool: int) -> None:
        super().__init__(dictionary, gate, maps, pool)
        self.channels = sum(dictionary.atoms.shape)
        self.argument = MAPS[maps].argument

    def forward(self, x: Tensor, near: Tensor | None = None, wider: int = 1) -> Tensor:
        """Embed (B, C, H, W) to (B, N+P, h, w): there are no windows, however wide."""
        known = () if near is None else (near,)
        patches = self.argument(self.dictionary, ops.extract_patches(x, self.gate.patch_size))
        return torch.cat([self.gate.pooled(x, self.dictionary, None, 1, *known), patches.permute(0, 3, 1, 2)], 1)
