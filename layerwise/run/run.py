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
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import filelock
import yaml
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from layerwise.config import Config
from layerwise.config.run import plain
from layerwise.data.splits import DataSet, load_data
from layerwise.errors import DamagedRun, RunInUse, SettingError
from layerwise.nn.dictionary import PatchDictionary
from layerwise.nn.layer import ProbedLayer, build_layer
from layerwise.nn.stack import FrozenStack
from layerwise.parsing import read_config
from layerwise.run.files import commit, sha256, write_json
from layerwise.run.record import LayerRecord, changes, fingerprint, settings_of

FORMAT = 3
"""of the files; 1 had no number and other names of settings and tensors, 2 did not tie a layer to the one below"""
DICTIONARY, LAYER = "dictionary.safetensors", "layer.safetensors"


class Run:
    """One run: its directory, and what is in it.

    Args:
        path: the directory; may be missing, and nothing is written before `start`.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._lock: filelock.BaseFileLock | None = None

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    # what was trained

    @property
    def config(self) -> Config:
        """The whole configuration.

        Raises:
            SettingError: the directory holds no run.
            DamagedRun: config.yaml is not as it was written.
        """
        path = self.path / "config.yaml"
        if not path.is_file():
            raise SettingError(f"RUN: {self.path} is not a run directory; give one, such as runs/digits-seed0")
        try:
            return read_config(path)
        except (SettingError, OSError) as error:
            raise DamagedRun(
                f"{path} is damaged, or of another version ({error}); the command that made the run writes it anew"
            ) from error

    @property
    def records(self) -> list[LayerRecord]:
        """Of every finished layer from the first, but for one that is excluded.

        Raises:
            DamagedRun: a file of a layer is not as it was written.
        """
        found: list[LayerRecord] = []
        while (record := self.record(len(found) + 1)) is not None and not self.is_excluded(record.layer):
            found.append(record)
        return found

    def stack(self) -> FrozenStack:
        """The finished layers.

        Raises:
            FileNotFoundError: there is no finished layer.
            DamagedRun: a file of a layer is not as it was written.
        """
        records = self.records
        if not records:
            raise FileNotFoundError(
                f"{self.path} holds no finished layer; give the directory of a run, such as runs/digits-seed0"
            )
        return FrozenStack(self.load_layer(record) for record in records)

    def finished(self) -> list[LayerRecord]:
        """The records of a run that has a finished layer.

        Raises:
            SettingError: it has none, or is no run.
            DamagedRun: a file of a layer is not as it was written.
        """
        if not (self.path / "config.yaml").is_file():
            raise SettingError(f"RUN: {self.path} is not a run directory; give one, such as runs/digits-seed0")
        if not self.records:
            raise SettingError(f"RUN: {self.path} holds no finished layer; train one first")
        return self.records

    def data(self, root: str | None = None) -> DataSet:
        """The data that the run was trained on.

        Args:
            root: folder of the data, where it is not the one that the run was trained with.

        Raises:
            SettingError: the data is not to be found, or has changed.
        """
        records, config = self.records, self.config  # layers of another version say so best
        where = root or config.data.root
        data = load_data(replace(config.data, root=where, download=False), config.seed)
        if records and data.digest[:16] != records[0].settings["data"]["content"]:
            raise SettingError(
                f"data.root: {where} does not hold the data that {self.path} was trained on; give --data.root"
            )
        return data

    # the directory

    def layer(self, number: int) -> Path:
        """The folder of a layer."""
        return self.path / f"layer-{number}"

    def check(self, config: Config, digest: str) -> None:
        """Refuse a directory that cannot be used, or that other settings have already trained in.

        Raises:
            SettingError: naming the directory, or every setting that has changed.
            DamagedRun: a file of it is not as it was written.
        """
        if self.path.exists() and not self.path.is_dir():
            raise SettingError(f"run_dir: {self.path} is a file; give a folder")
        existing = self.path
        while not existing.exists():
            existing = existing.parent
        if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
            raise SettingError(f"run_dir: {self.path} cannot be written to; give a folder that can")
        if not self.path.exists():
            return
        visible = [path for path in self.path.iterdir() if not path.name.startswith(".")]
        if visible and not (self.path / "config.yaml").exists():
            raise SettingError(f"run_dir: {self.path} holds files but no run; give an empty or a new folder")
        for number in range(1, config.deepest + 1):
            begun = self._begun_with(number)
            if begun is None:
                continue
            if self.record(number) is None:  # which finds what is damaged
                self._check_below(number, begun)
            told = changes(begun, settings_of(config, number, digest), config)
            if told:
                raise SettingError(
                    f"{'; '.join(told)} in {self.path}: give what it was trained with, or another --run_dir"
                )

    def start(self, config: Config, digest: str) -> None:
        """Take the directory into use: create it, keep other processes out, check it, write config.yaml.

        Raises:
            RunInUse: another process is training in it.
            SettingError: it was trained with other settings.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock = filelock.FileLock(self.path / ".lock")  # freed with the process, at the latest
        try:
            self._lock.acquire(blocking=False)
        except filelock.Timeout as error:
            self._lock = None
            raise RunInUse(
                f"run_dir: {self.path} is in use by another process; wait for it or give another folder"
            ) from error
        self.check(config, digest)
        text = yaml.safe_dump(plain(config), sort_keys=False, allow_unicode=True)
        commit(self.path / "config.yaml", lambda path: path.write_text(text, encoding="utf-8"))

    def release(self) -> None:
        """Let other processes, and further trainings of this one, use the directory."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def save_json(self, name: str, value: object) -> None:
        """Write a JSON file of the run."""
        write_json(self.path / name, value)

    def exclude(self, number: int, out: bool = True) -> None:
        """Mark a finished layer as no part of the stack, or take the mark off."""
        if out:
            self._mark(number).touch()
        else:
            self._mark(number).unlink(missing_ok=True)

    def is_excluded(self, number: int) -> bool:
        """Whether a finished layer is no part of the stack."""
        return self._mark(number).exists()

    def _mark(self, number: int) -> Path:
        return self.layer(number) / "excluded"

    # layers

    def save_dictionary(self, number: int, dictionary: PatchDictionary, settings: dict[str, Any]) -> PatchDictionary:
        """Write a layer's dictionary, and the settings that led to it.

        Returns:
            What `dictionary` will read, so that a resumed training has the same to the bit, on a GPU, too.
        """
        # under one name, as safetensors writes several in no fixed order
        metadata = {"layerwise": json.dumps({"format": FORMAT, "settings": settings})}
        self._save_tensors(number, DICTIONARY, dictionary.state_dict(), metadata)
        return PatchDictionary(dictionary.mean.cpu(), dictionary.whitening.cpu(), dictionary.atoms.cpu())

    def dictionary(self, number: int) -> PatchDictionary | None:
        """Read a layer's dictionary; None where there is none yet.

        Raises:
            DamagedRun: the file is not as it was written.
        """
        if not (self.layer(number) / DICTIONARY).exists():
            return None
        tensors = self._load_tensors(number, DICTIONARY)
        return PatchDictionary(tensors["mean"], tensors["whitening"], tensors["atoms"])

    def save_layer(self, layer: ProbedLayer, record: LayerRecord) -> LayerRecord:
        """Write a finished layer, then its record, which makes it count."""
        trained = {name: value for name, value in layer.state_dict().items() if ".dictionary." not in name}
        self._save_tensors(record.layer, LAYER, trained, {})
        folder = self.layer(record.layer)
        value = vars(record) | {
            "format": FORMAT,
            "fingerprint": fingerprint(record.settings),
            "versions": {name: _version(name) for name in ("layerwise", "torch", "lightning")},
            "files": {name: sha256(folder / name) for name in (DICTIONARY, LAYER)},
        }
        write_json(folder / "layer.json", value)
        (folder / "last.ckpt").unlink(missing_ok=True)
        return record

    def record(self, number: int) -> LayerRecord | None:
        """Read a finished layer's record, its files checked; None where the layer is not finished.

        Raises:
            DamagedRun: a file of the layer is not as it was written.
        """
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
            raise DamagedRun(
                f"{self.layer(number)} was trained on another layer {number - 1} than {self.layer(number - 1)} holds; "
                f"delete {self.layer(number)} and the layers above it to train them again"
            )

    def load_layer(self, record: LayerRecord) -> ProbedLayer:
        """Read a finished layer.

        Raises:
            DamagedRun: a file is not as it was written.
        """
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
            with safe_open(path, "pt") as file:
                held = json.loads((file.metadata() or {}).get("layerwise", "{}"))
                self._check_format(number, held.get("format"))
                settings: dict[str, Any] = held["settings"]
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            raise self._damaged(path, number) from error
        return settings

    def _save_tensors(self, number: int, name: str, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
        """Write a .safetensors file of a layer; the same tensors give the same bytes."""
        self.layer(number).mkdir(exist_ok=True)
        held = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
        commit(self.layer(number) / name, lambda path: save_file(held, path, metadata))

    def _load_tensors(self, number: int, name: str) -> dict[str, Tensor]:
        path = self.layer(number) / name
        try:
            with safe_open(path, "pt") as file:
                return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise self._damaged(path, number) from error

    def _check_format(self, number: int, found: int | None) -> None:
        if found != FORMAT:
            raise DamagedRun(
                f"{self.layer(number)} was written by another version of layerwise (format {found or 1}, this one "
                f"reads {FORMAT}); give another --run_dir to train anew, or read it with that version"
            )

    def _damaged(self, path: Path, number: int) -> DamagedRun:
        return DamagedRun(
            f"{path} is missing or damaged; delete {self.layer(number)} and the layers above it to train them again"
        )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # a source folder that is used without being installed
        return "unknown"
