"""The listener that draws each layer and the whole stack in the run directory, and writes report.html."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image

from layerwise.data.splits import DataSet
from layerwise.nn.stack import FrozenStack
from layerwise.run.files import commit
from layerwise.run.record import LayerRecord
from layerwise.run.run import Run
from layerwise.training.evaluation import Evaluation

if TYPE_CHECKING:
    from layerwise.report.figures import Pixels

SHOWN = 256
"""images, at most, that usage and answers are drawn from"""


@dataclass
class Figures:
    """Draws, once there is something to draw: no figure that fails matters to another, or to the training."""

    run: Run
    data: DataSet
    device: torch.device
    """where the stack is"""

    def logged(self, layer: int, step: int, metrics: Mapping[str, float]) -> None:
        """Nothing is drawn of a step."""

    def layer_finished(self, stack: FrozenStack, records: Sequence[LayerRecord]) -> None:
        """Draw the top layer, unless an earlier process came to the end of that."""
        number = records[-1].layer
        if all((self.run.path / f"layer-{number}-{name}.png").exists() for name in ("atoms", "usage")):
            return
        draw_layer(self.run.path, stack, records[-1], self.data)

    def stack_finished(
        self, stack: FrozenStack, records: Sequence[LayerRecord], tested: Evaluation, summary: Mapping[str, Any]
    ) -> None:
        """Draw the whole stack, and write the report."""
        from layerwise.report.page import write_report

        draw_stack(self.run.path, records, self.data, tested)
        write_report(self.run, stack, records, self.data, tested, summary)


def draw_layer(folder: Path, stack: FrozenStack, record: LayerRecord, data: DataSet) -> None:
    """Draw and save the top layer: its atoms, how often each takes part, the patches that each answers to."""
    from layerwise.report import charts, figures, pictures  # which import matplotlib, once there is time

    embedding, channels = stack.layers[-1].layer.embedding, record.input_shape[0]
    some = pictures.some_of_each(data.val, SHOWN)
    draw: dict[str, Callable[[], Pixels]] = {
        "atoms": lambda: pictures.atoms_picture(embedding.patterns(), channels),
    }
    if record.sees_images:
        draw["whitened"] = lambda: pictures.atoms_picture(embedding.dictionary.whitened(), channels)
    else:
        draw["answers"] = lambda: pictures.answers_picture(stack, some)
    draw["usage"] = lambda: figures.as_array(charts.usage_chart(pictures.usage(stack, some)))  # last: see `Figures`
    _draw(folder, draw, f"layer-{record.layer}-")


def draw_stack(folder: Path, records: Sequence[LayerRecord], data: DataSet, tested: Evaluation) -> None:
    """Draw and save what a whole stack is like."""
    from layerwise.report import charts, figures

    draw: dict[str, Callable[[], Pixels]] = {
        "accuracy": lambda: figures.as_array(charts.accuracy_chart(records, tested)),
        "confusion": lambda: figures.as_array(charts.confusion_chart(tested.confusion(), data.classes)),
    }
    _draw(folder, draw)


def _draw(folder: Path, figures: Mapping[str, Callable[[], "Pixels"]], prefix: str = "") -> None:
    """Draw and save figures; one that fails is said, and lacks."""
    for name, draw in figures.items():
        path = folder / f"{prefix}{name}.png"
        try:
            save_figure(path, draw())
        except Exception as error:
            print(f"the figure {path} failed, all else goes on: {error!r}", flush=True)


def save_figure(path: Path, figure: "Pixels") -> None:
    """Write a figure (H, W, 3), or with transparency (H, W, 4), as a PNG file."""
    commit(path, lambda temporary: Image.fromarray(figure).save(temporary, "PNG"))
