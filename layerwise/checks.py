"""What makes a configuration impossible, by itself or with the data: found before anything is written."""

from layerwise.config import Config, SettingError


def check(config: Config) -> None:
    """Refuse what cannot work whatever the data.

    Raises:
        SettingError: naming the first setting that is wrong.
    """
    data, optimizer = config.data, config.optimizer
    _at_least("depth", config.depth, 1)
    _at_least("seed", config.seed, 0)
    for number in sorted(config.layers):
        if not 1 <= number <= config.depth:
            raise SettingError(
                f"layers.{number}: there is no layer {number} at depth {config.depth}; "
                "layers are numbered from 1: raise --depth or remove the setting"
            )
    for number in range(1, config.depth + 1):
        _check_layer(config, number)
    for name in ("validation", "test"):
        share = getattr(data, name)
        if not 0 < share < 1:
            raise SettingError(f"data.{name}: {share} is not a share; give a number between 0 and 1, such as 0.1")
    if data.image_size is not None:
        _at_least("data.image_size", data.image_size, 1)
    if data.crop is not None:
        _at_least("data.crop", data.crop, 0)
    for name in ("epochs", "batch_size"):
        _at_least(f"optimizer.{name}", getattr(optimizer, name), 1)
    if optimizer.batch_size == 1:
        raise SettingError("optimizer.batch_size: 1 is too few for batch normalisation; give 2 or more")
    _positive("optimizer.learning_rate", optimizer.learning_rate)
    if not 0 <= optimizer.weight_decay < float("inf"):
        raise SettingError(f"optimizer.weight_decay: {optimizer.weight_decay}; give 0 or a positive number")
    if not 0 < optimizer.warmup < 1:
        raise SettingError(f"optimizer.warmup: {optimizer.warmup} is not a share; give a number between 0 and 1")
    _at_least("features.views", config.features.views, 0)
    if not 0 < config.features.gigabytes < float("inf"):
        raise SettingError(f"features.gigabytes: {config.features.gigabytes}; give a positive number, such as 8")
    if config.trainer.devices != 1:
        raise SettingError(
            f"trainer.devices: {config.trainer.devices}; training on several devices is not supported yet: give 1"
        )


def check_fit(config: Config, height: int, width: int, images: int) -> None:
    """Refuse settings that do not fit the data.

    Args:
        config: checked settings.
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
    for number in range(1, config.depth + 1):
        layer = config.layer_config(number)
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
        height, width = layer.output_side(height), layer.output_side(width)


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
    if not 0 <= layer.whitening < float("inf"):
        raise SettingError(f"{name('whitening')}: {layer.whitening}; give 0 or a positive number, such as 0.03")
    if layer.learning_rate is not None:
        _positive(name("learning_rate"), layer.learning_rate)


def _positive(name: str, value: float) -> None:
    if not 0 < value < float("inf"):
        raise SettingError(f"{name}: {value}; give a positive number, such as 0.003")


def _at_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise SettingError(f"{name}: {value} is too small; give a whole number of at least {least}")
