"""What makes a configuration impossible, by itself or with the data: found before anything is written."""

import os
from pathlib import Path

from layerwise.config.run import Config, SettingError, TeacherConfig

BARE = {"pool": 1, "pooling": "average", "norm": "none", "mix": "none", "residual": "none", "probe_pool": 1}


def check_json(path: str | None) -> None:
    """Refuse a file that could not be written in the end.

    Raises:
        SettingError: naming it.
    """
    if path is None:
        return
    target = Path(path).resolve()
    if not target.parent.is_dir():
        raise SettingError(f"--json: {path} cannot be written, since its folder is not there; create it first")
    if target.is_dir() or not os.access(target if target.exists() else target.parent, os.W_OK):
        raise SettingError(f"--json: {path} is a folder or cannot be written to; give a file that can")


def check(config: Config) -> None:
    """Refuse what cannot work whatever the data.

    Raises:
        SettingError: naming the first setting that is wrong.
    """
    data, optimizer = config.data, config.optimizer
    _at_least("depth", config.deepest, 1)
    _at_least("seed", config.seed, 0)
    if config.layers and min(config.layers) < 1:
        raise SettingError(f"layers.{min(config.layers)}: there is no such layer; they are numbered from 1")
    for number in range(1, config.deepest + 1):
        _check_layer(config, number)
    for name in ("validation", "test"):
        share = getattr(data, name)
        if not 0 < share < 1:
            raise SettingError(f"data.{name}: {share} is not a share; give a number between 0 and 1, such as 0.1")
    if data.image_size is not None:
        _at_least("data.image_size", data.image_size, 1)
    if data.crop is not None:
        _at_least("data.crop", data.crop, 0)
    _check_teacher(data.teacher)
    for name in ("epochs", "batch_size"):
        _at_least(f"optimizer.{name}", getattr(optimizer, name), 1)
    if optimizer.batch_size == 1:
        raise SettingError("optimizer.batch_size: 1 is too few for batch normalisation; give 2 or more")
    _positive("optimizer.learning_rate", optimizer.learning_rate)
    _not_negative("optimizer.weight_decay", optimizer.weight_decay, "0.05")
    if not 0 <= optimizer.momentum < 1:
        raise SettingError(f"optimizer.momentum: {optimizer.momentum}; give a number from 0 to below 1, such as 0.9")
    if not 0 <= optimizer.label_smoothing < 1:
        raise SettingError(
            f"optimizer.label_smoothing: {optimizer.label_smoothing} is not a share; give 0, or one such as 0.1"
        )
    if not 0 < optimizer.warmup < 1:
        raise SettingError(f"optimizer.warmup: {optimizer.warmup} is not a share; give a number between 0 and 1")
    _at_least("features.views", config.features.views, 0)
    if not 0 < config.features.gigabytes < float("inf"):
        raise SettingError(f"features.gigabytes: {config.features.gigabytes}; give a positive number, such as 8")
    if config.trainer.devices != 1:
        raise SettingError(
            f"trainer.devices: {config.trainer.devices}; training on several devices is not supported yet: give 1"
        )


def check_fit(config: Config, channels: int, height: int, width: int, images: int) -> None:
    """Refuse settings that do not fit the data.

    Args:
        config: checked settings.
        channels: of the images.
        height: of the images, in pixels.
        width: of the images, in pixels.
        images: number of training images.

    Raises:
        SettingError: naming the first setting that is wrong.
    """
    if config.optimizer.batch_size > images:
        raise SettingError(
            f"optimizer.batch_size: {config.optimizer.batch_size} is more than the {images} training images; give less"
        )
    if config.data.crop is not None and config.data.crop >= min(height, width):
        raise SettingError(
            f"data.crop: {config.data.crop} is not below the side of the {height}×{width} images; give less"
        )
    shape = channels, height, width
    for number in range(1, config.deepest + 1):
        try:
            shape = fit_layer(config, number, shape, images)
        except SettingError:
            if config.depth == "auto" and number > 1:
                return
            raise


