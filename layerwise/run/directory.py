"""A run's files: written whole or not at all, checked when read, and never mixed with another run's.

config.yaml                 the whole configuration
layer-1/dictionary.safetensors
        last.ckpt           while the layer trains
        layer.safetensors   the finished layer and its probe
        layer.json          written last: it exists when, and only when, the layer is finished
summary.json, report.html, *.png, wandb/
"""

import fcntl
import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from layerwise.config.run import Config, SettingError, plain


class RunInUse(SettingError):
    """Another process is training in the run directory."""


class DamagedRun(RuntimeError):
    """A file of a run directory is not what was written; the message names it and says what to do."""


def commit(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file so that after a crash at any moment there is the old one, or the new one, whole."""
    temporary = path.with_name(f".{path.name}.partial")
    write(temporary)
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)


def settings_of(config: Config, number: int, digest: str) -> dict[str, Any]:
    """All that the weights of layer `number` depend on, by the names that the command uses."""
    data = {name: value for name, value in asdict(config.data).items() if name not in ("root", "download")}
    settings: dict[str, Any] = {"seed": config.seed, "data": data | {"content": digest[:16]}}
    settings["optimizer"] = asdict(config.optimizer)
    settings["trainer"] = {"precision": config.trainer.precision}
    if number > 1:
        settings["features"] = asdict(config.features)
    for i in range(1, number + 1):
        settings[f"layer {i}"] = asdict(config.layer_config(i))
    return settings


def fingerprint(settings: dict[str, Any]) -> str:
    """SHA-256 of settings."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def sha256(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class RunDir:
    """The directory of one run.

    Args:
        path: may be missing; nothing is written before `start`.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._lock = -1

    def layer(self, number: int) -> Path:
        """The folder of a layer."""
        return self.path / f"layer-{number}"

    def check(self, config: Config, digest: str) -> None:
        """Refuse a directory that cannot be used, or that other settings have already trained in.

        Raises:
            SettingError: naming the directory, or the first setting that has changed.
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
            trained = self._settings(number)
            if trained is not None:
                self._refuse_change(trained, settings_of(config, number, digest))

    def _settings(self, number: int) -> dict[str, Any] | None:
        """The settings with which a layer was begun; None where it was not."""
        path = self.layer(number) / "dictionary.safetensors"
        if not path.exists():
            return None
        try:
            with safe_open(path, "pt") as file:
                settings: dict[str, Any] = json.loads(file.metadata()["settings"])
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            raise self._damaged(path, number) from error
        return settings

    def _refuse_change(self, old: dict[str, Any], new: dict[str, Any]) -> None:
        for group, value in old.items():
            before = value if isinstance(value, dict) else {"": value}
            after = new.get(group) if isinstance(value, dict) else {"": new.get(group)}
            for name in before:
                if after is None or before[name] != after.get(name):
                    now = None if after is None else after.get(name)
                    raise SettingError(
                        f"{group}{'.' if name and ' ' not in group else ' '}{name}".rstrip()
                        + f": {now}, but {self.path} was trained with {before[name]}; "
                        "give that, move the folder away, or give another --run_dir"
                    )

    def start(self, config: Config, digest: str) -> None:
        """Take the directory into use: create it, keep other processes out, check it, write config.yaml.

        Raises:
            RunInUse: another process is training in it.
            SettingError: it was trained with other settings.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT)  # freed with the process, at the latest
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self.release()
            raise RunInUse(
                f"run_dir: {self.path} is in use by another process; wait for it or give another folder"
            ) from error
        self.check(config, digest)
        text = yaml.safe_dump(plain(config), sort_keys=False, allow_unicode=True)
        commit(self.path / "config.yaml", lambda path: path.write_text(text))

    def release(self) -> None:
        """Let other processes, and further trainings of this one, use the directory."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def save_tensors(self, number: int, name: str, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
        """Write a .safetensors file of a layer; the same tensors give the same bytes."""
        self.layer(number).mkdir(exist_ok=True)
        held = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
        commit(self.layer(number) / name, lambda path: save_file(held, path, metadata))

    def load_tensors(self, number: int, name: str) -> dict[str, Tensor]:
        """Read a .safetensors file of a layer.

        Raises:
            DamagedRun: the file is not as it was written.
        """
        path = self.layer(number) / name
        try:
            with safe_open(path, "pt") as file:
                return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise self._damaged(path, number) from error

    def finish_layer(self, number: int, record: dict[str, Any]) -> None:
        """Write layer.json, with the SHA-256 of the layer's files: from here on the layer is finished."""
        folder = self.layer(number)
        files = {name: sha256(folder / name) for name in ("dictionary.safetensors", "layer.safetensors")}
        self.save_json(f"layer-{number}/layer.json", record | {"files": files})
        (folder / "last.ckpt").unlink(missing_ok=True)

    def finished(self, number: int) -> dict[str, Any] | None:
        """The record of a finished layer, its files checked; None where the layer is not finished.

        Raises:
            DamagedRun: a file differs from the one that was written.
        """
        path = self.layer(number) / "layer.json"
        if not path.exists():
            return None
        try:
            record: dict[str, Any] = json.loads(path.read_text())
            files = record["files"]
        except (ValueError, KeyError, TypeError) as error:
            raise self._damaged(path, number) from error
        for name in ("dictionary.safetensors", "layer.safetensors"):
            file = self.layer(number) / name
            if not file.exists() or sha256(file) != files.get(name):
                raise self._damaged(file, number)
        return record

    def leave_out(self, number: int, out: bool) -> None:
        """Mark a finished layer as no part of the stack, or take the mark off."""
        if out:
            self._mark(number).touch()
        else:
            self._mark(number).unlink(missing_ok=True)

    def is_left_out(self, number: int) -> bool:
        """Whether a finished layer is no part of the stack."""
        return self._mark(number).exists()

    def _mark(self, number: int) -> Path:
        return self.layer(number) / "left-out"

    def save_json(self, name: str, value: object) -> None:
        """Write a JSON file of the run."""
        commit(self.path / name, lambda path: path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n"))

    def _damaged(self, path: Path, number: int) -> DamagedRun:
        return DamagedRun(
            f"{path} is missing or damaged; delete {self.layer(number)} and the layers above it to train them again"
        )
