"""What a layer can be told: seven everyday names, and its parts.

A choice is named in the file that implements it (`layerwise.config.choices`); a range stands beside its field.
"""

from dataclasses import dataclass, field
from typing import Literal

from layerwise.config import choices
from layerwise.config.checks import at_least, number, setting


@dataclass(frozen=True)
class Whitening:
    """How patches are whitened."""

    kind: str = setting("pca", choices.WHITENINGS)
    """the coordinates of whitened patches"""
    epsilon: float = setting(0.03, number(0.03, below=1e6, zero=True))
    """regularizes the eigenvalues, see formula"""
    formula: str = setting("variance", choices.FORMULAS)
    """what a direction is multiplied by"""
    center: bool = True
    """subtract the mean patch first"""


@dataclass(frozen=True)
class Sampling:
    """The patches that whitening and dictionary are learned from."""

    patches: int | None = setting(None, at_least(1))
    """number M of sampled patches; null: 256 an atom"""
    pixels: str = setting("input", choices.PIXELS)
    """range of the pixels they are sampled from"""


@dataclass(frozen=True)
class Gate:
    """Which atoms are near a patch."""

    kind: str = setting("nearest", choices.GATES)
    """how much of each atom's map a patch gets"""
    metric: str = setting("euclidean", choices.METRICS)
    """the distance that decides which atoms are near"""


@dataclass(frozen=True)
class Maps:
    """The linear maps, one for each atom."""

    kind: str = setting("whitened", choices.MAPS)
    """what they act on"""


@dataclass(frozen=True)
class Norm:
    """Normalization of the averaged embedding."""

    kind: str = setting("batch", choices.NORMS)
    """the statistics it uses"""
    eps: float = setting(1e-5, number(1e-5))
    """added to the variances; 0.01 keeps atoms that are seldom near from being blown up"""


@dataclass(frozen=True)
class Residual:
    """What is done with the layer's input beside embedding it."""

    kind: str = setting("none", choices.RESIDUALS)
    """whether it is appended to the output"""


@dataclass(frozen=True)
class Probe:
    """The linear classifier on the layer's output."""

    kind: str = setting("linear", choices.PROBES)
    """what it is linear in"""
    pool: int = setting(1, at_least(1))
    """side of the windows over which the output is averaged for the probe alone"""
    dropout: float = setting(0.0, number(0.3, below=1, zero=True))
    """share of what it is given that is left out of a step, at random: for layers that fit training images too well"""
    init: str = setting("zero", choices.STARTS)
    """its first weights"""
    logits: Literal["summed", "averaged", "own"] = "summed"
    """summed: corrects those of the layers below; averaged: trained alone, a stack says the mean; own: starts anew"""