def fit_layer(config: Config, number: int, shape: tuple[int, int, int], images: int) -> tuple[int, int, int]:
    """The shape (D, h', w') of a layer's output for an input of shape (C, H, W).

    Raises:
        SettingError: the layer cannot work on such an input.
    """
    layer, (channels, height, width) = config.layer_config(number), shape
    if layer.patch_size > min(height, width):
        raise SettingError(
            f"layer {number}: patch_size {layer.patch_size} does not fit its {height}×{width} input; "
            "give a smaller patch_size, a smaller pool below, or a smaller depth"
        )
    available = (height - layer.patch_size + 1) * (width - layer.patch_size + 1) * images
    if layer.atoms > available:
        raise SettingError(
            f"layer {number}: atoms {layer.atoms} are more than the {available} patches that the training images "
            "have; give fewer atoms or more images"
        )
    out = layer.output_shape(*shape)
    if layer.residual == "add" and out[0] != channels:
        raise SettingError(
            f"layer {number}: residual add needs as many channels out as in, {channels}; it has {out[0]}: "
            "change layer.channels, or give residual concatenate"
        )
    if min(out) < 1:
        cause = f"{layer.convolutions} convolutions leave" if layer.convolutions > 1 else f"pool {layer.pool} leaves"
        raise SettingError(
            f"layer {number}: {cause} nothing of its {height}×{width} input; give a smaller pool or fewer convolutions"
        )
    return out


def _check_teacher(teacher: TeacherConfig) -> None:
    for name, least in {"images": 20, "clusters": 0, "dimension": 2, "side": 1, "hidden": 1, "seed": 0}.items():
        _at_least(f"data.teacher.{name}", getattr(teacher, name), least)
    if not 0 <= teacher.radius <= 1:
        raise SettingError(f"data.teacher.radius: {teacher.radius}; give a number from 0 to 1, such as 0.1")


def _check_layer(config: Config, number: int) -> None:
    layer, overrides = config.layer_config(number), config.layers.get(number)

    def name(setting: str) -> str:
        own = overrides is not None and getattr(overrides, setting) is not None
        return f"layers.{number}.{setting}" if own else f"layer.{setting}"

    for setting in (
        "patch_size",
        "atoms",
        "neighbors",
        "channels",
        "pool",
        "probe_pool",
        "patches",
        "kmeans_iterations",
        "pool_step",
        "convolutions",
    ):
        value = getattr(layer, setting)
        if value is not None:
            _at_least(name(setting), value, 1)
    if layer.k > layer.atoms:
        raise SettingError(
            f"{name('neighbors')}: {layer.k} neighbors of {layer.atoms} atoms; give at most as many neighbors as atoms"
        )
    if layer.atoms > layer.sample:
        raise SettingError(
            f"{name('patches')}: {layer.sample} sampled patches for {layer.atoms} atoms; give at least as many patches "
            "as atoms, or leave it unset"
        )
    if layer.pool_step is not None and layer.pool_step > layer.pool:
        raise SettingError(
            f"{name('pool_step')}: {layer.pool_step} would skip positions between windows of side {layer.pool}; "
            "give at most pool"
        )
    if layer.pool_step is not None and layer.pooling == "adaptive":
        raise SettingError(f"{name('pool_step')}: {layer.pool_step}, but adaptive windows choose it; leave it unset")
    if layer.pairs and layer.atoms % 2:
        raise SettingError(f"{name('pairs')}: {layer.atoms} atoms cannot be pairs; give an even number of atoms")
    if layer.metric == "cosine" and layer.gate != "nearest":
        raise SettingError(f"{name('metric')}: cosine goes with the gate nearest, not {layer.gate}; change either")
    if layer.convolutions > 1 and layer.embedding != "relu":
        raise SettingError(
            f"{name('convolutions')}: {layer.convolutions} together need --layer.embedding relu, not "
            f"{layer.embedding}; a deeper stack of {layer.embedding} layers is --depth {layer.convolutions}"
        )
    if layer.embedding == "unconstrained":
        for setting, only in BARE.items():
            if getattr(layer, setting) != only:
                raise SettingError(
                    f"{name(setting)}: {getattr(layer, setting)}, but the embedding unconstrained is classified "
                    f"as it is; give --{name(setting)} {only}"
                )
    _not_negative(name("whitening"), layer.whitening, "0.03")
    if layer.learning_rate is not None:
        _positive(name("learning_rate"), layer.learning_rate)
    if layer.weight_decay is not None:
        _not_negative(name("weight_decay"), layer.weight_decay, "0.05")


def _positive(name: str, value: float) -> None:
    if not 0 < value < float("inf"):
        raise SettingError(f"{name}: {value}; give a positive number, such as 0.003")


def _not_negative(name: str, value: float, example: str) -> None:
    if not 0 <= value < float("inf"):
        raise SettingError(f"{name}: {value}; give 0 or a positive number, such as {example}")


def _at_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise SettingError(f"{name}: {value} is too small; give a whole number of at least {least}")
