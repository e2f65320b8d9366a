"""What stands at the end of a run: the table, summary.json, the pictures and report.html."""

import base64
import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from layerwise.run.directory import RunDir, commit
from layerwise.run.records import LayerRecord


def summarize(records: Sequence[LayerRecord], test_accuracy: float) -> dict[str, Any]:
    """The content of summary.json; accuracies in [0, 1]."""
    layers = [
        {
            "layer": record.layer,
            "atoms": record.atoms,
            "output_shape": record.output_shape,
            "val_accuracy": record.val_accuracy,
            "seconds": record.seconds,
        }
        for record in records
    ]
    return {
        "depth": len(records),
        "test_accuracy": test_accuracy,
        "layers": layers,
        "seconds": round(sum(record.seconds for record in records), 3),
    }


def rows(summary: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The end-of-run table, header first."""
    table: list[tuple[str, ...]] = [("layer", "atoms", "output shape", "validation", "seconds")]
    for layer in summary["layers"]:
        shape = "×".join(map(str, layer["output_shape"]))
        accuracy, seconds = f"{layer['val_accuracy']:.2%}", f"{layer['seconds']:.1f}"
        table.append((str(layer["layer"]), str(layer["atoms"]), shape, accuracy, seconds))
    return table


def print_table(table: Sequence[Sequence[str]]) -> None:
    """Print rows in columns, right-aligned."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        print("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)))


def save_picture(path: Path, picture: npt.NDArray[np.uint8]) -> None:
    """Write a picture (H, W, 3) as a PNG file."""
    commit(path, lambda temporary: Image.fromarray(picture).save(temporary, "PNG"))


def write_report(run_dir: RunDir, summary: Mapping[str, Any], settings: str) -> Path:
    """Write report.html, one file that holds the table, the settings and every picture of the run directory.

    Returns:
        Its path.
    """
    header, *body = rows(summary)
    cells = "".join(f"<th>{name}</th>" for name in header)
    lines = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in body)
    figures = "".join(_figure(path) for path in _pictures(run_dir, summary["depth"]))
    name = html.escape(run_dir.path.resolve().name)
    page = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{name} – layerwise</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 50rem; margin: 2rem auto; padding: 0 1rem; color: #222 }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums }}
th, td {{ padding: .2rem 1rem .2rem 0; text-align: right; border-bottom: 1px solid #ddd }}
img {{ max-width: 100%; image-rendering: auto }}
figure {{ margin: 2rem 0 }}
figcaption {{ color: #666 }}
pre {{ background: #f5f5f5; padding: 1rem; overflow-x: auto; font-size: 13px }}
</style></head><body>
<h1>{name}</h1>
<p>Test accuracy of the whole stack, depth {summary["depth"]}: <strong>{summary["test_accuracy"]:.2%}</strong>.
Validation accuracy is of the stack up to each layer; the seconds are those of sampling, clustering and training.</p>
<table><thead><tr>{cells}</tr></thead><tbody>{lines}</tbody></table>
{figures}
<details><summary>Settings</summary><pre>{html.escape(settings)}</pre></details>
</body></html>
"""
    path = run_dir.path / "report.html"
    commit(path, lambda temporary: temporary.write_text(page, encoding="utf-8"))
    return path


CAPTIONS = {
    "accuracy": "Validation accuracy against depth",
    "confusion": "Test images of each class (rows, in %) by predicted class",
    "atoms": "atoms of the dictionary, whitening undone",
    "usage": "share of patches for which each atom is among the nearest",
}


def _pictures(run_dir: RunDir, depth: int) -> list[Path]:
    names = ["accuracy", "confusion"]
    names += [f"layer-{number}-{kind}" for number in range(1, depth + 1) for kind in ("atoms", "usage")]
    return [path for name in names if (path := run_dir.path / f"{name}.png").exists()]


def _figure(path: Path) -> str:
    _, number, kind = ("", "", path.stem) if "-" not in path.stem else path.stem.split("-")
    caption = CAPTIONS[kind] if not number else f"Layer {number}: {CAPTIONS[kind]}"
    data = base64.b64encode(path.read_bytes()).decode()
    return (
        f'<figure><img alt="{caption}" src="data:image/png;base64,{data}"><figcaption>{caption}</figcaption></figure>'
    )
