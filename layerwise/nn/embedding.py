"""The embedding of a layer's input: gates, times maps or alone, averaged over windows (paper, section 3).

Shapes: B batch, C channels in, H W image side, P patch numbers, N atoms, h' w' output side.
"""

import torch
from torch import Tensor, nn

from layerwise import ops
from layerwise.config.layer import LayerConfig
from layerwise.nn.dictionary import PatchDictionary
from layerwise.nn.gates import GATES
from layerwise.nn.pooling import POOLINGS
from layerwise.ops.patches import extract_patches
from layerwise.ops.reference import affine, average_pool


class WhitenedMaps(nn.Module):
    """One affine map of the whitened patch for each atom, so that one rate and one decay suit every direction."""

    def __init__(self, dictionary: PatchDictionary) -> None:
        super().__init__()
        atoms, numbers = dictionary.atoms.shape
        self.weight = nn.Parameter(torch.randn(numbers, atoms) / numbers**0.5)
        self.bias = nn.Parameter(torch.zeros(atoms))

    def forward(self, dictionary: PatchDictionary) -> Tensor:
        """The maps as they act on patches, (P+1, N)."""
        return dictionary.unwhiten(self.weight, self.bias)


class RawMaps(nn.Module):
    """One affine map of the patch as it is, begun as PyTorch begins a convolution: what the authors train."""

    def __init__(self, dictionary: PatchDictionary) -> None:
        super().__init__()
        atoms, numbers = dictionary.atoms.shape
        self.weight = nn.Parameter(torch.empty(numbers, atoms).uniform_(-1, 1) / numbers**0.5)
        self.bias = nn.Parameter(torch.empty(atoms).uniform_(-1, 1) / numbers**0.5)

    def forward(self, dictionary: PatchDictionary) -> Tensor:
        """The maps, (P+1, N)."""
        return torch.cat([self.weight, self.bias[None]])


class NoMaps(nn.Module):
    """Nothing is mapped: each atom answers with its gate, Phi_hard."""

    def __init__(self, dictionary: PatchDictionary) -> None:
        super().__init__()

    def forward(self, dictionary: PatchDictionary) -> None:
        """No maps."""
        return


MAPS: dict[str, type[WhitenedMaps | RawMaps | NoMaps]] = {"whitened": WhitenedMaps, "raw": RawMaps, "none": NoMaps}


GATES_TOGETHER = 1 << 25  # numbers (images, positions, atoms) at a time: 128 MiB of float32 for each step of a gate


class PatchEmbedding(nn.Module):
    """a_j = g_j * (u_j . z + b_j), or a_j = g_j: the linear model on Phi_full with one map per atom, or Phi_hard.

    Args:
        dictionary: the layer's fixed part.
        config: the layer's settings.
    """

    def __init__(self, dictionary: PatchDictionary, config: LayerConfig) -> None:
        super().__init__()
        self.dictionary = dictionary
        self.config = config
        self.channels = config.atoms
        self.maps = MAPS[config.maps if config.embedding == "full" else "none"](dictionary)
        if config.learn_atoms:
            self.atoms = nn.Parameter(dictionary.atoms.clone())

    def forward(self, x: Tensor) -> Tensor:
        """Embed (B, C, H, W) to (B, N, h', w')."""
        maps: Tensor | None = self.maps(self.dictionary)
        return POOLINGS[self.config.pooling](lambda window: self._averaged(x, maps, window), self.config)

    def patterns(self) -> Tensor:
        """The patch that each atom stands for, less the mean patch, (N, P)."""
        undone: Tensor = torch.linalg.pinv(self.dictionary.whitening)
        return self._atoms().detach() @ undone

    def usage(self, x: Tensor) -> Tensor:
        """The mean of each atom's gate over images and positions, (N,)."""
        return self._averaged(x, None, max(x.shape[2:])).mean((0, 2, 3))

    def _atoms(self) -> Tensor:
        return self.atoms if self.config.learn_atoms else self.dictionary.atoms

    def _averaged(self, x: Tensor, maps: Tensor | None, window: int) -> Tensor:
        size, k = self.config.patch_size, self.config.k
        if self.config.gate == "nearest":
            return ops.embed(x, self.dictionary.scorer, maps, size, k, window)
        together = max(1, GATES_TOGETHER // (x.shape[2] * x.shape[3] * self.config.atoms))
        return torch.cat([self._gated(part, maps, window) for part in torch.split(x, together)])

    def _gated(self, x: Tensor, maps: Tensor | None, window: int) -> Tensor:
        patches = extract_patches(x, self.config.patch_size)
        gate = GATES[self.config.gate](self.dictionary.distance(patches, self._atoms()), self.config.k)
        gated = gate if maps is None else gate * affine(patches, maps)
        return average_pool(gated.permute(0, 3, 1, 2), window)


class Factors(PatchEmbedding):
    """Phi_full itself, as the factors of its products g_j * z: the gates and the patch, for a probe to multiply.

    Args:
        dictionary: the layer's fixed part.
        config: the layer's settings.
    """

    def __init__(self, dictionary: PatchDictionary, config: LayerConfig) -> None:
        super().__init__(dictionary, config)
        self.channels = sum(dictionary.atoms.shape)

    def forward(self, x: Tensor) -> Tensor:
        """Embed (B, C, H, W) to (B, N+P, h, w)."""
        patches = extract_patches(x, self.config.patch_size)
        if self.config.maps == "whitened":
            patches = (patches - self.dictionary.mean) @ self.dictionary.whitening
        return torch.cat([self._averaged(x, None, 1), patches.permute(0, 3, 1, 2)], 1)


class Convolution(nn.Module):
    """a_j = max(0, u_j . z + b_j): a convolution with as many kernels as there would be atoms, the paper's vanilla CNN.

    Args:
        dictionary: gives the whitening that the maps act on; its atoms have no part in it.
        config: the layer's settings.
    """

    def __init__(self, dictionary: PatchDictionary, config: LayerConfig) -> None:
        super().__init__()
        self.dictionary = dictionary
        self.config = config
        self.channels = config.atoms
        self.maps = MAPS[config.maps](dictionary)

    def forward(self, x: Tensor) -> Tensor:
        """Embed (B, C, H, W) to (B, N, h', w')."""
        return POOLINGS[self.config.pooling](lambda window: self._averaged(x, window), self.config)

    def patterns(self) -> Tensor:
        """The kernels, (N, P)."""
        maps: Tensor = self.maps(self.dictionary)
        return maps[:-1].T.detach()

    def usage(self, x: Tensor) -> Tensor:
        """The share of images and positions at which each kernel answers, (N,)."""
        return self._averaged(x, 1).sign().mean((0, 2, 3))

    def _averaged(self, x: Tensor, window: int) -> Tensor:
        return ops.convolve(x, self.maps(self.dictionary), self.config.patch_size, window)


EMBEDDINGS: dict[str, type[PatchEmbedding | Convolution]] = {
    "full": PatchEmbedding,
    "hard": PatchEmbedding,
    "unconstrained": Factors,
    "relu": Convolution,
}
