"""A layer's fixed part: the whitening of its patches and the dictionary of atoms (paper, section 3).

Shapes: P patch numbers, N atoms, M sampled patches.
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from layerwise.kmeans import kmeans
from layerwise.patches import Whitening, fit_whitening

Progress = Callable[[Iterable[int]], Iterable[int]]
Chooser = Callable[[Tensor, int, int, torch.Generator, Progress], Tensor]


def clustered(patches: Tensor, count: int, iterations: int, generator: torch.Generator, progress: Progress) -> Tensor:
    """The centroids of the whitened patches: the paper's choice."""
    return kmeans(patches, count, iterations, generator, progress=progress)


def sampled(patches: Tensor, count: int, iterations: int, generator: torch.Generator, progress: Progress) -> Tensor:
    """Whitened patches of the data as they are."""
    return patches[torch.randperm(len(patches), generator=generator)[:count].to(patches.device)]


def gaussian(patches: Tensor, count: int, iterations: int, generator: torch.Generator, progress: Progress) -> Tensor:
    """Standard normal atoms, in the data's whitened space."""
    return torch.randn(count, patches.shape[1], generator=generator).to(patches)


def uniform(patches: Tensor, count: int, iterations: int, generator: torch.Generator, progress: Progress) -> Tensor:
    """Uniform atoms of mean 0 and variance 1, in the data's whitened space."""
    return ((torch.rand(count, patches.shape[1], generator=generator) * 2 - 1) * 3**0.5).to(patches)


DICTIONARIES: dict[str, Chooser] = {"kmeans": clustered, "sampled": sampled, "gaussian": gaussian, "uniform": uniform}


class PatchDictionary(nn.Module):
    """Whitening and atoms, as buffers: they never change after `fit`.

    Attributes:
        mean: (P,)
        whitening: (P, P)
        atoms: (N, P), in whitened coordinates
        scorer: (P+1, N); see `layerwise.ops.embed_full`
    """

    mean: Tensor
    whitening: Tensor
    atoms: Tensor
    scorer: Tensor

    def __init__(self, mean: Tensor, whitening: Tensor, atoms: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("whitening", whitening)
        self.register_buffer("atoms", atoms)
        # |z - c|^2 / 2 is |z|^2 / 2, common to all atoms, plus |c|^2 / 2 - c.z
        self.register_buffer("scorer", self.unwhiten(-atoms.T, atoms.square().sum(1) / 2), persistent=False)

    @classmethod
    def fit(
        cls,
        patches: Tensor,
        atoms: int,
        *,
        kind: str,
        epsilon: float,
        iterations: int,
        generator: torch.Generator,
        progress: Progress = lambda steps: steps,
    ) -> "PatchDictionary":
        """Learn the whitening of the patches (M, P), then choose atoms for the whitened patches.

        Args:
            patches: (M, P), M at least `atoms`.
            atoms: N.
            kind: a name in `DICTIONARIES`.
            epsilon: see `fit_whitening`.
            iterations: of k-means, at most.
            generator: a CPU generator.
            progress: wraps the iteration numbers, for a progress bar.
        """
        whiten: Whitening = fit_whitening(patches, epsilon)
        return cls(
            whiten.mean, whiten.matrix, DICTIONARIES[kind](whiten(patches), atoms, iterations, generator, progress)
        )

    def unwhiten(self, weight: Tensor, bias: Tensor) -> Tensor:
        """Turn affine maps of whitened patches, (P, N) and (N,), into maps of patches as they are, (P+1, N).

        Whitening then costs no pass over the patches.
        """
        folded = self.whitening @ weight
        return torch.cat([folded, (bias - self.mean @ folded)[None]])
