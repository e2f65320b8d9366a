"""What is made of a trained layer and a trained stack: figures and the report page."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from layerwise.data.batches import Batches
from layerwise.data.splits import DataSet
from layerwise.nn.stack import FrozenStack
from layerwise.report.page import save_picture, write_report
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
        from layerwise.report.figures import atoms_picture, usage_picture  # imports matplotlib, once there is time

        some, _, _ = next(iter(Batches(self.data.val, device=self.device)))
        pictures = {
            "atoms": atoms_picture(stack.layers[-1].layer.embedding.patterns(), record.input_shape[0]),
            "usage": usage_picture(stack, some),
        }
        self.tracker.pictures({f"layer{record.layer}/{name}": picture for name, picture in pictures.items()})
        for name, picture in pictures.items():
            save_picture(files[name], picture)

    def stack_finished(
        self, stack: FrozenStack, records: Sequence[LayerRecord], counts: Tensor, summary: Mapping[str, Any]
    ) -> None:
        """Draw the whole stack, and write the report."""
        from layerwise.report.figures import accuracy_picture, confusion_picture

        pictures: dict[str, np.ndarray] = {
            "accuracy": accuracy_picture(records),
            "confusion": confusion_picture(counts, self.data.classes),
        }
        for name, picture in pictures.items():
            save_picture(self.run.path / f"{name}.png", picture)
        self.tracker.pictures(pictures)
        write_report(self.run, summary)
