"""What `import layerwise` offers: to train a stack as the command does, and to load and use one."""

import contextlib
from os import PathLike
from typing import Any

import numpy as np
import torch
from torch import Tensor

from layerwise import ahead
from layerwise import config as settings
from layerwise.config import Config, SettingError
from layerwise.config.identity import default_run_dir
from layerwise.config.run import plain
from layerwise.console import print_table
from layerwise.data.batches import EVALUATION_BATCH
from layerwise.data.images import to_input
from layerwise.data.splits import DataSet, load_data
from layerwise.nn.stack import FrozenStack
from layerwise.parsing import parse
from layerwise.report.page import Figures, rows, summarize
from layerwise.run.files import write_json
from layerwise.run.record import LayerRecord
from layerwise.run.run import Run
from layerwise.run.tracker import Tracker
from layerwise.training.depth import check_fit
from layerwise.training.evaluation import confusion
from layerwise.training.listeners import tell
from layerwise.training.stack import train_stack


def train(
    config: Config,
    run_dir: str | PathLike[str] | None = None,
    data: DataSet | None = None,
    restart_from: int | None = None,
) -> Run:
    """Check all that can be checked, then train what the run does not hold yet, test it, and print the results.

    Without `run_dir` the run's directory is that of the configuration, or else one for these settings; without `data`,
    it learns from what the configuration says. Layers from `restart_from` on are deleted and trained anew.

    Raises:
        SettingError: something does not fit; nothing has been written.
        TrainingFailed: the loss is not finite.
        DamagedRun: a file of the run directory is not as it was written.
    """
    device = device_of(config.trainer)
    if device.type == "cpu":
        ahead.finish()
    data = data or load_data(config.data, config.seed)
    check_fit(config, data.shape, len(data.train))
    run = Run(run_dir or config.run_dir or default_run_dir(config))
    run.check(config, data, restart_from)
    counts = f"{len(data.train)} training, {len(data.val)} validation and {len(data.test)} test images"
    shape = "×".join(map(str, data.shape))
    print(f"data: {config.data.name}, {counts}, {shape}, {len(data.classes)} classes", flush=True)
    with contextlib.ExitStack() as ending:
        ending.callback(run.release)
        run.start(config, data, restart_from)
        tracker = Tracker(config.wandb, run.path, plain(config))
        ending.push(lambda error, *_: tracker.close(0 if error is None else 1))
        figures = Figures(run, tracker, data, device)
        stack, records = train_stack(config, data, run, device, [tracker, figures])
        tested = confusion(stack.layers, data.test, len(data.classes), device)  # the only time that they are looked at
        summary = summarize(records, float(tested.diag().sum()) / float(tested.sum()))
        write_json(run.path / "summary.json", summary)
        tell([tracker, figures], "stack_finished", stack, records, tested, summary)
        print()
        print_table(rows(summary))
        print(f"\ntest accuracy at depth {summary['depth']}: {summary['test_accuracy']:.2%}")
        print(f"run directory: {run.path}\nreport: {run.path / 'report.html'}\nW&B: {tracker.place}")
    return run


def recipe(name: str, *options: str) -> Config:
    """A configuration from a recipe or a settings file and options, as of `train.py --depth 2`: "digits", "--depth=2".

    Raises:
        SettingError: something that was given is not right.
    """
    return parse([f"--config={name}", *options])[0]


class TrainedStack:
    """The frozen layers of a run, with the preprocessing that they were trained with.

    `stack` holds the layers, `records` what layer.json says of each, `classes` names in the order of the logits, and
    `input_shape` is (C, H, W) of the images.
    """

    def __init__(self, stack: FrozenStack, records: list[LayerRecord]) -> None:
        self.stack, self.records, self.classes = stack, records, records[0].classes
        c, h, w = records[0].input_shape
        self.input_shape = (c, h, w)

    def to(self, device: torch.device | str) -> "TrainedStack":
        """Compute on another device from now on."""
        self.stack.to(device)
        return self

    @property
    def device(self) -> torch.device:
        """Where the layers are."""
        return next(self.stack.parameters()).device

    def transform(self, images: Any, layer: int | None = None) -> Tensor:
        """Compute the output of a layer, counted from 1, or of the top layer: (n, D, h', w') float32, on the CPU.

        Images are a tensor or an array of any n, 0 included, or a single one: (n, C, H, W) or (C, H, W), uint8 in
        [0, 255] or floating point in [0, 1].

        Raises:
            ValueError: images of another shape, range or type, or no such layer.
        """
        number = len(self.records) if layer is None else layer
        if not 1 <= number <= len(self.records):
            raise ValueError(f"layer: {layer} is not one of the layers 1 to {len(self.records)}")
        return self._run(images, number)[0]

    def predict(self, images: Any) -> Tensor:
        """Classify images, given as to `transform`: positions in `classes`, (n,) int64, on the CPU."""
        return self._run(images, len(self.records))[1].argmax(1)

    def _run(self, images: Any, depth: int) -> tuple[Tensor, Tensor]:
        x = torch.as_tensor(images if isinstance(images, Tensor) else np.asarray(images))
        given = tuple(x.shape)
        if x.ndim == 3:
            x = x[None]
        if x.ndim != 4 or tuple(x.shape[1:]) != self.input_shape:
            c, h, w = self.input_shape
            raise ValueError(f"images: shape {given}, but the stack was trained on (n, {c}, {h}, {w})")
        if x.dtype != torch.uint8 and not x.dtype.is_floating_point:
            raise ValueError(f"images: type {x.dtype}; give uint8 in [0, 255] or floating point in [0, 1]")
        if x.dtype.is_floating_point and len(x) and bool((x < 0).any() or (x > 1).any() or x.isnan().any()):
            found = f"values from {float(x.min()):g} to {float(x.max()):g}"
            raise ValueError(f"images: {found}; floating point images range from 0 to 1")
        part = self.stack.below(depth + 1)
        outputs, logits = [torch.empty(0, *part.layers[-1].shape)], [torch.empty(0, len(self.classes))]
        for chunk in torch.split(x, EVALUATION_BATCH):
            inputs = to_input(chunk) if chunk.dtype == torch.uint8 else chunk.float() * 2 - 1
            for kept, values in zip((outputs, logits), part(inputs.to(self.device)), strict=True):
                kept.append(values.cpu())
        return torch.cat(outputs), torch.cat(logits)


def load(run_dir: str | PathLike[str]) -> TrainedStack:
    """Read the finished layers of a run directory. Nothing in it can run code.

    Raises:
        FileNotFoundError: there is no finished layer.
        DamagedRun: a file is not as it was written.
    """
    run = Run(run_dir)
    records = run.records
    return TrainedStack(run.stack(records), records)


def device_of(trainer: settings.Trainer) -> torch.device:
    """What computes a run; SettingError if a GPU is asked for, and there is none."""
    found = torch.cuda.is_available()
    if trainer.accelerator == "gpu" and not found:
        raise SettingError("trainer.accelerator: gpu, but torch finds none here; give cpu or auto")
    return torch.device("cuda" if found and trainer.accelerator != "cpu" else "cpu")
