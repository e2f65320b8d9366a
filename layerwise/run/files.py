"""Files that are written whole or not at all."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

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
