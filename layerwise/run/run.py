"""A run's directory: its files are written whole or not at all, checked when read, and never mixed with another run's.

config.yaml                 the whole configuration
images.safetensors          of every image a hash, to tell which ones have changed
layer-1/dictionary.safetensors
        last.ckpt           while the layer trains
        layer.safetensors   the finished layer and its probe
        layer.json          written last: it exists when, and only when, the layer is finished
summary.json, report.html, *.png, wandb/
"""

import os
import secrets
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from layerwise.config import Config
from layerwise.config.identity import changes, settings_of
from layerwise.config.run import plain
from layerwise.errors import DamagedRun, NoRun, SettingError
from layerwise.parsing import read_config
from layerwise.run.files import check_seal, read_tensors, write_sealed, write_tensors
from layerwise.run.folder import CHECKPOINT, RECORD, LayerFolder
from layerwise.run.history import forget
from layerwise.run.lock import Lock
from layerwise.run.record import LayerRecord

if TYPE_CHECKING:  # settings and records are read without torch
    from layerwise.data.splits import DataSet
    from layerwise.nn.stack import FrozenStack

CONFIG, IMAGES = "config.yaml", "images.safetensors"


class Run:
    """One run: its directory, which may be missing, and what is in it; nothing is written before `start`.

    Where a file is not as it was written, whatever reads it raises DamagedRun.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(os.path.expanduser(path))
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
        if not path.is_file() and (self.path / "layer-1").exists():
            raise DamagedRun(f"{path} is missing; the command that made the run writes it anew")
        if not path.is_file():
            raise SettingError(f"RUN: {self.path} is not a run directory; give one, such as runs/digits-seed0")
        return path

    @property
    def records(self) -> list[LayerRecord]:
        """Of every finished layer up to the depth of the run, from the first; with depth auto, while they help."""
        found = self.every_record
        return self.chosen(found, self.config) if found and (self.path / CONFIG).exists() else found

    @property
    def every_record(self) -> list[LayerRecord]:
        """Of every finished layer, from the first, whatever the depth."""
        found: list[LayerRecord] = []
        while record := self.record(len(found) + 1):
            found.append(record)
        return found

    def chosen(self, found: list[LayerRecord], config: Config) -> list[LayerRecord]:
        """Those of finished layers, one or more, that make the stack of this configuration, which must be theirs."""
        known = found[-1].settings
        if told := changes(known, settings_of(config, len(found), known["data"]["content"]), config, str):
            raise DamagedRun(
                f"{self.path / CONFIG} is of another run ({'; '.join(told)}); give the command that made it"
            )
        found = found[: config.deepest]
        useless = (i for i in range(1, len(found)) if not found[i].helps(found[i - 1]))
        return found[: next(useless, len(found))] if config.depth == "auto" else found

    def finished(self) -> list[LayerRecord]:
        """The records of a run that has a finished layer; SettingError where it has none, or is no run."""
        self._settings_file()
        if not (records := self.records):
            self.check_gap(0)
            raise SettingError(f"RUN: {self.path} holds no finished layer; train one first")
        return records

    def check_gap(self, count: int) -> None:
        """Refuse finished layers above the first `count`, since the one below them is missing."""
        for above in sorted(self.path.glob(f"layer-*/{RECORD}")):
            if above.parent.name[6:].isdecimal() and (number := int(above.parent.name[6:])) > count:
                self.record(number)  # which finds that

    def stack(self, records: Sequence[LayerRecord] | None = None) -> "FrozenStack":
        """The finished layers, of `records` if they were read already; NoRun where there is none."""
        from layerwise.nn.stack import FrozenStack

        if not (records := self.records if records is None else records):
            remedy = "give the directory of a run, such as runs/digits-seed0"
            found = "holds no finished layer" if self.path.is_dir() else "is not a folder"
            raise NoRun(f"RUN: {self.path} {found}; {remedy}")
        self._check_name()
        return FrozenStack(self.layer(record.layer).load(record) for record in records)

    def data(self, root: str | None = None) -> "DataSet":
        """The data that the run was trained on, in folder `root` if it has moved; SettingError where it has changed."""
        from layerwise.data.splits import load_data

        records, config = self.records, self.config  # layers of another version say so best
        where = root or config.data.root
        data = load_data(replace(config.data, root=where, download=False), config.seed)
        if records and data.digest[:16] != records[0].settings["data"]["content"]:
            lacks = f"{where} does not hold the data that {self.path} was trained on ({self.changed(data)})"
            raise SettingError(f"data.root: {lacks}; give --data.root")
        return data

    def changed(self, data: "DataSet") -> str:
        """How many images have been added, removed and changed since the run began, in words."""
        from layerwise.data.content import Content

        try:
            tensors, _ = read_tensors(self.path / IMAGES)
            return data.content - Content(tensors["images"], tensors["names"])
        except (ValueError, OSError, KeyError):
            return f"{self.path / IMAGES} no longer tells which"

    # the directory

    def layer(self, number: int) -> LayerFolder:
        """The files of a layer."""
        return LayerFolder(self.path, number)

    def record(self, number: int) -> LayerRecord | None:
        """The record of a finished layer, which must stand on the layer below; None where it is not finished."""
        if record := self.layer(number).record():
            self._check_below(number, record.settings)
        return record

    def _check_below(self, number: int, settings: dict[str, Any]) -> None:
        """Refuse a layer that was trained on another layer than the one that the run holds now."""
        own, below = self.layer(number), self.layer(number - 1)
        if number > 1 and settings.get("below") and not below.identity():
            remedy = f"put it back, or give --restart_from {number - 1}"
            raise DamagedRun(f"{below.path / RECORD} is missing, though {own.path} was trained on that layer; {remedy}")
        if number > 1 and settings.get("below") != below.identity():
            raise DamagedRun(f"{own.path} was trained on another layer than {below.path} holds; {own.again}")

    def check(self, config: Config, data: "DataSet", restart_from: int | None = None) -> None:
        """Refuse a directory that cannot be used, or, by every setting that has changed, one that others trained in.

        What is to be deleted, from layer `restart_from` on, may be anything.
        """
        self._check_name()
        try:
            existing = next(path for path in (self.path, *self.path.parents) if path.exists())
        except OSError as error:  # such as of a name that is too long
            raise SettingError(f"run_dir: {self.path}: {error.strerror}; give another folder") from error
        if existing == self.path and not existing.is_dir():
            raise SettingError(f"run_dir: {self.path} is a file; give a folder")
        if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
            raise SettingError(f"run_dir: {self.path} cannot be written to; give a folder that can")
        if not self.path.exists():
            return
        visible = [path for path in self.path.iterdir() if not path.name.startswith(".")]
        if visible and not (self.path / CONFIG).exists() and not (self.path / "layer-1").exists():
            raise SettingError(f"run_dir: {self.path} holds files but no run; give an empty or a new folder")
        for number in range(1, restart_from or config.deepest + 1):
            if (own := self.layer(number)).path.is_symlink():
                raise SettingError(f"run_dir: {own.path} is a link; put the folder itself there")
            if (begun := own.begun_with()) is None:
                continue
            if self.record(number) is None:  # which finds what is damaged
                self._check_below(number, begun)
            now = settings_of(config, number, data.digest)
            if told := changes(begun, now, config, lambda: self.changed(data)):
                remedy = f"give what it was trained with, another --run_dir, or --restart_from {number}"
                raise SettingError(f"{'; '.join(told)} in {self.path}: {remedy}")

    def _check_name(self) -> None:
        """Refuse a name that is no UTF-8, in which tensors are neither written nor read."""
        if any("\ud800" <= letter <= "\udfff" for letter in str(self.path)):
            raise SettingError(f"run_dir: {str(self.path)!r} is not UTF-8; give a name that is")

    def start(self, config: Config, data: "DataSet", restart_from: int | None = None) -> None:
        """Take the directory into use: create it, keep other processes out (RunInUse), check it, write config.yaml.

        From layer `restart_from` on, all layers are deleted; nothing else here deletes what was trained.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock.acquire()
        self.check(config, data, restart_from)
        if restart_from is not None:
            self._delete_from(restart_from)
        for left in self.path.glob(".deleted-*"):  # by a kill, too, which also leaves what is found next
            if left.is_dir() and not left.is_symlink():
                shutil.rmtree(left)
            else:
                left.unlink()
        for left in self.path.rglob(".*.partial"):
            left.unlink()
        for record in self.path.glob(f"layer-*/{RECORD}"):
            record.with_name(CHECKPOINT).unlink(missing_ok=True)  # likewise
        text = yaml.safe_dump(plain(config), sort_keys=False, allow_unicode=True)
        write_sealed(self.path / CONFIG, text)
        write_tensors(self.path / IMAGES, {"images": data.content.images, "names": data.content.names})

    def _delete_from(self, number: int) -> None:
        """Set layers aside, the top one first, so that what a kill leaves is a stack; what tells of them is deleted."""
        forget(self.path / "wandb", number)  # first, as W&B would otherwise be told nothing of the new ones
        for told in ("summary.json", "report.html"):
            (self.path / told).unlink(missing_ok=True)
        folders = {int(path.name[6:]): path for path in self.path.glob("layer-*") if path.name[6:].isdecimal()}
        for i, folder in sorted(folders.items(), reverse=True):
            if i >= number:
                print(f"layer {i}: deleted, as --restart_from {number} says", flush=True)
                for figure in self.path.glob(f"layer-{i}-*.png"):
                    figure.unlink()
                folder.rename(self.path / f".deleted-{secrets.token_hex(4)}")  # all of it at once

    def holder(self) -> str | None:
        """The process that the directory is in use by, in words; None where it is free."""
        return self._lock.holder()

    def release(self) -> None:
        """Let other processes, and further trainings of this one, use the directory."""
        self._lock.release()
