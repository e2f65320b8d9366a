"""Everything a run can be told, as plain frozen dataclasses.

Nothing here imports more than the standard library, so that the command line answers at once.
"""

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal


class SettingError(ValueError):
    """A setting that cannot work: the message names the setting, its value, and what to do."""


@dataclass(frozen=True)
class DataConfig:
    """Which images to learn from."""

    name: Literal["digits", "fashion_mnist", "cifar10", "cifar100", "svhn", "stl10", "image_folder"] = "digits"
    """data set; image_folder is any root/{train,val,test}/<class>/*"""
    root: str = "data"
    """folder that holds the data, or that it is downloaded to"""
    download: bool = True
    """fetch a known data set that root does not hold"""
    image_size: int | None = None
    """image_folder: shrink and crop every image to this side; needed where images differ in size"""
    validation: float = 0.1
    """share of the training images held out to choose a layer's best epoch"""
    test: float = 0.1
    """image_folder without a test folder: share of the images held out for the test"""
    flip: bool | None = None
    """mirror training images at random; unset: whatever suits the data set"""
    crop: int | None = None
    """shift training images at random by up to so many pixels; unset: an eighth of the side"""
    skip_unreadable: bool = False
    """image_folder: leave out files that are not readable images, instead of stopping"""


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
    pool: int = 2
    """side of the windows over which the embedding is averaged"""
    probe_pool: int = 1
    """side of the windows over which the layer's output is averaged for its probe alone"""
    logits: Literal["summed", "own"] = "summed"
    """summed: the layer's probe corrects the logits of the layers below; own: it starts anew"""
    embedding: Literal["full", "hard"] = "full"
    """full: a linear map per near atom; hard: only which atoms are near"""
    dictionary: Literal["kmeans", "sampled", "gaussian", "uniform"] = "kmeans"
    """atoms: centroids of patches, patches as they are, or random"""
    patches: int | None = None
    """patches M sampled for whitening and clustering; unset: 256 an atom"""
    whitening: float = 0.03
    """share of the mean eigenvalue added to each one when whitening"""
    kmeans_iterations: int = 25
    """k-means iterations, at most"""
    learning_rate: float | None = None
    """highest learning rate of the layer's cycle; unset: optimizer.learning_rate"""

    @property
    def k(self) -> int:
        """Neighbors, filled in where unset."""
        return self.neighbors if self.neighbors is not None else max(1, self.atoms // 4)

    @property
    def sample(self) -> int:
        """Sampled patches, filled in where unset."""
        return self.patches if self.patches is not None else 256 * self.atoms

    def output_side(self, side: int) -> int:
        """Side of the layer's output for an input of side `side`."""
        return -(-(side - self.patch_size + 1) // self.pool)


# The same names, all unset: what `layers: {2: {...}}` may hold.
LayerOverrides = dataclasses.make_dataclass(
    "LayerOverrides",
    [(f.name, f.type | None, field(default=None)) for f in dataclasses.fields(LayerConfig)],  # type: ignore[operator]
    frozen=True,
    namespace={"__module__": __name__, "__doc__": "Settings of one layer that differ from `layer`."},
)


@dataclass(frozen=True)
class OptimizerConfig:
    """How a layer's maps, norm, output and probe are trained: AdamW with one learning-rate cycle a layer."""

    epochs: int = 10
    """passes over the training images, for each layer"""
    batch_size: int = 64
    """images a step"""
    learning_rate: float = 0.003
    """highest learning rate of the cycle"""
    weight_decay: float = 0.05
    """decay of weights, not of offsets and norms"""
    warmup: float = 0.2
    """share of the steps in which the learning rate rises"""


@dataclass(frozen=True)
class FeaturesConfig:
    """What is stored of the layers below, so that a layer costs the same at any depth."""

    views: int = 2
    """augmented views of the training images that are stored for each layer above the first; 0: none, compute anew"""
    gigabytes: float = 8.0
    """room for them; where it is too little there are fewer views"""


@dataclass(frozen=True)
class TrainerConfig:
    """Where the training runs."""

    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    """processor"""
    devices: int = 1
    """how many of them"""
    precision: Literal["32-true", "16-mixed", "bf16-mixed"] = "32-true"
    """number format of the products that do not decide a gate"""


@dataclass(frozen=True)
class WandbConfig:
    """The W&B run."""

    mode: Literal["auto", "online", "offline", "disabled"] = "auto"
    """auto: online where there is a key, else offline"""
    project: str = "layerwise"
    """project"""
    entity: str | None = None
    """user or team"""
    name: str | None = None
    """name of the run; unset: the run directory's"""
    tags: list[str] = field(default_factory=list)
    """tags"""


@dataclass(frozen=True)
class Config:
    """A whole run."""

    depth: int = 1
    """number of layers K"""
    seed: int = 0
    """everything random follows from it"""
    run_dir: str | None = None
    """where the run's files go; unset: runs/<config name>-seed<seed>"""
    data: DataConfig = field(default_factory=DataConfig)
    layer: LayerConfig = field(default_factory=LayerConfig)
    """settings of every layer"""
    layers: dict[int, LayerOverrides] = field(default_factory=dict)  # type: ignore[valid-type]
    """settings of single layers, numbered from 1, over those of `layer`"""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    features: FeaturesConfig = field(default_factory=FeaturesConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    wandb: WandbConfig = field(default_factory=WandbConfig)

    def layer_config(self, number: int) -> LayerConfig:
        """The settings of layer `number`, from 1."""
        overrides = self.layers.get(number)
        if overrides is None:
            return self.layer
        given = {name: value for name, value in dataclasses.asdict(overrides).items() if value is not None}
        return dataclasses.replace(self.layer, **given)

    def optimizer_config(self, number: int) -> OptimizerConfig:
        """How layer `number` is trained, its own learning rate filled in."""
        own = self.layer_config(number).learning_rate
        return self.optimizer if own is None else dataclasses.replace(self.optimizer, learning_rate=own)


def plain(config: Any) -> dict[str, Any]:
    """A configuration as nested plain values, overrides without what is unset; what YAML and W&B are given."""
    values = dataclasses.asdict(config)
    if "layers" in values:
        values["layers"] = {
            number: {name: value for name, value in layer.items() if value is not None}
            for number, layer in values["layers"].items()
        }
    return values