@dataclass(frozen=True)
class Layer:
    """One layer: its dictionary, its embedding, its output."""

    input: Literal["below", "images"] = "below"
    """what it is given. below: what the layer below hands on; images: the images anew, so that another column begins;
    with averaged logits its layers join in the mean"""
    patch_size: int = setting(3, at_least(1))
    """side s of the patches, in pixels of the layer's input"""
    atoms: int = setting(256, at_least(1))
    """size N of the dictionary"""
    neighbors: int | None = setting(None, at_least(1))
    """number k of atoms that are near a patch; null: a quarter of the atoms"""
    channels: int | None = setting(64, at_least(1))
    """channels D of the layer's output, a linear projection of the atoms' responses; null: the responses themselves"""
    pool: int = setting(2, at_least(1))
    """side of the windows over which the embedding is averaged"""
    embedding: str = setting("full", choices.EMBEDDINGS)
    """how a patch is described by its near atoms"""
    output: Literal["channels", "gates"] = "channels"
    """what is handed on to the next layer. channels: what the probe reads; gates: which atoms are near, in as many
    principal components: what the layer itself learned from labels has no part in it"""
    dictionary: str = setting("kmeans", choices.DICTIONARIES)
    """where the atoms come from"""
    mirror: bool = False
    """answer to an image just as to its mirror image: atoms come in pairs, of which one is the other, mirrored"""
    whitening: Whitening = field(default_factory=Whitening)
    sampling: Sampling = field(default_factory=Sampling)
    gate: Gate = field(default_factory=Gate)
    maps: Maps = field(default_factory=Maps)
    norm: Norm = field(default_factory=Norm)
    residual: Residual = field(default_factory=Residual)
    probe: Probe = field(default_factory=Probe)

    @property
    def k(self) -> int:
        """Neighbors, filled in where null."""
        return self.neighbors if self.neighbors is not None else max(1, self.atoms // 4)

    def sees_images(self, number: int) -> bool:
        """Whether it is given images as layer `number`, from 1."""
        return number == 1 or self.input == "images"

    @property
    def sample(self) -> int:
        """Sampled patches, filled in where null."""
        return self.sampling.patches if self.sampling.patches is not None else 256 * self.atoms

    def conflict(self) -> tuple[str, str] | None:
        """Two settings that do not go together: the one to name, and what to say of it; None where all do."""
        if self.k > self.atoms:
            return "neighbors", f"{self.k} of {self.atoms} atoms; give at most as many neighbors as atoms"
        if self.atoms > self.sample:
            few = f"{self.sample} sampled patches for {self.atoms} atoms"
            return "sampling.patches", f"{few}; give at least as many patches as atoms, or null"
        if self.mirror and self.atoms % 2:
            return "atoms", f"{self.atoms}, but with mirror they come in pairs; give an even number"
        if self.mirror and self.channels is not None and self.channels % 2:
            return "channels", f"{self.channels}, but with mirror they come in pairs; give an even number"
        if self.mirror and self.k % 2 and self.gate.kind == "nearest":
            a_quarter = " (a quarter of the atoms)" if self.neighbors is None else ""
            odd = f"{self.k}{a_quarter}, but of a pair that is equally near one would be left out"
            return "neighbors", f"{odd} with mirror; give an even number"
        if self.mirror and self.gate.kind == "kth":
            one = "kth, but of a pair that is equally near that is one, and the other for the mirror image"
            return "gate.kind", f"{one}; give nearest, or mirror false"
        if self.gate.metric == "cosine" and self.dictionary == "kmeans_gaussian":
            drawn = "kmeans_gaussian, but the patches that it draws have no unit norm, as cosine wants"
            return "dictionary", f"{drawn}; give gaussian or kmeans, or gate.metric euclidean"
        if self.gate.metric == "cosine" and self.gate.kind != "nearest":
            return "gate.metric", f"cosine goes with the gate nearest, not {self.gate.kind}; change either"
        if self.output == "gates":
            if self.gate.kind != "nearest":
                return "output", f"gates, which only the gate nearest has, not {self.gate.kind}; give channels"
            if self.channels is None or self.channels > self.atoms:
                held = "null" if self.channels is None else self.channels
                return "output", f"gates, of {self.atoms} atoms in {held} channels; give 1 to {self.atoms} channels"
            if self.k == self.atoms:
                few = f"{self.k} of {self.atoms} atoms, but where all are near, gates say nothing"
                return "neighbors", f"{few}; give fewer neighbors, or channels as output"
        if self.gate.kind == "relu" and (self.embedding != "full" or self.probe.kind == "unconstrained"):
            return "gate.kind", "relu is the sign of a map, but here there are no maps; change gate, embedding or probe"
        if self.probe.kind == "unconstrained":
            if self.mirror:
                return "mirror", "true, but the unconstrained probe classifies the embedding as it is; give false"
            bare = {"pool": (self.pool, 1), "norm.kind": (self.norm.kind, "none"), "channels": (self.channels, None)}
            bare |= {"residual.kind": (self.residual.kind, "none"), "probe.pool": (self.probe.pool, 1)}
            bare |= {"probe.dropout": (self.probe.dropout, 0.0)}
            for name, (value, only) in (bare | {"embedding": (self.embedding, "full")}).items():
                if value != only:
                    reason = "the unconstrained probe classifies the embedding as it is"
                    return name, f"{value}, but {reason}; give {'null' if only is None else only}"
        return None
