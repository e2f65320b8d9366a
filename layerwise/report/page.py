"""The report page: report.html, one file that holds the table, the settings and every figure of a run."""

import base64
import html
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from layerwise.report.summary import rows
from layerwise.run.files import commit
from layerwise.run.run import Run


def save_figure(path: Path, figure: npt.NDArray[np.uint8]) -> None:
    """Write a figure (H, W, 3) as a PNG file."""
    commit(path, lambda temporary: Image.fromarray(figure).save(temporary, "PNG"))


def write_report(run: Run, summary: Mapping[str, Any]) -> Path:
    """Write report.html, one file that holds the table, the settings and every figure of the run directory.

    Returns:
        Its path.
    """
    header, *body = rows(summary)
    settings = (run.path / "config.yaml").read_text(encoding="utf-8")
    cells = "".join(f"<th>{name}</th>" for name in header)
    lines = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in body)
    figures = "".join(_figure(path) for path in _paths(run, summary["depth"]))
    name = html.escape(run.path.resolve().name)
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
    path = run.path / "report.html"
    commit(path, lambda temporary: temporary.write_text(page, encoding="utf-8"))
    return path


CAPTIONS = {
    "accuracy": "Validation accuracy against depth",
    "confusion": "Test images of each class (rows, in %) by predicted class",
    "atoms": "atoms of the dictionary, whitening undone",
    "usage": "share of patches for which each atom is among the nearest",
}


def _paths(run: Run, depth: int) -> list[Path]:
    names = ["accuracy", "confusion"]
    names += [f"layer-{number}-{kind}" for number in range(1, depth + 1) for kind in ("atoms", "usage")]
    return [path for name in names if (path := run.path / f"{name}.png").exists()]


def _figure(path: Path) -> str:
    _, number, kind = ("", "", path.stem) if "-" not in path.stem else path.stem.split("-")
    caption = CAPTIONS[kind] if not number else f"Layer {number}: {CAPTIONS[kind]}"
    data = base64.b64encode(path.read_bytes()).decode()
    return (
        f'<figure><img alt="{caption}" src="data:image/png;base64,{data}"><figcaption>{caption}</figcaption></figure>'
    )
