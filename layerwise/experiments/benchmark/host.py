"""What a step takes beside its arithmetic: of a layer so small that there is next to none, by part."""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from layerwise.config import Features, Layer, Optimizer, Trainer
from layerwise.config.choices import OPTIMIZERS, SCHEDULES
from layerwise.console import silenced
from layerwise.data.images import Augmentation, Images
from layerwise.data.splits import DataSet
from layerwise.data.views import ViewStore
from layerwise.experiments.benchmark.steps import untrained_layer
from layerwise.nn.layer import ProbedLayer
from layerwise.nn.stack import FrozenStack
from layerwise.training.fit import fit_layer
from layerwise.training.inputs import LayerData

SMALL = Layer(patch_size=3, atoms=8, neighbors=2, channels=5, pool=2)
SHAPE, CLASSES, BATCH = (1, 6, 6), 3, 2
WARM = 50
"""steps that do not count"""


def measure_host(quick: bool) -> list[str]:
    """Milliseconds of the processor by part of a step, each the lowest of a few turns; a line for each."""
    turns, steps = (1, 100) if quick else (5, 1000)
    layer = untrained_layer(SMALL, SHAPE, CLASSES)
    rounds = [_by_part(layer, steps) for _ in range(turns)]
    found = {name: min(one[name] for one in rounds) for name in rounds[0]}
    whole = found.pop("a step")
    found |= {"accuracy, Lightning": whole - sum(found.values()), "a step": whole}
    return [f"host time, {name}: {1000 * seconds:.2f} ms" for name, seconds in found.items()]


def _by_part(layer: ProbedLayer, steps: int) -> dict[str, float]:
    """Seconds of a step and its parts."""
    data, settings = few_images(BATCH * steps), Optimizer(batch_size=BATCH)
    trained = [parameter for parameter in layer.parameters() if parameter.requires_grad]
    optimizer = OPTIMIZERS[settings.name]([{"params": trained}], settings)
    schedule = SCHEDULES[settings.schedule](optimizer, settings, 1 << 30)
    inputs = _inputs(layer, data)
    batches = list(inputs.epoch(0))  # the first time gates are found
    x, below, labels, near = batches[0]

    def forward() -> torch.Tensor:
        return F.cross_entropy(layer.said(x, below, near), labels)

    def update() -> None:
        optimizer.step()
        schedule.step()

    forward_only = seconds_of(forward, steps)
    both = seconds_of(lambda: torch.autograd.backward(forward()), steps)
    return {
        "batches": seconds_of(lambda: sum(1 for _ in inputs.epoch(0)), 1) / steps,
        "forward": forward_only,
        "backward": both - forward_only,
        "optimizer and schedule": seconds_of(update, steps),
        "a step": seconds_of_fitting(layer, data),
    }


def few_images(count: int) -> DataSet:
    """So many random images, moved and mirrored."""
    pixels = torch.randint(0, 256, (count, *SHAPE), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    images = Images(pixels, torch.arange(count) % CLASSES)
    held = images.subset(torch.arange(BATCH))
    return DataSet([str(i) for i in range(CLASSES)], images, held, held, Augmentation(flip=True, crop=1))


def seconds_of(task: Callable[[], object], times: int) -> float:
    """Of this thread, for one task."""
    for _ in range(min(WARM, times)):
        task()
    start = time.thread_time()
    for _ in range(times):
        task()
    return (time.thread_time() - start) / times


def seconds_of_fitting(layer: Any, data: DataSet) -> float:
    """Of this thread, for a step as layers are trained, in the second of two epochs."""
    begun, steps = list[float](), len(data.train) // BATCH
    said = layer.said

    def noting(*given: Any) -> torch.Tensor:
        begun.append(time.thread_time())
        logits: torch.Tensor = said(*given)
        return logits

    layer.said = noting
    try:
        with silenced(), tempfile.TemporaryDirectory() as folder:
            settings = Optimizer(epochs=2, batch_size=BATCH)
            fit_layer(layer, 1, _inputs(layer, data), settings, Trainer(), Path(folder))
    finally:
        del layer.said
    second = begun[steps + 1 : 2 * steps + 1]  # after the batch of validation images
    return (second[-1] - second[0]) / (steps - 1)


def _inputs(layer: nn.Module, data: DataSet) -> LayerData:
    ask = layer.layer.embedding.ask if isinstance(layer, ProbedLayer) else None
    store = ViewStore(Features(), data, 0, torch.device("cpu"))
    return LayerData(FrozenStack(), store, BATCH, 0, ask, SMALL.patch_size, 1000)
