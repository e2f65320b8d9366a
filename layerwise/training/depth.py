"""When a stack is deep enough, and how deep it can be."""

from collections.abc import Sequence
from dataclasses import replace

from layerwise import memory
from layerwise.config import Config, SettingError
from layerwise.config.run import unmirrored
from layerwise.data.splits import DataSet
from layerwise.nn.layer import shape_through
from layerwise.run.record import LayerRecord

PATCHES = 8
"""of the training images for each atom, and"""
STEPS = 8
"""of an epoch, at least, where settings are lowered"""
BESIDE = 48
"""bytes for a sampled patch beside its numbers, while a dictionary is learned: its place, its atom, how far that is"""


def sample_bytes(count: int, dimension: int) -> int:
    """What a dictionary of so many patches takes while it is learned, but for chunks of bounded size."""
    return count * (4 * dimension + BESIDE)


def views_seen(config: Config) -> int:
    """How many views of the training images the layers above others see: no more than they have epochs."""
    above = [config.layer_at(number) for number in range(2, config.deepest + 1)]
    epochs = (own.optimizer.epochs for own in above if own.input == "below")
    return min(config.features.views, max(epochs, default=0))


def next_shape(config: Config, number: int, shape: tuple[int, int, int], images: int) -> tuple[int, int, int]:
    """The shape (D, h', w') that layer `number` makes of so many inputs (C, H, W); SettingError where it cannot."""
    layer, (_, height, width) = config.layer_at(number), shape
    if layer.patch_size > min(height, width):
        less = "" if layer.sees_images(number) else ", a smaller pool below, or a smaller depth"
        raise SettingError(
            f"{config.name_of(number, 'patch_size')}: {layer.patch_size} does not fit the {height}×{width} input of "
            f"layer {number}; give a smaller patch_size{less}"
        )
    available = (height - layer.patch_size + 1) * (width - layer.patch_size + 1) * images
    if layer.atoms > available:
        raise SettingError(
            f"{config.name_of(number, 'atoms')}: {layer.atoms} are more than the {available} patches that the "
            f"training images have at layer {number}; give fewer atoms or more images"
        )
    if layer.mirror and (positions := width - layer.patch_size + 1) % layer.pool:
        raise SettingError(
            f"{config.name_of(number, 'pool')}: windows of {layer.pool} do not part the {positions} positions of a row "
            f"at layer {number} evenly, as mirror needs; give another pool or patch_size, or mirror false"
        )
    size = sample_bytes(min(layer.sample, available), shape[0] * layer.patch_size**2)
    if size > memory.total():
        raise SettingError(
            f"{config.name_of(number, 'sampling.patches')}: {layer.sample} patches of {shape[0]}×{layer.patch_size}² "
            f"numbers take {size / 1e9:.1f} GB, and there are {memory.total() / 1e9:.1f}; give fewer"
        )
    return shape_through(layer, shape)


def check_fit(config: Config, shape: tuple[int, int, int], images: int) -> None:
    """Raise SettingError, naming the first setting that does not fit so many training images of shape (C, H, W)."""
    if config.data.crop is not None and config.data.crop >= min(shape[1:]):
        raise SettingError(
            f"data.crop: {config.data.crop} is not below the side of the {shape[1]}×{shape[2]} images; give less"
        )
    pixels = shape
    for number in range(1, config.deepest + 1):
        own = config.layer_at(number)
        shape, size = pixels if own.input == "images" else shape, own.optimizer.batch_size
        if size > images:
            name = config.name_of(number, "optimizer.batch_size")
            raise SettingError(f"{name}: {size} is more than the {images} training images; give less")
        try:
            shape = next_shape(config, number, shape, images)
        except SettingError:
            if config.depth == "auto" and not own.sees_images(number):
                return
            raise


def check_data(config: Config, data: DataSet) -> None:
    """Raise SettingError, naming the first setting that does not fit a data set, as `check_fit` does."""
    check_fit(config, data.shape, len(data.train))
    if config.layer_at(1).mirror and not data.augmentation.flip:
        raise SettingError(
            f"{config.name_of(1, 'mirror')}: true, but a mirrored image of {config.data.name} may show another class; "
            "give false, or true to data.flip if it may not"
        )


def lowered(config: Config, shape: tuple[int, int, int], images: int) -> Config:
    """The configuration with what is too large for so many training images of shape (C, H, W) as large as it can be.

    Nothing is mirrored where windows then would not part a row evenly.
    """
    layers, images_shape = dict(config.layers), shape
    for number in range(1, config.deepest + 1):
        own = config.layer_at(number)
        shape = images_shape if own.input == "images" else shape
        _, height, width = shape
        size = min(own.patch_size, height, width)
        height, width = height - size + 1, width - size + 1
        step = 2 if own.mirror else 1  # in which atoms come
        spare = step if own.output == "gates" else 0  # of the atoms, where it must differ which are near
        atoms = max(step + spare, min(own.atoms, images * height * width // PATCHES) // step * step)
        neighbors = own.neighbors
        if neighbors is not None or atoms // 4 % step:
            neighbors = max(step, min(neighbors or atoms // 4, atoms - spare) // step * step)
        batch = min(own.optimizer.batch_size, max(2, images // STEPS))
        fitting = replace(
            own,
            patch_size=size,
            atoms=atoms,
            neighbors=neighbors,
            channels=min(own.channels, atoms) if own.output == "gates" and own.channels else own.channels,
            pool=min(own.pool, height, width),
            optimizer=replace(own.optimizer, batch_size=batch),
        )
        if own.mirror and width % fitting.pool:
            return lowered(unmirrored(config), images_shape, images)
        if fitting != own:
            layers[number] = fitting
        shape = shape_through(fitting, shape)
    return replace(config, layers=layers)


def no_room(config: Config, number: int, shape: tuple[int, int, int], images: int) -> str | None:
    """Why there cannot be a layer `number` on an input of shape (C, H, W), in words; None where there can."""
    try:
        next_shape(config, number, shape, images)
    except SettingError as error:
        return f"{str(error).split(';')[0]}: the stack is {number - 1} deep"
    return None


def no_gain(records: Sequence[LayerRecord]) -> str | None:
    """Why the top layer is excluded, in words; None where it helps, as the first layer always does.

    See `LayerRecord.helps`.
    """
    if len(records) < 2 or records[-1].helps(records[-2]):
        return None
    below, top = records[-2].val_accuracy, records[-1].val_accuracy
    return (
        f"layer {len(records)}: validation accuracy {top:.2%} after {below:.2%}, no gain beyond a standard error of "
        f"{records[-1].error:.2%}: excluded, the stack is {len(records) - 1} deep"
    )
