"""How deep a stack of depth auto grows."""

from collections.abc import Sequence

from layerwise.config.checks import fit_layer
from layerwise.config.run import Config, SettingError
from layerwise.run.records import LayerRecord


def no_room(config: Config, number: int, shape: tuple[int, int, int], images: int) -> str | None:
    """Why there cannot be a layer `number` on an input of shape (C, H, W), in words; None where there can."""
    try:
        fit_layer(config, number, shape, images)
    except SettingError as error:
        return f"{str(error).split(';')[0]}: the stack is {number - 1} deep"
    return None


def no_gain(records: Sequence[LayerRecord], images: int) -> str | None:
    """Why the top layer is left out, in words; None where it helps.

    It helps if it raises the validation accuracy by more than the standard error, sqrt(p (1 - p) / n) for the accuracy
    p on n images.

    Args:
        records: of all layers; the first always helps.
        images: held out for validation.
    """
    if len(records) < 2:
        return None
    below, top = records[-2].val_accuracy, records[-1].val_accuracy
    error = (top * (1 - top) / images) ** 0.5
    if top - below > error:
        return None
    return (
        f"layer {len(records)}: validation accuracy {top:.2%} after {below:.2%}, no gain beyond a standard error of "
        f"{error:.2%}: left out, the stack is {len(records) - 1} deep"
    )
