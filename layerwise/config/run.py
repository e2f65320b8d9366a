"""A whole run: its data, its layers, how they are trained, where, and what is logged."""

from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from functools import partial
from operator import attrgetter
from typing import Any, Literal

from layerwise.config.checks import at_least, check_values, number, setting, within
from layerwise.config.choices import BORDERS, DATASETS, OPTIMIZERS, SCHEDULES, SHIFTS
from layerwise.config.layer import Layer
from layerwise.config.together import conflict
from layerwise.errors import SettingError

DEEPEST = 100
"""layers of a stack whose depth is auto, at most"""


@dataclass(frozen=True)
class Teacher:
    """Images drawn at random, each pixel a patch of a cluster, labeled by a random network with one hidden layer."""

    images: int = setting(10_000, at_least(20))
    """for training and validation"""
    clusters: int = setting(64, at_least(0))
    """number N0 of clusters that patches come from; 0: none, patches of every direction"""
    radius: float = setting(0.1, number(0.1, below=1, zero=True))
    """of a cluster; centers have norm 1"""
    dimension: int = setting(16, at_least(2))
    """of a patch: the channels of a pixel"""
    side: int = setting(4, at_least(1))
    """of the images, in pixels"""
    hidden: int = setting(16, at_least(1))
    """hidden units of the network"""
    seed: int = setting(0, within(0, 2**62 - 2))
    """of centers, network and images"""


@dataclass(frozen=True)
class Data:
    """Which images to learn from."""

    name: str = setting("digits", DATASETS)
    """data set"""
    root: str = "data"
    """folder that holds the data, or that it is downloaded to"""
    download: bool = True
    """fetch a known data set that root does not hold"""
    image_size: int | None = setting(None, at_least(1))
    """image_folder, image_shards: side to shrink and crop every image to; null: as they are, all of one size"""
    validation: float = setting(0.1, number(0.1, below=1))
    """share of the training images held out to choose a layer's best epoch"""
    test: float = setting(0.1, number(0.1, below=1))
    """image_folder, image_shards without test images: share of the images held out for the test"""
    flip: bool | None = None
    """mirror training images at random; null: whatever suits the data set"""
    crop: int | None = setting(None, at_least(0))
    """shift training images at random by up to so many pixels; null: an eighth of the side"""
    border: str = setting("mirrored", BORDERS)
    """what enters at the border of a shifted image"""
    shifts: str = setting("uniform", SHIFTS)
    """how often an image is shifted by how much"""
    skip_unreadable: bool = False
    """image_folder, image_shards: exclude what is not a readable image, instead of stopping"""
    teacher: Teacher = field(default_factory=Teacher)


@dataclass(frozen=True)
class Optimizer:
    """How a layer's maps, norm, projection and probe are trained."""

    name: str = setting("adamw", OPTIMIZERS)
    """the optimizer"""
    schedule: str = setting("cycle", SCHEDULES)
    """how the learning rate changes from step to step"""
    epochs: int = setting(10, at_least(1))
    """passes over the training images, for each layer"""
    batch_size: int = setting(64, at_least(2))
    """images a step, of all processes together; batch normalization needs 2"""
    learning_rate: float = setting(0.003, number(0.003))
    """highest learning rate"""
    momentum: float = setting(0.9, number(0.9, below=1, zero=True))
    """of sgd"""
    weight_decay: float = setting(0.05, number(0.05, zero=True))
    """decay of weights, not of offsets and norms"""
    label_smoothing: float = setting(0.0, number(0.1, below=1, zero=True))
    """share of the target spread over all classes"""
    warmup: float = setting(0.2, number(0.2, below=1))
    """share of a cycle's steps in which the learning rate rises"""


@dataclass(frozen=True)
class SingleLayer(Layer):
    """One layer of a stack, and how it is trained."""

    optimizer: Optimizer = field(default_factory=Optimizer)


@dataclass(frozen=True)
class Features:
    """What is stored of the layers below, so that a layer costs the same at any depth."""

    views: int = setting(2, at_least(0))
    """augmented views, or crops, of each training image stored for a layer above another; 0: none, compute anew"""
    gigabytes: float = setting(8.0, number(8))
    """room for them; where it is too little there are fewer views"""


@dataclass(frozen=True)
class Trainer:
    """Where the training runs."""

    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    """cpu, gpu, or auto: a GPU where there is one"""
    devices: int = setting(1, at_least(1))
    """how many of them on each machine, a process for each; on the CPU processes that share its cores"""
    num_nodes: int = setting(1, at_least(1))
    """how many machines, on each of which the same command is started, as by torchrun or srun"""
    precision: Literal["32-true", "16-mixed", "bf16-mixed"] = "32-true"
    """of products that decide no gate: 32-true; 16-mixed, bf16-mixed (those of maps are then TF32's on a GPU)"""

    @property
    def processes(self) -> int:
        """How many train together."""
        return self.devices * self.num_nodes


