"""What a run records in W&B: a section for each layer with its own axis, and one for the whole stack by its depth.

layer1/…     against layer1/step, which counts from the layer's start: losses, accuracies, learning rate, and by epoch
             epoch_seconds, images_per_second, memory_gb; at its end its pictures, and overlap (`nn.gates.overlap`)
summary/…    against summary/depth: accuracy (on validation images), test_accuracy, confusion_matrix, predictions
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import torch

from layerwise.config import Config
from layerwise.config.run import plain
from layerwise.data.batches import Batches
from layerwise.data.images import Images
from layerwise.data.splits import DataSet
from layerwise.nn.gates import overlap
from layerwise.nn.stack import FrozenStack
from layerwise.run.folder import DICTIONARY, LAYER, RECORD
from layerwise.run.record import LayerRecord
from layerwise.run.run import Run
from layerwise.run.tracker import Tracker, Value, picture
from layerwise.training.evaluation import Evaluation

SHOWN = 100
"""predictions in the table"""
MOST = 100
"""classes, at most, of a confusion matrix, of which W&B takes every cell as a row"""
SOME = 16
"""images whose gates are compared"""
DEPTH = "summary/depth"


def described(config: Config, data: DataSet) -> dict[str, Any]:
    """What W&B is told of a run: its settings, the numbers of images, their shape, the names of the classes."""
    images = {"train": len(data.train), "val": len(data.val), "test": len(data.test), "shape": list(data.shape)}
    return plain(config) | {"images": images, "classes": _encodable(data.classes)}


@dataclass
class Tracking:
    """A listener that records all of it; of what earlier processes recorded nothing again."""

    tracker: Tracker
    run: Run
    data: DataSet
    device: torch.device
    """where the stack is"""
    deepest: int
    """number of layers, at most"""

    def __post_init__(self) -> None:
        if not self.tracker.has("summary/test_accuracy", self.deepest):  # else nothing is left to record
            self.tracker.open()
        self._defined = set[int]()

    def logged(self, layer: int, step: int, metrics: Mapping[str, float]) -> None:
        """Log metrics of a layer at its own step; its best accuracy so far is what the summary shows."""
        group = self._group(layer)
        self.tracker.log({f"{group}/{name}": value for name, value in metrics.items()}, f"{group}/step", step)
        if "val_accuracy" in metrics and (values := self.tracker.logged(f"{group}/val_accuracy")):
            self.tracker.summarize({f"{group}/val_accuracy": max(values)})

    def layer_finished(self, stack: FrozenStack, records: Sequence[LayerRecord]) -> None:
        """Log the top layer: the accuracy at its depth, its pictures, how alike the gates of adjacent patches are."""
        if not self.tracker.is_open:
            return
        record, group = records[-1], self._group(len(records))
        self.tracker.log({"summary/accuracy": record.val_accuracy}, DEPTH, record.layer)
        names = ("val_accuracy", "seconds", "output_shape")  # "atoms" is a picture
        self.tracker.summarize({f"{group}/{name}": getattr(record, name) for name in names})
        shown, axis = self._shown(stack, record), f"{group}/step"
        self.tracker.log({f"{group}/{name}": value for name, value in shown.items()}, axis, self.tracker.last(axis))
        folder = self.run.layer(record.layer).path
        self.tracker.keep(f"layer-{record.layer}", [folder / name for name in (DICTIONARY, LAYER, RECORD)])

    def stack_finished(
        self, stack: FrozenStack, records: Sequence[LayerRecord], tested: Evaluation, summary: Mapping[str, Any]
    ) -> None:
        """Log the test: its accuracy at every depth, and of the whole stack what was taken for what."""
        if not self.tracker.is_open:
            return
        classes = _encodable(self.data.classes)
        files = [path for path in sorted(self.run.path.glob("*.png")) if not path.stem.startswith("layer-")]
        values: dict[str, Value] = {path.stem: picture(path) for path in files}
        tables = {"summary/predictions": predictions(tested, self.data.test, classes)}
        if len(classes) <= MOST:
            tables["summary/confusion_matrix"] = confusion_matrix(tested, classes)
        for name, value in (values | tables).items():  # one by one, as one that fails costs all of its call
            self.tracker.log({name: value}, DEPTH, len(records))
        for depth, accuracy in enumerate(tested.accuracies, 1):  # last, as they say that all of it was recorded
            self.tracker.log({"summary/test_accuracy": accuracy}, DEPTH, depth)
            self.tracker.summarize({f"layer{depth}/test_accuracy": accuracy})
        self.tracker.summarize({name: summary[name] for name in ("test_accuracy", "depth")})

    def _group(self, layer: int) -> str:
        """The name of a layer's section."""
        group = f"layer{layer}"
        if layer not in self._defined:
            self._defined.add(layer)
            self.tracker.define(f"{group}/epoch", hidden=True)
            self.tracker.define(f"{group}/val_accuracy", step_metric=f"{group}/step", summary="none")
        return group

    def _shown(self, stack: FrozenStack, record: LayerRecord) -> dict[str, Value]:
        """What there is to see of the top layer: the run directory's pictures of it, its maps, and its overlap."""
        from layerwise.report.pictures import atoms_picture

        start, embedding = f"layer-{record.layer}-", stack.layers[-1].layer.embedding
        files = sorted(self.run.path.glob(f"{start}*.png"))
        values: dict[str, Value] = {path.stem.removeprefix(start): picture(path) for path in files}
        if (kernels := embedding.kernels()) is not None:
            values["maps"] = picture(atoms_picture(kernels, record.input_shape[0]))
        # one image at a time, as there is a gate of each atom at each position
        some = Batches(self.data.val, 1, self.device, chosen=torch.arange(len(self.data.val))[:SOME])
        gates = (embedding.gates(stack.lower(x)[0]) for x, _, _, _ in some)
        if alike := [found for own in gates if (found := overlap(own)) is not None]:
            values["overlap"] = fmean(alike)
        return values


def predictions(tested: Evaluation, images: Images, classes: Sequence[str]) -> Callable[[Any], Any]:
    """A table of predictions of the whole stack, with images: the mistakes, the surest first, then the least sure."""
    shares, best = tested.shares[-1, :, 0], tested.ranked[-1, :, 0]
    order = torch.where(best != tested.labels, -1 - shares, shares).argsort()[:SHOWN]
    pixels = images.pixels[order.to(images.pixels.device)].cpu().permute(0, 2, 3, 1).numpy()
    seen = pixels.shape[3] in (1, 3)  # what has other channels is no picture

    def table(wandb: Any) -> Any:
        rows = [
            [
                *([wandb.Image(image)] if seen else []),
                classes[int(tested.labels[i])],
                classes[int(best[i])],
                float(shares[i]),
            ]
            for i, image in zip(order.tolist(), pixels, strict=True)
        ]
        return wandb.Table([*(["image"] if seen else []), "true", "predicted", "probability"], rows)

    return table


def confusion_matrix(tested: Evaluation, classes: Sequence[str]) -> Callable[[Any], Any]:
    """The test images of each class by predicted class, as a chart of W&B's."""
    true, predicted = tested.labels.tolist(), tested.ranked[-1, :, 0].tolist()
    return lambda wandb: wandb.plot.confusion_matrix(
        y_true=true, preds=predicted, class_names=list(classes), title="Test images by true and predicted class"
    )


def _encodable(names: Sequence[str]) -> list[str]:
    """Names that W&B can take: what is no character, such as a byte of a folder's name, becomes a question mark."""
    return [name.encode("utf-8", "replace").decode() for name in names]
