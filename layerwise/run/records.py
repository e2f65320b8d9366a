"""Layers in a run directory: how they are written and read back."""

import json
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from layerwise.config.layer import LayerConfig
from layerwise.nn.dictionary import PatchDictionary
from layerwise.nn.layer import FrozenStack, ProbedLayer
from layerwise.run.directory import DamagedRun, RunDir, fingerprint

_DICTIONARY = "dictionary.safetensors"
_LAYER = "layer.safetensors"


def save_dictionary(run_dir: RunDir, number: int, dictionary: PatchDictionary, settings: dict[str, Any]) -> None:
    """Write a layer's dictionary, and the settings that led to it."""
    run_dir.save_tensors(number, _DICTIONARY, dictionary.state_dict(), {"settings": json.dumps(settings)})


def saved_dictionary(run_dir: RunDir, number: int) -> PatchDictionary | None:
    """Read a layer's dictionary; None where there is none yet."""
    if not (run_dir.layer(number) / _DICTIONARY).exists():
        return None
    tensors = run_dir.load_tensors(number, _DICTIONARY)
    return PatchDictionary(tensors["mean"], tensors["whitening"], tensors["atoms"])


@dataclass(frozen=True)
class LayerRecord:
    """layer.json: what a finished layer is, and how well it does."""

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
    """of sampling, clustering and every epoch that was finished; a dictionary read back on a resume costs nothing"""
    settings: dict[str, Any]
    """all that the weights depend on"""

    @property
    def config(self) -> LayerConfig:
        """The layer's own settings."""
        return LayerConfig(**self.settings[f"layer {self.layer}"])


def save_layer(run_dir: RunDir, layer: ProbedLayer, record: LayerRecord) -> None:
    """Write a finished layer, then its record, which makes it count."""
    trained = {name: value for name, value in layer.state_dict().items() if ".dictionary." not in name}
    run_dir.save_tensors(record.layer, _LAYER, trained, {})
    versions = {name: _version(name) for name in ("layerwise", "torch", "lightning")}
    run_dir.finish_layer(
        record.layer, vars(record) | {"fingerprint": fingerprint(record.settings), "versions": versions}
    )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # a source folder that is used without being installed
        return "unknown"


def saved_record(run_dir: RunDir, number: int) -> LayerRecord | None:
    """Read a finished layer's record; None where the layer is not finished.

    Raises:
        DamagedRun: a file of the layer is not as it was written.
    """
    values = run_dir.finished(number)
    if values is None:
        return None
    try:
        record = LayerRecord(**{name: values[name] for name in LayerRecord.__dataclass_fields__})
        if fingerprint(record.settings) != values["fingerprint"] or record.layer != number:
            raise ValueError("the settings are not those that were written")
        _ = record.config
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedRun(
            f"{run_dir.layer(number) / 'layer.json'} is damaged ({error}); "
            f"delete {run_dir.layer(number)} and the layers above it to train them again"
        ) from error
    return record


def load_layer(run_dir: RunDir, record: LayerRecord) -> ProbedLayer:
    """Read a finished layer.

    Raises:
        DamagedRun: a file is not as it was written, or another version wrote it.
    """
    dictionary = saved_dictionary(run_dir, record.layer)
    assert dictionary is not None
    c, h, w = record.input_shape
    layer = ProbedLayer(dictionary, record.config, (c, h, w), len(record.classes))
    try:
        layer.load_state_dict(layer.state_dict() | run_dir.load_tensors(record.layer, _LAYER))
    except RuntimeError as error:
        raise DamagedRun(
            f"{run_dir.layer(record.layer)} was written by another version of layerwise, which names its tensors "
            "otherwise; train it again in another --run_dir, or read it with that version"
        ) from error
    return layer


def load_stack(run_dir: RunDir) -> tuple[FrozenStack, list[LayerRecord]]:
    """Read all finished layers of a run, but for one that was left out.

    Raises:
        FileNotFoundError: there is no finished layer.
        DamagedRun: a file is not as it was written.
    """
    layers: list[ProbedLayer] = []
    records: list[LayerRecord] = []
    while (record := saved_record(run_dir, len(records) + 1)) is not None and not run_dir.is_left_out(record.layer):
        layers.append(load_layer(run_dir, record))
        records.append(record)
    if not records:
        raise FileNotFoundError(f"{run_dir.path} holds no finished layer; train one with: python train.py --depth 1")
    return FrozenStack(layers, len(records[0].classes)), records