@dataclass(frozen=True)
class Wandb:
    """The W&B run."""

    mode: Literal["auto", "online", "offline", "disabled"] = "auto"
    """online, offline, disabled; auto: WANDB_MODE, or else online where there is a key, offline where there is none"""
    project: str | None = None
    """project; null: WANDB_PROJECT, or layerwise"""
    entity: str | None = None
    """user or team; null: WANDB_ENTITY, or W&B's default"""
    name: str | None = None
    """name of the run; null: WANDB_NAME, or the run directory's"""
    tags: list[str] = field(default_factory=list)
    """tags; none: those of WANDB_TAGS"""
    group: str | None = None
    """runs that belong together, such as the rows of a table; null: WANDB_RUN_GROUP, or none"""
    artifacts: bool = False
    """keep each finished layer as a model artifact, where the run is online"""


@dataclass(frozen=True)
class Config:
    """A whole run.

    Raises:
        SettingError: a value is out of its range, or two settings do not go together.
    """

    depth: int | Literal["auto"] = setting(1, lambda depth: None if depth == "auto" else within(1, DEEPEST)(depth))
    """number of layers K; auto: as long as each raises the validation accuracy by more than its standard error"""
    seed: int = setting(0, within(0, 2**128 - 1))
    """everything random follows from it"""
    run_dir: str | None = None
    """where the run's files go; null: runs/<recipe>-seed<seed>, with a suffix if settings differ from the recipe's"""
    data: Data = field(default_factory=Data)
    layer: Layer = field(default_factory=Layer)
    """settings of every layer"""
    layers: dict[int, SingleLayer] = field(default_factory=dict)
    """single layers, numbered from 1, that differ from `layer` or from `optimizer`; a Layer has the latter"""
    optimizer: Optimizer = field(default_factory=Optimizer)
    features: Features = field(default_factory=Features)
    trainer: Trainer = field(default_factory=Trainer)
    wandb: Wandb = field(default_factory=Wandb)

    def __post_init__(self) -> None:
        check_values(self, lambda name: name)
        if isinstance(self.layer, SingleLayer):
            raise SettingError("layer: is a SingleLayer, with an optimizer of its own; give a Layer, or it in layers")
        for i, given in self.layers.items():
            if not isinstance(i, int) or i < 1:
                raise SettingError(f"layers.{i}: there is no such layer; they are numbered from 1")
            if not isinstance(given, Layer):
                raise SettingError(f"layers.{i}: {given!r} is not settings of a layer; give a layerwise.Layer")
        singles = {i: self._trained(given) for i, given in self.layers.items()}
        object.__setattr__(self, "layers", singles)
        for i in self.layers:
            check_values(self.layers[i], partial(self.name_of, i))
        for i in range(1, min(self.deepest, max([1, *self.layers]) + 1) + 1):
            if found := conflict(self, i):
                name = self.name_of(i, found[0])
                where = f" (layer {i})" if i in self.layers and not name.startswith("layers.") else ""
                raise SettingError(f"{name}: {found[1]}{where}")

    @property
    def deepest(self) -> int:
        """The number of layers, at most."""
        return DEEPEST if self.depth == "auto" else self.depth

    def hands_on(self, number: int) -> bool:
        """Whether layer `number` is followed by one that is given what it hands on."""
        return number < self.deepest and self.layer_at(number + 1).input == "below"

    def layer_at(self, number: int) -> SingleLayer:
        """The settings of layer `number`, from 1."""
        return self.layers[number] if number in self.layers else self._trained(self.layer)

    def _trained(self, layer: Layer) -> SingleLayer:
        """A layer with the optimizer of all, unless it has its own."""
        if isinstance(layer, SingleLayer):
            return layer
        return SingleLayer(**{f.name: getattr(layer, f.name) for f in fields(Layer)}, optimizer=self.optimizer)

    def name_of(self, number: int, name: str) -> str:
        """By what name a setting of layer `number` was given: layers.2.atoms, layer.atoms or optimizer.epochs."""
        for_all = name if name.startswith("optimizer.") else f"layer.{name}"
        own = number in self.layers and attrgetter(name)(self.layers[number]) != attrgetter(for_all)(self)
        return f"layers.{number}.{name}" if own else for_all


def unmirrored(config: Config) -> Config:
    """The configuration for images that may not be mirrored."""
    layers = {number: replace(own, mirror=False) for number, own in config.layers.items()}
    return replace(config, layer=replace(config.layer, mirror=False), layers=layers)


def plain(config: Config) -> dict[str, Any]:
    """A configuration as nested plain values: of single layers what differs; what YAML and W&B are given."""
    values = asdict(config)
    for_all = values["layer"] | {"optimizer": values["optimizer"]}
    values["layers"] = {number: _difference(own, for_all) for number, own in values["layers"].items()}
    return values


def _difference(own: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """What of nested values differs from others of the same names."""
    return {
        name: _difference(value, other[name]) if isinstance(value, dict) else value
        for name, value in own.items()
        if value != other[name]
    }


def restore(kind: type[Any], values: dict[str, Any]) -> Any:
    """A dataclass from nested plain values, the opposite of `asdict`; TypeError where there is no such field."""
    parts = {f.name: type(getattr(kind(), f.name)) for f in fields(kind)}
    return kind(**{n: restore(parts[n], v) if is_dataclass(parts.get(n)) else v for n, v in values.items()})
