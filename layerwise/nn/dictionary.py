"""A layer's fixed part: the whitening of its patches and the dictionary of atoms (paper, section 3).

Shapes: P patch dimension, N atoms, M sampled patches.
"""

from collections.abc import Mapping
from inspect import signature

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from layerwise.config import Whitening
from layerwise.config.choices import DICTIONARIES, METRICS
from layerwise.nn.components import a_few, gate_components
from layerwise.nn.kmeans import Progress, kmeans
from layerwise.nn.mirror import Mirror, mirror_of
from layerwise.nn.whitening import fit_whitening
from layerwise.ops import chunks, exactly, unfolded

ITERATIONS = 25  # of k-means, at most


@DICTIONARIES("kmeans")
def clustered(
    patches: Tensor, count: int, generator: torch.Generator, progress: Progress, mirror: Mirror | None = None
) -> Tensor:
    """The centroids of whitened patches: the paper's choice."""
    return kmeans(patches, count, ITERATIONS, generator, progress=progress, mirror=mirror)


@DICTIONARIES("sampled")
def sampled(patches: Tensor, count: int, generator: torch.Generator, progress: Progress) -> Tensor:
    """Whitened patches of the data as they are."""
    return patches[torch.randperm(len(patches), generator=generator)[:count].to(patches.device)]


