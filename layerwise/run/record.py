"""layer.json: what a finished layer is, and all that its weights depend on."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, cast

from layerwise.config import Config, SingleLayer
from layerwise.config.run import restore


@dataclass(frozen=True)
class LayerRecord:
    """What a finished layer is, and how well it does."""

    layer: int
    """its number, from 1"""
    atoms: int
    val_accuracy: float
    """of the stack up to this layer, in [0, 1]; that of the best epoch, whose weights are the layer's"""
    epochs: list[dict[str, float]]
    """validation accuracy and loss of each epoch"""
    input_shape: list[int]
    """(C, H, W)"""
    output_shape: list[int]
    """(D, h', w')"""
    classes: list[str]
    seconds: float
    """of sampling, clustering and every finished epoch, but not of a dictionary that was learned before a resume"""
    settings: dict[str, Any]
    """all that the weights depend on"""

    @property
    def config(self) -> SingleLayer:
        """The layer's own settings."""
        return cast(SingleLayer, restore(SingleLayer, self.settings[f"layer {self.layer}"]))


def settings_of(config: Config, number: int, digest: str, below: str = "") -> dict[str, Any]:
    """All that the weights of layer `number`, from 1, depend on: the data's digest, and every layer up to it, too.

    `below` stands for the files of the layer that it is stacked on; see `Run.identity`.
    """
    data = {name: value for name, value in asdict(config.data).items() if name not in ("root", "download")}
    settings: dict[str, Any] = {"seed": config.seed, "data": data | {"content": digest[:16]}}
    settings["trainer"] = {"precision": config.trainer.precision}
    if number > 1:
        settings |= {"features": asdict(config.features), "below": below}
    return settings | {f"layer {i}": asdict(config.layer_at(i)) for i in range(1, number + 1)}


def fingerprint(settings: dict[str, Any]) -> str:
    """SHA-256 of settings."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def changes(old: dict[str, Any], new: dict[str, Any], config: Config) -> list[str]:
    """What differs between settings, each with both values, by the names that the command uses."""
    before, after = dict(_flat(old)), dict(_flat(new))
    told, differing = [], [name for name in before if before[name] != after.get(name)]
    if differing == ["data.content"]:  # else it follows from what else differs, such as the seed of the split
        return [f"data.root: {config.data.root} holds other images than those that were trained on"]
    for name in differing:
        if name not in ("data.content", "below"):
            group, _, rest = name.partition(".")
            number = group.removeprefix("layer ")
            shown = config.name_of(int(number), rest) if number != group else name
            now, then = ("null" if value is None else value for value in (after.get(name), before[name]))
            told.append(f"{shown}: {now}, but {group if number != group else 'the run'} was trained with {then}")
    return told


def _flat(settings: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
