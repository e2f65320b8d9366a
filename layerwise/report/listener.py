"""The listener that draws each layer and the whole stack, and writes the report page."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from layerwise.data.batches import Batches
from layerwise.data.splits import DataSet
from layerwise.nn.stack import FrozenStack
from layerwise.report.page import save_figure, write_report
from layerwise.run.record import LayerRecord
from layerwise.run.run import Run
from layerwise.run.tracker import Tracker


class Figures:
    """A listener that draws each layer, for the run directory and for W&B.

    Args:
        run: where the figures are written.
        tracker: the W&B run.
        data: what the run learns from.
        device: where the stack is.
    """

    def __init__(self, run: Run, tracker: Tracker, data: DataSet, device: torch.device) -> None:
        self.run = run
        self.tracker = tracker
        self.data = data
        self.device = device

    def logged(self, layer: int, step: int, metrics: Mapping[str, float]) -> None:
        """Nothing is drawn of a step."""

    def layer_finished(self, stack: FrozenStack, records: Sequence[LayerRecord]) -> None:
        """Draw the top layer, unless an earlier process came to the end of that."""
        record = records[-1]
        files = {name: self.run.path / f"layer-{record.layer}-{name}.png" for name in ("atoms", "usage")}
        if all(file.exists() for file in files.values()):
            return
        from layerwise.report.figures import atoms_figure, usage_figure  # imports matplotlib, once there is time

        some, _, _ = next(iter(Batches(self.data.val, device=self.device)))
        figures = {
            "atoms": atoms_figure(stack.layers[-1].layer.embedding.patterns(), record.input_shape[0]),
            "usage": usage_figure(stack, some),
        }
        self.tracker.figures({f"layer{record.layer}/{name}": figure for name, figure in figures.items()})
        for name, figure in figures.items():
            save_figure(files[name], figure)

    def stack_finished(
        self, stack: FrozenStack, records: Sequence[LayerRecord], counts: Tensor, summary: Mapping[str, Any]
    ) -> None:
        """Draw the whole stack, and write the report."""
        from layerwise.report.figures import accuracy_figure, confusion_figure

        figures: dict[str, np.ndarray] = {
            "accuracy": accuracy_figure(records),
            "confusion": confusion_figure(counts, self.data.classes),
        }
        for name, figure in figures.items():
            save_figure(self.run.path / f"{name}.png", figure)
        self.tracker.figures(figures)
        write_report(self.run, summary)
