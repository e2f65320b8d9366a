"""Files that are written whole or not at all."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from layerwise.config import SettingError


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


def write_tensors(path: Path, tensors: dict[str, Tensor], metadata: object = None) -> None:
    """Write tensors, with a value about them, as .safetensors; the same ones give the same bytes."""
    held = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    # under one name, as safetensors writes several in no fixed order
    about = {} if metadata is None else {"layerwise": json.dumps(metadata)}
    commit(path, lambda temporary: save_file(held, temporary, about))


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a file; SafetensorError or OSError where it is damaged."""
    with safe_open(path, "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def read_metadata(path: Path) -> dict[str, Any]:
    """Read what was written about the tensors of a file, {} where that was nothing; raises as `read_tensors`."""
    with safe_open(path, "pt") as file:
        return dict(json.loads((file.metadata() or {}).get("layerwise", "{}")))


def write_json(path: Path, value: object) -> None:
    """Write a value as JSON."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    commit(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def check_writable(option: str, path: str | None) -> None:
    """Refuse, by the option that names it, a file that could not be written in the end."""
    if path is None:
        return
    target = Path(path).resolve()
    if not target.parent.is_dir():
        raise SettingError(f"{option}: {path} cannot be written, since its folder is not there; create it first")
    if target.is_dir() or not os.access(target if target.exists() else target.parent, os.W_OK):
        raise SettingError(f"{option}: {path} is a folder or cannot be written to; give a file that can")


def sha256(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
