"""Gates: how much of each atom's map a patch gets.

Shapes: B batch, C channels, H W image side, s patch side, P patch dimension, N atoms, k neighbors, h' w' windows.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from layerwise import ops
from layerwise.config.choices import GATES
from layerwise.nn.dictionary import PatchDictionary

TOGETHER = 1 << 25  # elements (images, positions, atoms) that plain torch processes at once: 128 MiB of float32


@dataclass(eq=False)
class Gate(ABC):
    """What multiplies the maps of a patch."""

    patch_size: int
    neighbors: int

    @abstractmethod
    def pooled(self, x: Tensor, dictionary: PatchDictionary, maps: Tensor | None, window: int) -> Tensor:
        """Average g_j·(u_jᵀz + b_j), or without maps g_j alone, over windows: (B, C, H, W) to (B, N, h', w').

        Maps are (P+1, N), the last row the offsets; a window at the border averages what it covers.
        """

    def gathers(self, x: Tensor, atoms: int, window: int) -> bool:
        """Whether `pooled` can be had without its zeros, by `layerwise.ops.gather`, and that pays."""
        return False

    def ask(self, dictionary: PatchDictionary) -> Callable[[Tensor], Tensor] | None:
        """What tells of (B, C, H, W) which atoms are near, (B, h, w, S), and can be given to `pooled`; or None."""
        return None

    def values(self, x: Tensor, dictionary: PatchDictionary, maps: Tensor | None) -> Tensor:
        """g_j of each atom at each position, (B, N, h, w)."""
        return self.pooled(x, dictionary, None, 1)

    def usage(self, x: Tensor, dictionary: PatchDictionary, maps: Tensor | None) -> Tensor:
        """The mean of each atom's gate over images and positions, (N,)."""
        return self.pooled(x, dictionary, None, max(x.shape[2:])).mean((0, 2, 3))

    def answers(self, x: Tensor, dictionary: PatchDictionary, maps: Tensor | None) -> Tensor:
        """A number that is the higher, the more an atom's gate answers to a patch: (B, C, H, W) to (B, h, w, N)."""
        return -dictionary.distance(ops.extract_patches(x, self.patch_size))

    def patterns(self, dictionary: PatchDictionary, maps: Tensor | None) -> Tensor:
        """The patch that each gate responds to most, less the mean patch, (N, P)."""
        return dictionary.patterns()


def overlap(values: Tensor) -> float | None:
    """How alike the gates (B, N, h, w) of horizontally adjacent patches are: the mean Jaccard index, in [0, 1].

    Of two patches it is the sum over atoms of the lower gate, divided by that of the higher one: of gates that are 0 or
    1, the share of the atoms that are near either patch which are near both. None where no two patches are adjacent.
    """
    left, right = values[..., :-1], values[..., 1:]
    if not left.numel():
        return None
    both, either = torch.minimum(left, right).sum(1), torch.maximum(left, right).sum(1)
    return float((both / either.clamp_min(1e-12)).mean())


@GATES("nearest")
class Nearest(Gate):
    """1 for the k nearest atoms, of equally near ones those with the lowest index: the paper's gate."""

    def pooled(
        self, x: Tensor, dictionary: PatchDictionary, maps: Tensor | None, window: int, near: Tensor | None = None
    ) -> Tensor:
        """By the compiled operator; `near` says which atoms those are, where it is known."""
        if near is None and dictionary.mirror is not None and not torch.compiler.is_exporting():
            near = self.ask(dictionary)(x)  # which knows of pairs
        return ops.embed(x, dictionary.scorer, maps, self.patch_size, self.neighbors, window, near)

    def gathers(self, x: Tensor, atoms: int, window: int) -> bool:
        """Where few atoms are near to a window; not of a gate that pools in its own way."""
        own = type(self).pooled is Nearest.pooled
        return own and ops.gathers(x, atoms, self.neighbors, window)

    def ask(self, dictionary: PatchDictionary) -> Callable[[Tensor], Tensor]:
        """By the compiled operator."""
        return lambda x: ops.near(x, dictionary.scorer, self.patch_size, self.neighbors, dictionary.mirror)


