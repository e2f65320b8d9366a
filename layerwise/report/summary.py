"""summary.json: what came of a run, as values; and its table."""

import os
import platform
import shlex
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from layerwise.data.splits import DataSet
from layerwise.run.record import LayerRecord
from layerwise.training.evaluation import Evaluation
from layerwise.version import VERSION


def summarize(
    records: Sequence[LayerRecord], tested: Evaluation, data: DataSet, stopped: str | None = None
) -> dict[str, Any]:
    """The content of summary.json; accuracies in [0, 1]. `stopped` says why the stack is no deeper."""
    names = ("layer", "atoms", "output_shape", "val_accuracy", "seconds")
    layers = [
        {name: getattr(record, name) for name in names}
        | {"train_accuracy": record.best.get("train_accuracy"), "advice": record.advice}
        for record in records
    ]
    splits = {"train": data.train, "val": data.val, "test": data.test}
    counts = {name: torch.bincount(split.labels, minlength=len(data.classes)) for name, split in splits.items()}
    return {
        "depth": len(records),
        "test_accuracy": tested.accuracies[-1],
        "layers": [layer | {"test_accuracy": value} for layer, value in zip(layers, tested.accuracies, strict=True)],
        "seconds": round(sum(record.seconds for record in records), 3),
        "stopped": stopped,
        "images": {name: count.tolist() for name, count in counts.items()},
        "made": _circumstances(),
    }


def rows(summary: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The end-of-run table, header first; its last column says what would help, if accuracies tell."""
    table: list[tuple[str, ...]] = [("layer", "atoms", "output shape", "training", "validation", "seconds", "may help")]
    for layer in summary["layers"]:
        accuracies = (layer["train_accuracy"], layer["val_accuracy"])
        measured = *("-" if value is None else f"{value:.2%}" for value in accuracies), f"{layer['seconds']:.1f}"
        shape = "×".join(map(str, layer["output_shape"]))
        table.append((str(layer["layer"]), str(layer["atoms"]), shape, *measured, layer["advice"]))
    return table


def _circumstances() -> dict[str, str]:
    """When, by what command and on what a run is finished."""
    program = Path(sys.argv[0]).name
    by_command = program in ("layerwise", "train.py", "__main__.py")
    command = ["layerwise", *(["train"] if program == "train.py" else []), *sys.argv[1:]]
    device = f"{os.cpu_count()} × {_processor()}"
    if torch.cuda.is_available():
        device = f"{torch.cuda.get_device_name()}, {device}"
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "command": shlex.join(command) if by_command else "layerwise.train, from Python",
        "hardware": device,
        "versions": f"layerwise {VERSION}, torch {torch.__version__}, Python {platform.python_version()}",
    }


def _processor() -> str:
    """The processor's name, as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
