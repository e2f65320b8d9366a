"""What `import layerwise` offers: to train a stack as the command does, and to load and use one."""

import contextlib
from dataclasses import replace
from numbers import Integral
from os import PathLike

import torch

from layerwise import ahead, processes
from layerwise import config as settings
from layerwise.config import Config, SettingError
from layerwise.config.identity import default_run_dir
from layerwise.console import print_table
from layerwise.data.splits import DataSet, load_data
from layerwise.launcher import together
from layerwise.ops import as_torch_begins
from layerwise.parsing import parse
from layerwise.processes import agreed, by_first, in_turn
from layerwise.report.listener import Figures
from layerwise.report.summary import rows, summarize
from layerwise.report.tracking import Tracking, described
from layerwise.run.files import write_json
from layerwise.run.run import Run
from layerwise.run.tracker import Tracker
from layerwise.training.depth import check_data
from layerwise.training.evaluation import evaluate
from layerwise.training.listeners import Listener, tell
from layerwise.training.stack import train_stack


@as_torch_begins()
def train(
    config: Config,
    run_dir: str | PathLike[str] | None = None,
    data: DataSet | None = None,
    restart_from: int | None = None,
) -> Run:
    """Check all that can be checked, then train what the run does not hold yet, test it, and print the results.

    Without `run_dir` the run's directory is that of the configuration, or else one for these settings. `data`, such as
    `layerwise.dataset(images, labels)`, stands in place of what the configuration says of `data`, and the run records
    it so. Layers from `restart_from` on are deleted and trained anew. With several processes, as `trainer` says, the
    program that calls this is started again for each.

    Raises:
        SettingError: something does not fit; nothing has been written.
        TrainingFailed: the loss is not finite.
        DamagedRun: a file of the run directory is not as it was written.
    """
    if not isinstance(config, Config):
        raise SettingError(f"config: {type(config).__name__} is none; give a layerwise.Config, or layerwise.recipe(…)")
    if data is not None and not isinstance(data, DataSet):
        raise SettingError(f"data: {type(data).__name__} is none; give layerwise.dataset(images, labels), or None")
    if restart_from is not None and not (isinstance(restart_from, Integral) and 1 <= restart_from <= config.deepest):
        raise SettingError(f"restart_from: {restart_from} is not one of the layers 1 to {config.deepest}")
    with together(config.trainer):
        return _train(config, run_dir, data, restart_from)


def _train(config: Config, run_dir: str | PathLike[str] | None, given: DataSet | None, restart_from: int | None) -> Run:
    """Do what `train` does, in each of the processes that there are."""
    device = agreed(device_of, config.trainer)
    if device.type == "cpu":
        in_turn(ahead.finish)
    data = given or agreed(load_data, config.data, config.seed)
    config = replace(config, data=data.settings)
    agreed(check_data, config, data)
    agreed(_check_divided, config, data, by_first(lambda: data.digest))
    run = Run(run_dir or config.run_dir or default_run_dir(config, digest=data.digest))
    by_first(run.check, config, data, restart_from)
    counts = f"{len(data.train)} training, {len(data.val)} validation and {len(data.test)} test images"
    shape = "×".join(map(str, data.shape))
    print(f"data: {config.data.name}, {counts}, {shape}, {len(data.classes)} classes", flush=True)
    with contextlib.ExitStack() as ending:
        ending.callback(run.release)
        by_first(run.start, config, data, restart_from)
        tracker = Tracker(config.wandb, run.path, described(config, data))
        ending.push(lambda error, *_: tracker.close(0 if error is None else 1))
        listeners: tuple[Listener, ...] = ()
        if processes.rank() == 0:
            listeners = Figures(run, data, device), Tracking(tracker, run, data, device, config.deepest)
        stack, records, stopped = train_stack(config, data, run, device, listeners)

        def finish() -> None:
            tested = evaluate(stack, data.test, device)  # the only time that they are looked at
            summary = summarize(records, tested, data, stopped)
            write_json(run.path / "summary.json", summary)
            tell(listeners, "stack_finished", stack, records, tested, summary)
            print()
            print_table(rows(summary))
            print(f"\ntest accuracy at depth {summary['depth']}: {summary['test_accuracy']:.2%}")
            print(f"run directory: {run.path}\nreport: {run.path / 'report.html'}\nW&B: {tracker.place}")

        by_first(finish)
    return run


def _check_divided(config: Config, data: DataSet, digest: str) -> None:
    """Refuse more processes than there is work for, and images that are not those of the first process."""
    if (count := config.trainer.processes) > len(data.val):
        few = f"{len(data.val)} validation images, of which each needs one"
        raise SettingError(f"trainer.devices: {count} processes, but {few}; give fewer, or more of --data.validation")
    if data.digest != digest:
        raise SettingError(f"data: process {processes.rank()} has other images than the first; give all the same")


def recipe(name: str, *options: str) -> Config:
    """A configuration from a recipe or a settings file and options, as of `train.py --depth 2`: "digits", "--depth=2".

    Raises:
        SettingError: something that was given is not right.
    """
    config, _, restart_from = parse([f"--config={name}", *options])
    if restart_from is not None:
        raise SettingError(f"restart_from: {restart_from} is no setting of a configuration; give it to layerwise.train")
    return config


def device_of(trainer: settings.Trainer) -> torch.device:
    """What computes a run; SettingError if a GPU is asked for, or needed, and there is none."""
    found = torch.cuda.is_available()
    if trainer.accelerator == "gpu" and not found:
        raise SettingError("trainer.accelerator: gpu, but torch finds none here; give cpu or auto")
    device = torch.device("cuda" if found and trainer.accelerator != "cpu" else "cpu")
    if device.type == "cpu" and trainer.precision == "16-mixed":
        raise SettingError("trainer.precision: 16-mixed needs a GPU; give bf16-mixed, or 32-true")
    return device