@GATES("relu")
class Relu(Gate):
    """1 where the atom's own map is positive: a plain convolution with ReLU, the paper's vanilla CNN."""

    def pooled(self, x: Tensor, dictionary: PatchDictionary, maps: Tensor | None, window: int) -> Tensor:
        """By the compiled operator; the dictionary's atoms have no part in it."""
        assert maps is not None, "the sign of a map needs a map"
        return ops.convolve(x, maps, self.patch_size, window)

    def values(self, x: Tensor, dictionary: PatchDictionary, maps: Tensor | None) -> Tensor:
        """1 where the map is positive."""
        return self.pooled(x, dictionary, maps, 1).sign()

    def usage(self, x: Tensor, dictionary: PatchDictionary, maps: Tensor | None) -> Tensor:
        """The share of images and positions at which each map is positive, (N,)."""
        return self.values(x, dictionary, maps).mean((0, 2, 3))

    def answers(self, x: Tensor, dictionary: PatchDictionary, maps: Tensor | None) -> Tensor:
        """The maps' values."""
        assert maps is not None
        return ops.affine(ops.extract_patches(x, self.patch_size), maps)

    def patterns(self, dictionary: PatchDictionary, maps: Tensor | None) -> Tensor:
        """The kernels."""
        assert maps is not None
        return maps[:-1].T.detach()


class DistanceGate(Gate):
    """A gate that follows from the distances alone, computed in plain torch; a new one overrides `weights`."""

    @abstractmethod
    def weights(self, distance: Tensor, k: int) -> Tensor:
        """A weight for each atom, (..., N), from half the squared distances (..., N) and k."""

    def pooled(self, x: Tensor, dictionary: PatchDictionary, maps: Tensor | None, window: int) -> Tensor:
        """A few images at a time, since all gates of a batch can be many; in an exported program all."""
        if torch.compiler.is_exporting():  # for batches of any size, whose parts it cannot count
            return self._pooled(x, dictionary, maps, window)
        step = max(1, TOGETHER // (x.shape[2] * x.shape[3] * len(dictionary.atoms)))
        return torch.cat([self._pooled(part, dictionary, maps, window) for part in torch.split(x, step)])

    def _pooled(self, x: Tensor, dictionary: PatchDictionary, maps: Tensor | None, window: int) -> Tensor:
        patches = ops.extract_patches(x, self.patch_size)
        gate = self.weights(dictionary.distance(patches), self.neighbors)
        gated = gate if maps is None else gate * ops.affine(patches, maps)
        return ops.average_pool(gated.permute(0, 3, 1, 2), window)


@GATES("kth")
class Kth(DistanceGate):
    """1 for the k-th nearest atom alone."""

    def weights(self, distance: Tensor, k: int) -> Tensor:
        """Zeros, and a one for each patch."""
        near = ops.nearest_mask(distance, k)
        return (near & ~ops.nearest_mask(distance, k - 1) if k > 1 else near).to(distance.dtype)


@GATES("soft")
class Soft(DistanceGate):
    """A sigmoid that is 1/2 at the k-th nearest atom and falls with distance (Thiry et al. 2021)."""

    def weights(self, distance: Tensor, k: int) -> Tensor:
        """The sigmoid's unit is a quarter of the patch's standard deviation over atoms."""
        threshold = ops.kth_lowest(distance, k)
        unit = distance.std(-1, keepdim=True, correction=0).clamp_min(1e-12) / 4
        return ((threshold - distance) / unit).sigmoid()


@GATES("triangle")
class Triangle(DistanceGate):
    """By how much an atom is nearer than atoms are on average, else 0 (Coates, Ng & Lee 2011), whatever k is."""

    def weights(self, distance: Tensor, k: int) -> Tensor:
        """In units of Euclidean distance."""
        plain = (2 * distance.clamp_min(1e-12)).sqrt()
        return (plain.mean(-1, keepdim=True) - plain).relu()
