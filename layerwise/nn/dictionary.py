"""A layer's fixed part: the whitening of its patches and the dictionary of atoms (paper, section 3).

Shapes: P patch numbers, N atoms, M sampled patches.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from layerwise.config.layer import LayerConfig
from layerwise.nn.kmeans import Progress, kmeans
from layerwise.nn.whitening import fit_whitening

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


def clustered_gaussian(
    patches: Tensor, count: int, iterations: int, generator: torch.Generator, progress: Progress
) -> Tensor:
    """The centroids of standard normal patches, as many as were sampled: the authors' random patches."""
    return clustered(gaussian(patches, len(patches), 0, generator, progress), count, iterations, generator, progress)


DICTIONARIES: dict[str, Chooser] = {
    "kmeans": clustered,
    "sampled": sampled,
    "gaussian": gaussian,
    "uniform": uniform,
    "kmeans_gaussian": clustered_gaussian,
}


class PatchDictionary(nn.Module):
    """Whitening and atoms, as buffers: they never change after `fit`.

    Attributes:
        mean: (P,)
        whitening: (P, P)
        atoms: (N, P), in whitened coordinates
        scorer: (P+1, N); see `layerwise.ops.embed`
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
        config: LayerConfig,
        generator: torch.Generator,
        progress: Progress = lambda steps: steps,
    ) -> "PatchDictionary":
        """Learn the whitening of the patches (M, P), then choose atoms for the whitened patches.

        Args:
            patches: (M, P), M at least the number of atoms.
            config: the layer's settings.
            generator: a CPU generator.
            progress: wraps the iteration numbers, for a progress bar.

        Raises:
            ValueError: all patches are the same.
        """
        whiten = fit_whitening(patches, config.whitening, config.whitening_kind, config.whitening_scale, config.center)
        whitened = whiten(patches)
        if config.metric == "cosine":
            whitened = F.normalize(whitened, dim=1)
        choose, count = DICTIONARIES[config.dictionary], config.atoms // 2 if config.pairs else config.atoms
        atoms = choose(whitened, count, config.kmeans_iterations, generator, progress)
        if config.pairs:
            atoms = torch.cat([atoms, -atoms])
        if config.metric == "cosine":
            atoms = F.normalize(atoms, dim=1)
        return cls(whiten.mean, whiten.matrix, atoms)

    def unwhiten(self, weight: Tensor, bias: Tensor) -> Tensor:
        """Turn affine maps of whitened patches, (P, N) and (N,), into maps of patches as they are, (P+1, N).

        Whitening then costs no pass over the patches.
        """
        folded = self.whitening @ weight
        return torch.cat([folded, (bias - self.mean @ folded)[None]])

    def distance(self, patches: Tensor, atoms: Tensor) -> Tensor:
        """Half the squared distance of whitened patches to atoms (N, P), such as `self.atoms`.

        Args:
            patches: (..., P), as they are.
            atoms: (N, P).

        Returns:
            (..., N).
        """
        whitened = (patches - self.mean) @ self.whitening
        norms = whitened.square().sum(-1, keepdim=True) / 2 + atoms.square().sum(1) / 2
        return (norms - whitened @ atoms.T).clamp_min(0)
