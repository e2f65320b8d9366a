"""A page that compares runs: seeds joined into means, what differs as columns."""

import json
import os
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from layerwise.config.identity import decisive, fingerprint
from layerwise.errors import SettingError
from layerwise.report.charts import comparison_chart
from layerwise.report.figures import as_svg
from layerwise.report.page import template
from layerwise.run.files import commit, read_tensors
from layerwise.run.record import LayerRecord
from layerwise.run.run import IMAGES, Run


@dataclass(frozen=True)
class Compared:
    """A run, as far as it got."""

    run: Run
    settings: dict[str, Any]
    """that decide what comes out, but for the seed"""
    seed: int
    records: list[LayerRecord]
    tested: list[float]
    """test accuracies at depth 1, 2, …; empty where the run has not come to its end"""


def write_comparison(runs: Sequence[Run], out: Path) -> None:
    """Compare runs that have a finished layer; SettingError where one has none, or is given twice."""
    paths = [run.path.resolve() for run in runs]
    for path in paths:
        if paths.count(path) > 1:
            raise SettingError(f"RUN: {path} is given twice; give each run once")
    groups: dict[str, list[Compared]] = {}
    for one in map(_read, runs):
        groups.setdefault(json.dumps(one.settings, sort_keys=True, default=str), []).append(one)
    several = list(groups.values())
    names = list(dict.fromkeys(name for group in several for name in group[0].settings))
    differing = [name for name in names if len({repr(group[0].settings.get(name)) for group in several}) > 1]
    rows = []
    for number, group in enumerate(several, 1):
        depth = max(len(one.records) for one in group)
        rows.append(
            {
                "number": number,
                "runs": [(one.run.path.name, _address(one.run.path, out), one.seed) for one in group],
                "values": [group[0].settings.get(name, "–") for name in differing],
                "depths": [
                    {
                        "depth": i + 1,
                        "validation": _mean([one.records[i].val_accuracy for one in group if len(one.records) > i]),
                        "test": _mean([one.tested[i] for one in group if len(one.tested) > i]),
                        "seconds": statistics.mean(
                            sum(record.seconds for record in one.records[: i + 1])
                            for one in group
                            if len(one.records) > i
                        ),
                    }
                    for i in range(depth)
                ],
            }
        )
    values = {
        "rows": rows,
        "differing": differing,
        "chart_svg": as_svg(comparison_chart(rows)),
        "common": {name: value for name, value in several[0][0].settings.items() if name not in differing},
    }
    page = template("comparison.html").render(values)
    commit(out, lambda temporary: temporary.write_text(page, "utf-8", "replace"))


def _read(run: Run) -> Compared:
    records, config = run.finished(), run.config
    settings = {name: value for name, value in decisive(config).items() if name != "seed"}
    settings["data.images"] = _images_of(run)
    try:
        summary = json.loads((run.path / "summary.json").read_text(encoding="utf-8"))
        tested = [float(layer["test_accuracy"]) for layer in summary["layers"]]
    except (OSError, ValueError, KeyError, TypeError):
        tested = []
    return Compared(run, settings, config.seed, records, tested if len(tested) == len(records) else [])


def _images_of(run: Run) -> str:
    """What stands for all images of a run, however they were split."""
    try:
        images = read_tensors(run.path / IMAGES)[0]["images"]
    except (OSError, ValueError, KeyError):
        return "unknown"
    return fingerprint({"images": sorted(images.tolist())})[:6]


def _mean(values: list[float]) -> tuple[float, float | None, int] | None:
    """Mean, standard deviation where there are several, and how many there are."""
    if not values:
        return None
    return statistics.mean(values), statistics.stdev(values) if len(values) > 1 else None, len(values)


def _address(path: Path, out: Path) -> str | None:
    """Where a run's own page is, seen from the page that compares."""
    page = path.resolve() / "report.html"
    return quote(os.fsencode(os.path.relpath(page, out.resolve().parent))) if page.exists() else None
