"""A run's directory: its files are written whole or not at all, checked when read, and never mixed with another run's.

config.yaml                 the whole configuration
images.safetensors          of every image a hash, to tell which ones have changed
layer-1/dictionary.safetensors
        last.ckpt           while the layer trains
        layer.safetensors   the finished layer and its probe
        layer.json          written last: it exists when, and only when, the layer is finished
        excluded            where depth auto found that the layer does not help
summary.json, report.html, *.png, wandb/
"""

import os
import secrets
import shutil
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml
from torch import Tensor

from layerwise.config import Config
from layerwise.config.identity import changes, fingerprint, settings_of
from layerwise.config.run import plain
from layerwise.data.content import Content
from layerwise.data.splits import DataSet, load_data
from layerwise.errors import DamagedRun, SettingError
from layerwise.nn.dictionary import PatchDictionary
from layerwise.nn.layer import ProbedLayer, build_layer
from layerwise.nn.stack import FrozenStack
from layerwise.parsing import read_config
from layerwise.run.files import check_seal, read_record, read_tensors, sha256, write_record, write_sealed, write_tensors
from layerwise.run.lock import Lock
from layerwise.run.record import LayerRecord
from layerwise.version import VERSION

FORMAT = 4
"""of the files; 1 had no number and other names of settings and tensors, 2 did not tie a layer to the one below, of 3
not every bit was checked"""
DICTIONARY, CHECKPOINT, LAYER, RECORD = "dictionary.safetensors", "last.ckpt", "layer.safetensors", "layer.json"
"""of a layer, in the order in which they are written"""
CONFIG, IMAGES = "config.yaml", "images.safetensors"


