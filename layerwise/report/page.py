"""What a run shows: the listener that draws each layer and the whole stack, the table at its end, report.html."""

import base64
import html
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from layerwise.data.batches import Batches
from layerwise.data.splits import DataSet
from layerwise.nn.stack import FrozenStack
from layerwise.report.summary import rows
from layerwise.run.files import commit
from layerwise.run.record import LayerRecord
from layerwise.run.run import Run
from layerwise.run.tracker import Tracker
from layerwise.training.evaluation import Evaluation

Pixels = npt.NDArray[np.uint8]
OF_STACK = {"accuracy": "Validation accuracy against depth"}
OF_STACK["confusion"] = "Test images of each class (rows, in %) by predicted class"
OF_LAYER = {"atoms": "atoms of the dictionary, whitening undone"}
OF_LAYER["usage"] = "share of patches for which each atom is among the nearest"


@dataclass
class Figures:
    """A listener that draws each layer, for the run directory and for W&B."""

    run: Run
    tracker: Tracker
    data: DataSet
    device: torch.device
    """where the stack is"""

    def logged(self, layer: int, step: int, metrics: Mapping[str, float]) -> None:
        """Nothing is drawn of a step."""

    def layer_finished(self, stack: FrozenStack, records: Sequence[LayerRecord]) -> None:
        """Draw the top layer, unless an earlier process came to the end of that."""
        record = records[-1]
        files = {name: self.run.path / f"layer-{record.layer}-{name}.png" for name in ("atoms", "usage")}
        if all(file.exists() for file in files.values()):
            return

        from layerwise.report import figures as draw  # imports matplotlib, once there is time

        top, shape = stack.layers[-1].layer, record.input_shape
        some = partial(next, iter(Batches(self.data.val, device=self.device)))
        figures = {"atoms": lambda: draw.atoms_figure(top.embedding.patterns(), shape[0])}
        figures["usage"] = lambda: draw.usage_figure(stack, some()[0])
        drawn = self._drawn(figures, lambda name: files[name])
        self.tracker.figures({f"layer{record.layer}/{name}": figure for name, figure in drawn.items()})

    def stack_finished(
        self, stack: FrozenStack, records: Sequence[LayerRecord], tested: Evaluation, summary: Mapping[str, Any]
    ) -> None:
        """Draw the whole stack, and write the report."""
        from layerwise.report import figures as draw

        figures = {"accuracy": lambda: draw.accuracy_figure(records)}
        figures["confusion"] = lambda: draw.confusion_figure(tested.confusion(), self.data.classes)
        self.tracker.figures(self._drawn(figures, lambda name: self.run.path / f"{name}.png"))
        write_report(self.run, summary)

    def _drawn(self, figures: Mapping[str, Callable[[], Pixels]], place: Callable[[str], Path]) -> dict[str, Pixels]:
        """Draw and save figures; one that fails is said, and lacks."""
        drawn = {}
        for name, draw in figures.items():
            try:
                drawn[name] = draw()
                save_figure(place(name), drawn[name])
            except Exception as error:
                print(f"the figure {place(name)} failed, all else goes on: {error!r}", flush=True)
        return drawn


def save_figure(path: Path, figure: Pixels) -> None:
    """Write a figure (H, W, 3) as a PNG file."""
    commit(path, lambda temporary: Image.fromarray(figure).save(temporary, "PNG"))


def write_report(run: Run, summary: Mapping[str, Any]) -> None:
    """Write report.html, one file that holds the table, the settings and every figure of the run directory."""
    header, *body = rows(summary)
    settings = (run.path / "config.yaml").read_text(encoding="utf-8")
    cells = "".join(f"<th>{name}</th>" for name in header)
    lines = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in body)
    captions = dict(OF_STACK)
    for number in range(1, summary["depth"] + 1):
        captions |= {f"layer-{number}-{kind}": f"Layer {number}: {caption}" for kind, caption in OF_LAYER.items()}
    figures = ""
    for stem, caption in captions.items():
        if (path := run.path / f"{stem}.png").exists():
            source = f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"
            figures += f'<figure><img alt="{caption}" src="{source}"><figcaption>{caption}</figcaption></figure>'
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
    commit(run.path / "report.html", lambda temporary: temporary.write_text(page, "utf-8", "replace"))
