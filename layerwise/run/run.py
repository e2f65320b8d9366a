"""A run's directory: its files are written whole or not at all, checked when read, and never mixed with another run's.

config.yaml                 the whole configuration
layer-1/dictionary.safetensors
        last.ckpt           while the layer trains
        layer.safetensors   the finished layer and its probe
        layer.json          written last: it exists when, and only when, the layer is finished
        excluded            where depth auto found that the layer does not help
summary.json, report.html, *.png, wandb/
"""

import json
import os
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import filelock
import yaml
from safetensors import SafetensorError
from torch import Tensor

from layerwise.config import Config
from layerwise.config.identity import changes, fingerprint, settings_of
from layerwise.config.run import plain
from layerwise.data.splits import DataSet, load_data
from layerwise.errors import DamagedRun, RunInUse, SettingError
from layerwise.nn.dictionary import PatchDictionary
from layerwise.nn.layer import ProbedLayer, build_layer
from layerwise.nn.stack import FrozenStack
from layerwise.parsing import read_config
from layerwise.run.files import commit, read_metadata, read_tensors, sha256, write_json, write_tensors
from layerwise.run.record import LayerRecord
from layerwise.version import VERSION

FORMAT = 3
"""of the files; 1 had no number and other names of settings and tensors, 2 did not tie a layer to the one below"""
DICTIONARY, LAYER = "dictionary.safetensors", "layer.safetensors"


