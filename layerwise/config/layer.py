"""What a single layer can be told, as a plain frozen dataclass; standard library alone, as in `layerwise.config.run`."""

import dataclasses
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class LayerConfig:
    """One layer: its dictionary, its embedding, its output."""

    patch_size: int = 3
    """side s of the patches, in pixels of the layer's input"""
    atoms: int = 256
    """size N of the dictionary"""
    neighbors: int | None = None
    """atoms k that are near a patch; unset: a quarter of the atoms"""
    channels: int = 64
    """channels D of the layer's output"""
    embedding: Literal["full", "hard", "unconstrained", "relu"] = "full"
    """full: a linear map per near atom; hard: only which atoms are near; unconstrained: maps for every position and
    class, in the probe; relu: a plain convolution, for comparison"""
    convolutions: int = 1
    """relu: convolutions that are trained together, those after the first with 3×3 kernels: a CNN end to end"""
    gate: str = "nearest"
    """nearest: the k nearest atoms; kth: the k-th alone; soft: a sigmoid around it; triangle: nearer than average; or
    another function of `layerwise/gates.py`"""
    maps: Literal["whitened", "raw"] = "whitened"
    """what the linear maps act on: whitened patches, or patches as they are"""
    dictionary: Literal["kmeans", "sampled", "gaussian", "uniform", "kmeans_gaussian"] = "kmeans"
    """atoms: centroids of patches; patches as they are; random; or centroids of random patches"""
    metric: Literal["euclidean", "cosine"] = "euclidean"
    """what is near: by distance, or by direction, with patches and atoms of unit norm"""
    pairs: bool = False
    """half of the atoms are the others' negatives"""
    learn_atoms: bool = False
    """train the atoms, too; needs a gate that lets gradient through, soft or triangle"""
    patches: int | None = None
    """patches M sampled for whitening and clustering; unset: 256 an atom"""
    sample_pixels: Literal["input", "unit"] = "input"
    """pixels of the images that these patches come from: -1 to 1, as in training, or 0 to 1"""
    whitening: float = 0.03
    """share of the mean eigenvalue added to each one when whitening"""
    whitening_kind: Literal["pca", "zca", "none"] = "pca"
    """whitening to principal components; back to pixels; or none"""
    whitening_scale: Literal["variance", "deviation"] = "variance"
    """deviation: `whitening` is added to the eigenvalue's root instead, as it is"""
    center: bool = True
    """take the mean patch off before whitening"""
    kmeans_iterations: int = 25
    """k-means iterations, at most"""
    pooling: Literal["average", "adaptive"] = "average"
    """average: over windows of side pool; adaptive: such that pool×pool windows are left"""
    pool: int = 2
    """side of the windows over which the embedding is averaged"""
    pool_step: int | None = None
    """distance from window to window; unset: pool, so that they do not overlap"""
    norm: Literal["batch", "damped", "none"] = "batch"
    """normalisation of the averaged embedding; damped: batch norm that adds 0.01 to the variances, so that atoms which
    are seldom near are not blown up"""
    mix: Literal["linear", "none"] = "linear"
    """linear: 1×1 convolution from the atoms to the channels; none: the atoms are the channels"""
    residual: Literal["none", "add", "concatenate"] = "none"
    """add the layer's input to its output, or put it beside"""
    probe_pool: int = 1
    """side of the windows over which the layer's output is averaged for its probe alone"""
    probe_start: Literal["zero", "random"] = "zero"
    """the probe's first weights: zero, which favours no class, or random, as PyTorch begins a linear layer"""
    logits: Literal["summed", "own"] = "summed"
    """summed: the layer's probe corrects the logits of the layers below; own: it starts anew"""
    learning_rate: float | None = None
    """highest learning rate of the layer; unset: optimizer.learning_rate"""
    weight_decay: float | None = None
    """decay of the layer's weights; unset: optimizer.weight_decay"""

    @property
    def k(self) -> int:
        """Neighbors, filled in where unset."""
        return self.neighbors if self.neighbors is not None else max(1, self.atoms // 4)

    @property
    def sample(self) -> int:
        """Sampled patches, filled in where unset."""
        return self.patches if self.patches is not None else 256 * self.atoms

    @property
    def step(self) -> int:
        """Distance from window to window, filled in where unset."""
        return self.pool_step if self.pool_step is not None else self.pool

    def output_side(self, side: int) -> int:
        """Side of the layer's output for an input of side `side`."""
        if self.pooling == "adaptive":
            return self.pool
        positions = side - self.patch_size + 1
        windows = -(-(positions - self.pool) // self.step) + 1
        # as in torch, the last window begins inside
        return windows - 1 if (windows - 1) * self.step >= positions else windows

    def output_shape(self, channels: int, height: int, width: int) -> tuple[int, int, int]:
        """(D, h', w') of the layer's output for an input (C, H, W)."""
        embedded = self.atoms
        if self.embedding == "unconstrained":
            embedded += channels * self.patch_size**2
        own = self.channels if self.mix == "linear" else embedded
        beside = channels if self.residual == "concatenate" else 0
        lost = 2 * (self.convolutions - 1)
        return own + beside, self.output_side(height) - lost, self.output_side(width) - lost


# The same names, all unset: what `layers: {2: {...}}` may hold.
LayerOverrides = dataclasses.make_dataclass(
    "LayerOverrides",
    [(f.name, f.type | None, field(default=None)) for f in dataclasses.fields(LayerConfig)],  # type: ignore[operator]
    frozen=True,
    namespace={"__module__": __name__, "__doc__": "Settings of one layer that differ from `layer`."},
)