@DICTIONARIES("plus_minus")
def plus_minus(patches: Tensor, count: int, generator: torch.Generator, progress: Progress) -> Tensor:
    """Whitened patches of the data, of unit norm, each beside its negative (Thiry et al. 2021)."""
    half = F.normalize(sampled(patches, -(-count // 2), generator, progress), dim=1)
    return torch.cat([half, -half])[:count]


@DICTIONARIES("gaussian")
def gaussian(patches: Tensor, count: int, generator: torch.Generator, progress: Progress) -> Tensor:
    """Standard normal atoms, in the data's whitened space."""
    return torch.randn(count, patches.shape[1], generator=generator).to(patches)


@DICTIONARIES("uniform")
def uniform(patches: Tensor, count: int, generator: torch.Generator, progress: Progress) -> Tensor:
    """Uniform atoms of mean 0 and variance 1, in the data's whitened space."""
    return ((torch.rand(count, patches.shape[1], generator=generator) * 2 - 1) * 3**0.5).to(patches)


@DICTIONARIES("kmeans_gaussian")
def clustered_gaussian(
    patches: Tensor, count: int, generator: torch.Generator, progress: Progress, mirror: Mirror | None = None
) -> Tensor:
    """The centroids of standard normal patches, as many as were sampled: the authors' random patches."""
    drawn = patches.cpu().normal_(generator=generator)  # in place of those that were sampled, whose room they take
    return clustered(patches.copy_(drawn), count, generator, progress, mirror)


@METRICS("euclidean")
def by_distance(points: Tensor) -> Tensor:
    """Of whitened patches."""
    return points


@METRICS("cosine")
def by_direction(points: Tensor) -> Tensor:
    """The angle: patches are clustered, and atoms kept, at unit norm."""
    return F.normalize(points, dim=1)


class PatchDictionary(nn.Module):
    """Whitening and atoms, as buffers: they never change once they are learned.

    With `mirror`, which says where each number of a mirrored patch comes from, atoms are in pairs: the second half is
    the first half, mirrored. With `components`, which atoms are near is told in short, too: see `gate_components`.
    """

    mean: Tensor  # (P,)
    whitening: Tensor  # (P, P)
    atoms: Tensor  # (N, P), in whitened coordinates
    mirror: Tensor | None  # (P,) int64
    components: Tensor | None  # (N, D)
    scorer: Tensor  # (P+1, N); see `layerwise.ops.embed`

    def __init__(
        self,
        mean: Tensor,
        whitening: Tensor,
        atoms: Tensor,
        mirror: Tensor | None = None,
        components: Tensor | None = None,
    ) -> None:
        super().__init__()
        held = {"mean": mean, "whitening": whitening, "atoms": atoms, "mirror": mirror, "components": components}
        for name, value in held.items():  # as they are read from a file: in another order products round in another way
            self.register_buffer(name, None if value is None else value.contiguous())
        order, signs = (None, None) if mirror is None else mirror_of(whitening, mirror)
        self.register_buffer("_order", order, persistent=False)
        self.register_buffer("_signs", signs, persistent=False)
        factors = whitening.diagonal()
        self._factors = bool(whitening.is_meta or torch.equal(whitening, factors.diag()))  # no direction is turned
        # |z - c|^2 / 2 is |z|^2 / 2, common to all atoms, plus |c|^2 / 2 - c.z
        with exactly():
            scorer = self.unwhiten(-self.atoms.T, self.atoms.square().sum(1) / 2)
        self.register_buffer("scorer", scorer, persistent=False)

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> "PatchDictionary":
        """From what `state_dict` gave; KeyError where it is not that of a dictionary."""
        optional = tensors.get("mirror"), tensors.get("components")
        return cls(tensors["mean"], tensors["whitening"], tensors["atoms"], *optional)

    @property
    def mirrored(self) -> Mirror | None:
        """Mirroring in whitened coordinates, if atoms are in pairs."""
        return None if self.mirror is None else Mirror(self._order, self._signs)  # type: ignore[arg-type]

    def unwhiten(self, weight: Tensor, bias: Tensor) -> Tensor:
        """Turn affine maps of whitened patches, (P, N) and (N,), into maps of patches as they are, (P+1, N).

        Whitening then costs no pass over the patches.
        """
        if self._factors:
            return unfolded(weight, bias, self.whitening.diagonal(), self.mean, None)
        # an atom's numbers lie together, as the embedding reads them
        folded = weight.T @ self.whitening.T
        return torch.cat([folded, (bias - folded @ self.mean)[:, None]], 1).T

    def unwhiten_all(self, weight: Tensor, bias: Tensor) -> Tensor:
        """The same of all atoms' maps, from those of the first of each pair, (P, N/2) and (N/2,), if they are in pairs.

        The second's is to a mirrored patch as the first's is to the patch.
        """
        if self._factors:
            return unfolded(weight, bias, self.whitening.diagonal(), self.mean, self.mirror)
        if (mirror := self.mirrored) is not None:
            weight, bias = mirror.closed(weight.T).T, torch.cat([bias, bias])
        return self.unwhiten(weight, bias)

    def whiten(self, patches: Tensor) -> Tensor:
        """Whiten patches, (..., P)."""
        return (patches - self.mean) @ self.whitening

    def distance(self, patches: Tensor) -> Tensor:
        """Half the squared distance of whitened patches to the atoms: (..., P) as they are to (..., N)."""
        with exactly():
            whitened = self.whiten(patches)
            norms = whitened.square().sum(-1, keepdim=True) / 2 + self.atoms.square().sum(1) / 2
            return (norms - whitened @ self.atoms.T).clamp_min(0)

    def whitened(self) -> Tensor:
        """The atoms as whitened patches, (N, P), each number at its pixel: turned back by whitening's rotation."""
        left, _, right = torch.linalg.svd(self.whitening)
        turned: Tensor = self.atoms @ (left @ right).T
        return turned

    def patterns(self) -> Tensor:
        """The patch that each atom stands for, less the mean patch, (N, P)."""
        undone: Tensor = torch.linalg.pinv(self.whitening)
        return self.atoms @ undone


def learn_dictionary(
    patches: Tensor,
    atoms: int,
    generator: torch.Generator,
    kind: str = "kmeans",
    whitening: Whitening = Whitening(),  # noqa: B008  (frozen)
    metric: str = "euclidean",
    progress: Progress = iter,
    mirror: Tensor | None = None,
    neighbors: int = 0,
    components: int = 0,
) -> PatchDictionary:
    """Learn the whitening of the patches (M, P), then choose atoms, at most M, for the whitened patches.

    The patches are overwritten, since a second sample may not fit into memory: give a clone of what is needed further.
    `kind` names one of `DICTIONARIES`, which draw atoms (N, P) from whitened patches; `metric` names one of `METRICS`,
    which map each patch by itself. The generator is a CPU's; `progress` wraps the iteration numbers. With `mirror`,
    (P,), patches count together with their mirror images, and atoms come in pairs. So many `components` are kept of
    which atoms are near, if any, where so many `neighbors` are. Raises ValueError where all patches
    are the same.
    """
    whiten = fit_whitening(patches, whitening.epsilon, whitening.kind, whitening.formula, whitening.center, mirror)
    variance = float(a_few(patches).var(0).mean()) if components else 0.0
    for part in chunks(patches):
        part.copy_(METRICS[metric](whiten(part)))
    some = a_few(patches).clone() if components else None  # which `choose` may overwrite
    choose = DICTIONARIES[kind]
    if mirror is None:
        chosen = choose(patches, atoms, generator, progress)
    else:
        turn = mirror_of(whiten.matrix, mirror)
        # a dictionary that users define may know nothing of pairs
        known = {"mirror": turn} if "mirror" in signature(choose).parameters else {}
        chosen = turn.closed(turn.apart(choose(patches, atoms // 2, generator, progress, **known), generator))
    kept = METRICS[metric](chosen)
    told = None
    if some is not None:
        told = gate_components(some, kept, neighbors, components, variance, mirror is not None)
    return PatchDictionary(whiten.mean, whiten.matrix, kept, mirror, told)