class Run:
    """One run: its directory, which may be missing, and what is in it; nothing is written before `start`.

    Where a file is not as it was written, whatever reads it raises DamagedRun.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._lock = filelock.FileLock(self.path / ".lock")  # freed with the process, at the latest

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    # what was trained

    @property
    def config(self) -> Config:
        """The whole configuration; SettingError where the directory holds no run."""
        path = self._settings_file()
        try:
            return read_config(path)
        except (SettingError, OSError) as error:
            remedy = "the command that made the run writes it anew"
            raise DamagedRun(f"{path} is damaged, or of another version ({error}); {remedy}") from error

    def _settings_file(self) -> Path:
        path = self.path / "config.yaml"
        if not path.is_file():
            raise SettingError(f"RUN: {self.path} is not a run directory; give one, such as runs/digits-seed0")
        return path

    @property
    def records(self) -> list[LayerRecord]:
        """Of every finished layer from the first, but for one that is excluded."""
        found: list[LayerRecord] = []
        while (record := self.record(len(found) + 1)) and not (self.layer(record.layer) / "excluded").exists():
            found.append(record)
        return found

    def finished(self) -> list[LayerRecord]:
        """The records of a run that has a finished layer; SettingError where it has none, or is no run."""
        self._settings_file()
        if not (records := self.records):
            raise SettingError(f"RUN: {self.path} holds no finished layer; train one first")
        return records

    def stack(self) -> FrozenStack:
        """The finished layers; FileNotFoundError where there is none."""
        if not (records := self.records):
            remedy = "give the directory of a run, such as runs/digits-seed0"
            raise FileNotFoundError(f"{self.path} holds no finished layer; {remedy}")
        return FrozenStack(self.load_layer(record) for record in records)

    def data(self, root: str | None = None) -> DataSet:
        """The data that the run was trained on, in folder `root` if it has moved; SettingError where it has changed."""
        records, config = self.records, self.config  # layers of another version say so best
        where = root or config.data.root
        data = load_data(replace(config.data, root=where, download=False), config.seed)
        if records and data.digest[:16] != records[0].settings["data"]["content"]:
            lacks = f"{where} does not hold the data that {self.path} was trained on"
            raise SettingError(f"data.root: {lacks}; give --data.root")
        return data

    # the directory

    def layer(self, number: int) -> Path:
        """The folder of a layer."""
        return self.path / f"layer-{number}"

    def check(self, config: Config, digest: str) -> None:
        """Refuse a directory that cannot be used, or, by every setting that has changed, one that others trained in."""
        if self.path.exists() and not self.path.is_dir():
            raise SettingError(f"run_dir: {self.path} is a file; give a folder")
        existing = next(path for path in (self.path, *self.path.parents) if path.exists())
        if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
            raise SettingError(f"run_dir: {self.path} cannot be written to; give a folder that can")
        if not self.path.exists():
            return
        visible = [path for path in self.path.iterdir() if not path.name.startswith(".")]
        if visible and not (self.path / "config.yaml").exists():
            raise SettingError(f"run_dir: {self.path} holds files but no run; give an empty or a new folder")
        for number in range(1, config.deepest + 1):
            if (begun := self._begun_with(number)) is None:
                continue
            if self.record(number) is None:  # which finds what is damaged
                self._check_below(number, begun)
            if told := changes(begun, settings_of(config, number, digest), config):
                remedy = "give what it was trained with, or another --run_dir"
                raise SettingError(f"{'; '.join(told)} in {self.path}: {remedy}")

    def start(self, config: Config, digest: str) -> None:
        """Take the directory into use: create it, keep other processes out (RunInUse), check it, write config.yaml."""
        self.path.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire(blocking=False)
        except filelock.Timeout as error:
            used = f"run_dir: {self.path} is in use by another process"
            raise RunInUse(f"{used}; wait for it or give another folder") from error
        self.check(config, digest)
        text = yaml.safe_dump(plain(config), sort_keys=False, allow_unicode=True)
        commit(self.path / "config.yaml", lambda path: path.write_text(text, encoding="utf-8"))

    def release(self) -> None:
        """Let other processes, and further trainings of this one, use the directory."""
        self._lock.release()

    def exclude(self, number: int, out: bool = True) -> None:
        """Mark a finished layer as no part of the stack, or take the mark off."""
        mark = self.layer(number) / "excluded"
        if out:
            mark.touch()
        else:
            mark.unlink(missing_ok=True)

    # layers

    def save_dictionary(self, number: int, dictionary: PatchDictionary, settings: dict[str, Any]) -> PatchDictionary:
        """Write a layer's dictionary, and the settings that led to it.

        What is returned is what `dictionary` will read, so that a resumed training has the same bits, on a GPU, too.
        """
        self.layer(number).mkdir(exist_ok=True)
        about = {"format": FORMAT, "settings": settings}
        write_tensors(self.layer(number) / DICTIONARY, dictionary.state_dict(), about)
        return PatchDictionary(dictionary.mean.cpu(), dictionary.whitening.cpu(), dictionary.atoms.cpu())

    def dictionary(self, number: int) -> PatchDictionary | None:
        """Read a layer's dictionary; None where there is none yet."""
        if not (self.layer(number) / DICTIONARY).exists():
            return None
        tensors = self._load_tensors(number, DICTIONARY)
        return PatchDictionary(tensors["mean"], tensors["whitening"], tensors["atoms"])

    def save_layer(self, layer: ProbedLayer, record: LayerRecord) -> LayerRecord:
        """Write a finished layer, then its record, which makes it count."""
        trained = {name: value for name, value in layer.state_dict().items() if ".dictionary." not in name}
        folder = self.layer(record.layer)
        write_tensors(folder / LAYER, trained)
        value = vars(record) | {"format": FORMAT, "fingerprint": fingerprint(record.settings)}
        value["versions"] = {"layerwise": VERSION} | {name: version(name) for name in ("torch", "lightning")}
        value["files"] = {name: sha256(folder / name) for name in (DICTIONARY, LAYER)}
        write_json(folder / "layer.json", value)
        (folder / "last.ckpt").unlink(missing_ok=True)
        return record

    def record(self, number: int) -> LayerRecord | None:
        """Read a finished layer's record, its files checked; None where the layer is not finished."""
        path = self.layer(number) / "layer.json"
        if not path.exists():
            return None
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            self._check_format(number, values.get("format"))
            record = LayerRecord(**{name: values[name] for name in LayerRecord.__dataclass_fields__})
            if fingerprint(record.settings) != values["fingerprint"] or record.layer != number:
                raise ValueError("the settings are not those that were written")
            _ = record.config
            files = dict(values["files"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise self._damaged(path, number) from error
        for name in (DICTIONARY, LAYER):
            file = self.layer(number) / name
            if not file.exists() or sha256(file) != files.get(name):
                raise self._damaged(file, number)
        self._check_below(number, record.settings)
        return record

    def identity(self, number: int) -> str:
        """What stands for the files of a layer, to the layer above it; nothing where the layer is not finished."""
        path = self.layer(number) / "layer.json"
        return fingerprint(json.loads(path.read_text(encoding="utf-8"))["files"]) if path.exists() else ""

    def _check_below(self, number: int, settings: dict[str, Any]) -> None:
        """Refuse a layer that was trained on another layer than the one that the run holds now."""
        if number > 1 and settings.get("below") != self.identity(number - 1):
            other = f"another layer {number - 1} than {self.layer(number - 1)} holds"
            raise DamagedRun(f"{self.layer(number)} was trained on {other}; {self._delete(number)}")

    def load_layer(self, record: LayerRecord) -> ProbedLayer:
        """Read a finished layer."""
        dictionary = self.dictionary(record.layer)
        assert dictionary is not None
        c, h, w = record.input_shape
        layer = build_layer(record.config, dictionary, (c, h, w), len(record.classes))
        try:
            fixed = {name: value for name, value in layer.state_dict().items() if ".dictionary." in name}
            layer.load_state_dict(fixed | self._load_tensors(record.layer, LAYER))
        except RuntimeError as error:
            raise self._damaged(self.layer(record.layer) / LAYER, record.layer) from error
        return layer

    def _begun_with(self, number: int) -> dict[str, Any] | None:
        """The settings with which a layer was begun; None where it was not."""
        path = self.layer(number) / DICTIONARY
        if not path.exists():
            return None
        try:
            about = read_metadata(path)
            self._check_format(number, about.get("format"))
            return dict(about["settings"])
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            raise self._damaged(path, number) from error

    def _load_tensors(self, number: int, name: str) -> dict[str, Tensor]:
        path = self.layer(number) / name
        try:
            return read_tensors(path)
        except (SafetensorError, OSError) as error:
            raise self._damaged(path, number) from error

    def _check_format(self, number: int, found: int | None) -> None:
        if found != FORMAT:
            formats = f"format {found or 1}, this one reads {FORMAT}"
            remedy = "give another --run_dir to train anew, or read it with that version"
            raise DamagedRun(f"{self.layer(number)} was written by another version of layerwise ({formats}); {remedy}")

    def _damaged(self, path: Path, number: int) -> DamagedRun:
        return DamagedRun(f"{path} is missing or damaged; {self._delete(number)}")

    def _delete(self, number: int) -> str:
        return f"delete {self.layer(number)} and the layers above it to train them again"
