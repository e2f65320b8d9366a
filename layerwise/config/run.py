"""Everything a run can be told, as plain frozen dataclasses.

Nothing here imports more than the standard library, so that the command line answers at once.
"""

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal

from layerwise.config.layer import LayerConfig, LayerOverrides

DEEPEST = 100
"""layers of a stack whose depth is auto, at most"""


class SettingError(ValueError):
    """A setting that cannot work: the message names the setting, its value, and what to do."""


@dataclass(frozen=True)
class TeacherConfig:
    """Images drawn at random, each pixel a patch of a cluster, labelled by a random network with one hidden layer."""

    images: int = 10_000
    """for training and validation"""
    clusters: int = 64
    """number N0 of clusters that patches come from; 0: none, patches of every direction"""
    radius: float = 0.1
    """of a cluster; centres have norm 1"""
    dimension: int = 16
    """numbers of a patch: the channels of a pixel"""
    side: int = 4
    """of the images, in pixels"""
    hidden: int = 16
    """hidden units of the network"""
    seed: int = 0
    """of centres, network and images"""


@dataclass(frozen=True)
class DataConfig:
    """Which images to learn from."""

    name: Literal["digits", "fashion_mnist", "cifar10", "cifar100", "svhn", "stl10", "image_folder", "teacher"] = (
        "digits"
    )
    """data set; image_folder is any root/{train,val,test}/<class>/*, teacher is drawn at random"""
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
    border: Literal["mirrored", "black"] = "mirrored"
    """what enters at the border of a shifted image: the image mirrored, or black"""
    skip_unreadable: bool = False
    """image_folder: leave out files that are not readable images, instead of stopping"""
    teacher: TeacherConfig = field(default_factory=TeacherConfig)


@dataclass(frozen=True)
class OptimizerConfig:
    """How a layer's maps, norm, output and probe are trained."""

    name: Literal["adamw", "sgd"] = "adamw"
    """adamw, or sgd with momentum"""
    schedule: Literal["cycle", "steps"] = "cycle"
    """learning rate: one cycle, up and down; or divided by 10 after half and after three quarters of the steps"""
    epochs: int = 10
    """passes over the training images, for each layer"""
    batch_size: int = 64
    """images a step"""
    learning_rate: float = 0.003
    """highest learning rate"""
    momentum: float = 0.9
    """of sgd"""
    weight_decay: float = 0.05
    """decay of weights, not of offsets and norms"""
    label_smoothing: float = 0.0
    """share of the target spread over all classes"""
    warmup: float = 0.2
    """share of a cycle's steps in which the learning rate rises"""


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
    group: str | None = None
    """runs that belong together, such as the rows of a table"""


@dataclass(frozen=True)
class Config:
    """A whole run."""

    depth: int | Literal["auto"] = 1
    """number of layers K; auto: as long as each raises the validation accuracy by more than its standard error"""
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

    @property
    def deepest(self) -> int:
        """The number of layers, at most."""
        return DEEPEST if self.depth == "auto" else self.depth

    def layer_config(self, number: int) -> LayerConfig:
        """The settings of layer `number`, from 1."""
        overrides = self.layers.get(number)
        if overrides is None:
            return self.layer
        given = {name: value for name, value in dataclasses.asdict(overrides).items() if value is not None}
        return dataclasses.replace(self.layer, **given)

    def optimizer_config(self, number: int) -> OptimizerConfig:
        """How layer `number` is trained, its own learning rate and decay filled in."""
        layer = self.layer_config(number)
        own: dict[str, Any] = {"learning_rate": layer.learning_rate, "weight_decay": layer.weight_decay}
        return dataclasses.replace(self.optimizer, **{name: value for name, value in own.items() if value is not None})


def plain(config: Any) -> dict[str, Any]:
    """A configuration as nested plain values, overrides without what is unset; what YAML and W&B are given."""
    values = dataclasses.asdict(config)
    if "layers" in values:
        values["layers"] = {
            number: {name: value for name, value in layer.items() if value is not None}
            for number, layer in values["layers"].items()
        }
    return values
