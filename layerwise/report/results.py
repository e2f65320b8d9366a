"""What is made of a trained layer and a trained stack: pictures, the test, the files, the printed table."""

from collections.abc import Sequence

import torch
from torchmetrics.functional.classification import multiclass_confusion_matrix

from layerwise.console import progress
from layerwise.data.batches import EVALUATION_BATCH, Batches
from layerwise.data.splits import DataSet
from layerwise.nn.layer import FrozenStack
from layerwise.report.figures import accuracy_picture, atoms_picture, confusion_picture, usage_picture
from layerwise.report.page import print_table, rows, save_picture, summarize, write_report
from layerwise.run.directory import RunDir
from layerwise.run.records import LayerRecord
from layerwise.run.tracker import Tracker
from layerwise.training.inputs import FrozenInputs


class Results:
    """The results of one run.

    Args:
        run_dir: where they are written.
        tracker: the W&B run.
        data: what the run learns from.
        device: where the stack is.
    """

    def __init__(self, run_dir: RunDir, tracker: Tracker, data: DataSet, device: torch.device) -> None:
        self.run_dir = run_dir
        self.tracker = tracker
        self.data = data
        self.device = device

    def layer_finished(self, stack: FrozenStack, record: LayerRecord) -> None:
        """Draw and record the top layer, unless an earlier process came to the end of that."""
        files = {name: self.run_dir.path / f"layer-{record.layer}-{name}.png" for name in ("atoms", "usage")}
        if all(file.exists() for file in files.values()):
            return
        some, _ = next(iter(Batches(self.data.val, EVALUATION_BATCH, self.device)))
        pictures = {
            "atoms": atoms_picture(stack.layers[-1].layer.embedding.patterns(), record.input_shape[0]),
            "usage": usage_picture(stack, some),
        }
        self.tracker.layer_finished(record.layer, vars(record), pictures)
        for name, picture in pictures.items():
            save_picture(files[name], picture)

    def stack_finished(self, stack: FrozenStack, records: Sequence[LayerRecord], settings: str) -> None:
        """Test the whole stack, the only time that the test images are read; write and print the results."""
        counts = self._test(stack)
        summary = summarize(records, float(counts.diag().sum()) / float(counts.sum()))
        pictures = {
            "accuracy": accuracy_picture(records),
            "confusion": confusion_picture(counts, self.data.classes),
        }
        for name, picture in pictures.items():
            save_picture(self.run_dir.path / f"{name}.png", picture)
        self.run_dir.save_json("summary.json", summary)
        report = write_report(self.run_dir, summary, settings)
        self.tracker.stack_finished(summary, pictures)

        print()
        print_table(rows(summary))
        print(f"\ntest accuracy at depth {summary['depth']}: {summary['test_accuracy']:.2%}")
        print(f"run directory: {self.run_dir.path}\nreport: {report}\nW&B: {self.tracker.place}")

    def _test(self, stack: FrozenStack) -> torch.Tensor:
        """Counts of (true, predicted) class over the test images."""
        classes = len(self.data.classes)
        counts = torch.zeros(classes, classes, dtype=torch.long)
        inputs = FrozenInputs(stack, Batches(self.data.test, EVALUATION_BATCH, self.device))
        for _, logits, labels in progress(inputs, "testing", len(inputs)):
            counts += multiclass_confusion_matrix(logits, labels, classes).cpu()
        return counts
