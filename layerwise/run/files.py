"""Files that are written whole or not at all, and that tell whether they are as they were written."""

import errno
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from safetensors import SafetensorError, safe_open

from layerwise.config import SettingError
from layerwise.config.identity import fingerprint

if TYPE_CHECKING:  # what only tells how a run is doing needs no torch
    from torch import Tensor

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
"""what a file system answers that has no room"""
SEAL = "# what is above, as it was written: "


def commit(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file so that after a crash at any moment there is the old one, or the new one, whole.

    Raises OSError where it cannot be written, such as on a full disk; the old one is then as it was.
    """
    temporary = path.with_name(f".{path.name}.partial")
    try:
        temporary.unlink(missing_ok=True)  # a link that lies there is not followed
        write(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)
    except BaseException as error:
        temporary.unlink(missing_ok=True)  # what it takes of a full disk, which a signal would leave, too
        if isinstance(error, (OSError, SafetensorError)):
            remedy = "make room for it" if getattr(error, "errno", errno.ENOSPC) in FULL else "let it be written"
            raise OSError(f"{path} could not be written: {error}; {remedy} and give the same command") from error
        raise


def write_text(path: Path, text: str) -> None:
    """Write a text."""
    commit(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_sealed(path: Path, text: str) -> None:
    """Write a text of lines, with one more, a comment that tells whether they are as they were written."""
    write_text(path, f"{text}{SEAL}{fingerprint({'text': text})}\n")


def check_seal(path: Path) -> None:
    """Raise ValueError where a file is not as `write_sealed` wrote it."""
    text, _, seal = path.read_text(encoding="utf-8").rpartition(SEAL)
    if seal != fingerprint({"text": text}) + "\n":
        raise ValueError("it is not as it was written")


def write_json(path: Path, value: object) -> None:
    """Write a value as JSON; of names that are no UTF-8 as its escapes, which are read as they were."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    commit(path, lambda temporary: temporary.write_bytes(text.encode("utf-8", "backslashreplace")))


def write_record(path: Path, values: dict[str, Any]) -> None:
    """Write values as JSON, with a fingerprint of them."""
    write_json(path, values | {"fingerprint": fingerprint(values)})


def read_record(path: Path, check: Callable[[dict[str, Any]], object] = id) -> dict[str, Any]:
    """Read what `write_record` wrote; ValueError or OSError where it is not that.

    `check` sees the values first, to tell what another version wrote.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except RecursionError as error:
        raise ValueError(str(error)) from error
    if not isinstance(values, dict) or not values:
        raise ValueError("it holds no record")
    check(values)
    if values.pop("fingerprint", None) != fingerprint(values):
        raise ValueError("its content is not what was written")
    return values


def write_tensors(path: Path, tensors: Mapping[str, "Tensor"], about: object = None) -> None:
    """Write tensors, with a value about them, as .safetensors; the same ones give the same bytes."""
    from safetensors.torch import save_file

    held = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    # under one name, as safetensors writes several in no fixed order
    note = json.dumps({"about": about, "digest": _digest(held, about)})
    commit(path, lambda temporary: save_file(held, temporary, {"layerwise": note}))


def read_tensors(path: Path) -> tuple[dict[str, "Tensor"], Any]:
    """Read tensors and the value about them; ValueError or OSError where they are not what was written."""
    try:
        with safe_open(path, "pt") as file:
            note = json.loads((file.metadata() or {}).get("layerwise", "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, RecursionError) as error:
        raise ValueError(str(error)) from error
    about = note.get("about", note)  # what another version wrote is all there is
    if "about" in note and note.get("digest") != _digest(tensors, about):
        raise ValueError("its content is not what was written")
    return tensors, about


def _digest(tensors: Mapping[str, "Tensor"], about: object) -> str:
    sha = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        sha.update(repr((name, tensor.dtype, tuple(tensor.shape))).encode())
        sha.update(tensor.numpy().tobytes())
    return sha.hexdigest()


@overload
def output_file(option: str, path: str) -> Path: ...


@overload
def output_file(option: str, path: str | None) -> Path | None: ...


def output_file(option: str, path: str | None) -> Path | None:
    """The file that an option says to write, or that a link there leads to; SettingError if it can't be written."""
    if path is None:
        return None
    target = Path(os.path.realpath(path))
    if not target.parent.is_dir():
        raise SettingError(f"{option}: {path} cannot be written, since its folder is not there; create it first")
    if os.path.lexists(target) and not target.is_file():  # which would be replaced by a file
        raise SettingError(f"{option}: {path} is a folder, a device, a pipe or a link to itself; give a file")
    # a new file takes the place of one that is there
    if not os.access(target.parent, os.W_OK | os.X_OK) or target.exists() and not os.access(target, os.W_OK):
        raise SettingError(f"{option}: {path} cannot be written to; give a file that can")
    return target if Path(path).is_symlink() else Path(path)


def sha256(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
