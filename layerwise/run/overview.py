"""What runs there are, and how far each is; read without torch, as it should take no time."""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from layerwise.config import Config
from layerwise.run.folder import CHECKPOINT, DICTIONARY
from layerwise.run.record import LayerRecord
from layerwise.run.run import CONFIG, Run

SUMMARY = "summary.json"


@dataclass(frozen=True)
class Overview:
    """One run; None is what is not known of it."""

    name: str
    """of its folder, below the one that was searched"""
    path: str
    changed: str
    """when a file of it was last written, local time, ISO 8601"""
    problem: str | None = None
    """what is damaged, or of another version, in a clause; nothing else is then known"""
    data: str | None = None
    depth: int | None = None
    """finished layers of the stack"""
    asked: int | Literal["auto"] | None = None
    state: str | None = None
    """done; running, a process has it; in layer 2, which was begun; stopped between layers; not begun; not tested"""
    used_by: str | None = None
    """the process that has it"""
    val_accuracy: float | None = None
    """of the top layer, in [0, 1]"""
    test_accuracy: float | None = None
    """likewise"""


def overviews(folder: Path) -> list[Overview]:
    """Of every run in a folder, or below it, or of the folder itself; by name."""
    found = [overview(Run(path), str(path.relative_to(folder))) for path in _runs(folder)]
    return sorted(found, key=lambda each: each.name)


def overview(run: Run, name: str) -> Overview:
    """Of one run, whatever is in its folder."""
    path, changed = str(run.path), _changed(run.path)
    name = run.path.resolve().name if name == "." else name
    try:
        return Overview(name, path, changed, None, **_known(run))
    except Exception as error:  # a damaged file may be anything, and the others are still to be told of
        told = " ".join(str(error).split()) or type(error).__name__
        clause = told.replace(f"{run.path}/", "").partition("; ")[0]  # and not what to do
        return Overview(name, path, changed, clause + ")" * (clause.count("(") - clause.count(")")))


def _known(run: Run) -> dict[str, Any]:
    """What the files tell; what is damaged raises DamagedRun."""
    config, every, summary = run.config, run.every_record, _summary(run.path / SUMMARY)
    run.check_gap(len(every))
    records = run.chosen(every, config) if every else []
    depth, accuracy = len(records), records[-1].val_accuracy if records else None
    if summary and not every:  # of a network that has no layers of its own
        depth, accuracy = summary["depth"], summary["layers"][-1]["val_accuracy"]
    tested = summary if summary.get("depth") == depth else {}
    used_by = run.holder()
    return {
        "data": config.data.name,
        "depth": depth,
        "asked": config.depth,
        "state": "running" if used_by else _state(run, config, every, records, tested),
        "used_by": used_by,
        "val_accuracy": accuracy,
        "test_accuracy": tested.get("test_accuracy"),
    }


def _state(
    run: Run, config: Config, every: Sequence[LayerRecord], records: Sequence[LayerRecord], tested: dict[str, Any]
) -> str:
    """How far a run is that no process works on; `tested` is the summary of its depth, if there is one."""
    full = len(records) == config.deepest
    if tested and (full or tested.get("stopped") or not every):
        return "done"
    if full or config.depth == "auto" and len(every) > len(records):
        return "not tested"
    above = run.layer(len(every) + 1).path
    if (above / CHECKPOINT).exists() or (above / DICTIONARY).exists():
        return f"in layer {len(every) + 1}"
    return "stopped" if every else "not begun"


def _summary(path: Path) -> dict[str, Any]:
    """The content of summary.json; nothing where there is none."""
    if not path.exists():
        return {}
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
        return {name: summary[name] for name in ("depth", "test_accuracy", "layers")} | {
            "stopped": summary.get("stopped")
        }
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path} is damaged") from error


def _runs(folder: Path) -> Iterator[Path]:
    """Folders of runs; into them it does not look, nor into what is hidden."""
    seen = set[str]()
    for place, folders, files in os.walk(folder, followlinks=True):
        if (real := os.path.realpath(place)) in seen:  # a link to a folder above, or to one that was there
            folders.clear()
            continue
        seen.add(real)
        if CONFIG in files or "layer-1" in folders:
            folders.clear()
            yield Path(place)
        folders[:] = sorted(name for name in folders if not name.startswith("."))


def _changed(folder: Path) -> str:
    """When a file of a run was last written."""
    times = [0.0]
    for path in (*folder.glob("*"), *folder.glob("layer-*/*")):
        with suppress(OSError):  # a running process may just have replaced it
            times.append(path.lstat().st_mtime)
    return datetime.fromtimestamp(max(times)).astimezone().isoformat(timespec="seconds")