class Run:
    """One run: its directory, which may be missing, and what is in it; nothing is written before `start`.

    Where a file is not as it was written, whatever reads it raises DamagedRun.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._lock = Lock(self.path)

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    # what was trained

    @property
    def config(self) -> Config:
        """The whole configuration; SettingError where the directory holds no run."""
        path = self._settings_file()
        try:
            check_seal(path)
            return read_config(path)
        except (ValueError, OSError) as error:
            self.record(1)  # of another version, which says so best
            remedy = "the command that made the run writes it anew; make changes in a copy of it"
            raise DamagedRun(f"{path} is damaged or was edited ({error}); {remedy}") from error

    def _settings_file(self) -> Path:
        path = self.path / CONFIG
        if not path.is_file():
            raise SettingError(f"RUN: {self.path} is not a run directory; give one, such as runs/digits-seed0")
        return path

    @property
    def records(self) -> list[LayerRecord]:
        """Of every finished layer up to the depth of the run, from the first, but for one that is excluded."""
        found: list[LayerRecord] = []
        while (record := self.record(len(found) + 1)) and not (self.layer(record.layer) / "excluded").exists():
            found.append(record)
        return found[: self.config.deepest] if (self.path / CONFIG).exists() and found else found

    def finished(self) -> list[LayerRecord]:
        """The records of a run that has a finished layer; SettingError where it has none, or is no run."""
        self._settings_file()
        if not (records := self.records):
            raise SettingError(f"RUN: {self.path} holds no finished layer; train one first")
        return records

    def stack(self, records: Sequence[LayerRecord] | None = None) -> FrozenStack:
        """The finished layers, of `records` if they were read already; FileNotFoundError where there is none."""
        if not (records := self.records if records is None else records):
            remedy = "give the directory of a run, such as runs/digits-seed0"
            raise FileNotFoundError(f"{self.path} holds no finished layer; {remedy}")
        return FrozenStack(map(self.load_layer, records))

    def data(self, root: str | None = None) -> DataSet:
        """The data that the run was trained on, in folder `root` if it has moved; SettingError where it has changed."""
        records, config = self.records, self.config  # layers of another version say so best
        where = root or config.data.root
        data = load_data(replace(config.data, root=where, download=False), config.seed)
        if records and data.digest[:16] != records[0].settings["data"]["content"]:
            lacks = f"{where} does not hold the data that {self.path} was trained on ({self.changed(data)})"
            raise SettingError(f"data.root: {lacks}; give --data.root")
        return data

    def changed(self, data: DataSet) -> str:
        """How many images have been added, removed and changed since the run began, in words."""
        try:
            tensors, _ = read_tensors(self.path / IMAGES)
            return data.content - Content(tensors["images"], tensors["names"])
        except (ValueError, OSError, KeyError):
            return f"{self.path / IMAGES} no longer tells which"

    # the directory

    def layer(self, number: int) -> Path:
        """The folder of a layer."""
        return self.path / f"layer-{number}"

    def check(self, config: Config, data: DataSet, restart_from: int | None = None) -> None:
        """Refuse a directory that cannot be used, or, by every setting that has changed, one that others trained in.

        What is to be deleted, from layer `restart_from` on, may be anything.
        """
        if any("\ud800" <= letter <= "\udfff" for letter in str(self.path)):
            raise SettingError(f"run_dir: {str(self.path)!r} is not UTF-8; give a name that is")
        if self.path.exists() and not self.path.is_dir():
            raise SettingError(f"run_dir: {self.path} is a file; give a folder")
        existing = next(path for path in (self.path, *self.path.parents) if path.exists())
        if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
            raise SettingError(f"run_dir: {self.path} cannot be written to; give a folder that can")
        if not self.path.exists():
            return
        visible = [path for path in self.path.iterdir() if not path.name.startswith(".")]
        if visible and not (self.path / CONFIG).exists():
            raise SettingError(f"run_dir: {self.path} holds files but no run; give an empty or a new folder")
        for number in range(1, restart_from or config.deepest + 1):
            if self.layer(number).is_symlink():
                raise SettingError(f"run_dir: {self.layer(number)} is a link; put the folder itself there")
            if (begun := self._begun_with(number)) is None:
                continue
            if self.record(number) is None:  # which finds what is damaged
                self._check_below(number, begun)
            now = settings_of(config, number, data.digest)
            if told := changes(begun, now, config, lambda: self.changed(data)):
                remedy = f"give what it was trained with, another --run_dir, or --restart_from {number}"
                raise SettingError(f"{'; '.join(told)} in {self.path}: {remedy}")

    def start(self, config: Config, data: DataSet, restart_from: int | None = None) -> None:
        """Take the directory into use: create it, keep other processes out (RunInUse), check it, write config.yaml.

        From layer `restart_from` on, all layers are deleted; nothing else here deletes what was trained.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock.acquire()
        self.check(config, data, restart_from)
        if restart_from is not None:
            self._delete_from(restart_from)
        text = yaml.safe_dump(plain(config), sort_keys=False, allow_unicode=True)
        write_sealed(self.path / CONFIG, text)
        write_tensors(self.path / IMAGES, {"images": data.content.images, "names": data.content.names})

    def _delete_from(self, number: int) -> None:
        """Delete layers, the top one first, so that what a kill leaves is a stack."""
        folders = {int(path.name[6:]): path for path in self.path.glob("layer-*") if path.name[6:].isdecimal()}
        for i, folder in sorted(folders.items(), reverse=True):
            if i >= number:
                print(f"layer {i}: deleted, as --restart_from {number} says", flush=True)
                folder.rename(gone := self.path / f".deleted-{secrets.token_hex(4)}")  # at once
                shutil.rmtree(gone)
                for figure in self.path.glob(f"layer-{i}-*.png"):
                    figure.unlink()
        for told in ("summary.json", "report.html"):  # of what is no longer there
            (self.path / told).unlink(missing_ok=True)

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
        if self._begun_with(number) is None:
            return None
        tensors = self._read(number, DICTIONARY)[0]
        return PatchDictionary(tensors["mean"], tensors["whitening"], tensors["atoms"])

    def save_layer(self, layer: ProbedLayer, record: LayerRecord) -> LayerRecord:
        """Write a finished layer, then its record, which makes it count."""
        trained = {name: value for name, value in layer.state_dict().items() if ".dictionary." not in name}
        folder = self.layer(record.layer)
        write_tensors(folder / LAYER, trained)
        versions = {"layerwise": VERSION} | {name: version(name) for name in ("torch", "lightning")}
        files = {name: sha256(folder / name) for name in (DICTIONARY, LAYER)}
        write_record(folder / RECORD, vars(record) | {"format": FORMAT, "versions": versions, "files": files})
        (folder / CHECKPOINT).unlink(missing_ok=True)
        return record

    def record(self, number: int) -> LayerRecord | None:
        """Read a finished layer's record, its files checked; None where the layer is not finished."""
        path = self.layer(number) / RECORD
        if not path.exists():
            return None
        try:
            values = read_record(path, lambda values: self._check_format(number, values))
            record = LayerRecord(**{name: values[name] for name in LayerRecord.__dataclass_fields__})
            if record.layer != number:
                raise ValueError(f"it is of layer {record.layer}")
            _ = record.config
            files = dict(values["files"])
        except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
            raise self._damaged(path, number, error) from error
        for name in (DICTIONARY, LAYER):
            file = self.layer(number) / name
            if not file.exists() or sha256(file) != files.get(name):
                raise self._damaged(file, number)
        self._check_below(number, record.settings)
        return record

    def identity(self, number: int) -> str:
        """What stands for the files of a layer, to the layer above it; nothing where the layer is not finished."""
        path = self.layer(number) / RECORD
        return fingerprint(read_record(path)["files"]) if path.exists() else ""

    def _check_below(self, number: int, settings: dict[str, Any]) -> None:
        """Refuse a layer that was trained on another layer than the one that the run holds now."""
        if number > 1 and settings.get("below") != self.identity(number - 1):
            other = f"another layer {number - 1} than {self.layer(number - 1)} holds"
            raise DamagedRun(f"{self.layer(number)} was trained on {other}; {_again(number)}")

    def load_layer(self, record: LayerRecord) -> ProbedLayer:
        """Read a finished layer."""
        dictionary = self.dictionary(record.layer)
        assert dictionary is not None
        c, h, w = record.input_shape
        layer = build_layer(record.config, dictionary, (c, h, w), len(record.classes))
        fixed = {name: value for name, value in layer.state_dict().items() if ".dictionary." in name}
        try:
            layer.load_state_dict(fixed | self._read(record.layer, LAYER)[0])
        except RuntimeError as error:
            raise self._damaged(self.layer(record.layer) / LAYER, record.layer, error) from error
        return layer

    def _begun_with(self, number: int) -> dict[str, Any] | None:
        """The settings with which a layer was begun; None where it was not."""
        path = self.layer(number) / DICTIONARY
        if not path.exists():
            if later := [name for name in (CHECKPOINT, LAYER, RECORD) if (self.layer(number) / name).exists()]:
                raise self._damaged(path, number, f"missing, though there is {later[0]}")
            return None
        about = self._read(number, DICTIONARY)[1]
        try:
            self._check_format(number, about)
            return dict(about["settings"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise self._damaged(path, number, error) from error

    def _read(self, number: int, name: str) -> tuple[dict[str, Tensor], Any]:
        path = self.layer(number) / name
        try:
            return read_tensors(path)
        except (ValueError, OSError) as error:
            raise self._damaged(path, number, error) from error

    def _check_format(self, number: int, about: dict[str, Any]) -> None:
        if (found := about.get("format", 1)) != FORMAT:
            formats = f"format {found}, this one reads {FORMAT}"
            remedy = "give another --run_dir to train anew, or read it with that version"
            raise DamagedRun(f"{self.layer(number)} was written by another version of layerwise ({formats}); {remedy}")

    def _damaged(self, path: Path, number: int, why: object = "") -> DamagedRun:
        reason = f" ({' '.join(str(why).split())})" if str(why) else ""
        return DamagedRun(f"{path} is missing or damaged{reason}; {_again(number)}")


def _again(number: int) -> str:
    return f"give --restart_from {number} to train it and the layers above it again"
