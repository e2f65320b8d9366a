"""What `import layerwise` offers: to train a stack as the command does, and to load one."""

from os import PathLike

import torch

from layerwise import ahead
from layerwise import config as settings
from layerwise.config import Config, SettingError
from layerwise.config.run import plain
from layerwise.console import print_table
from layerwise.data.splits import DataSet, load_data
from layerwise.parsing import default_run_dir, parse
from layerwise.report.listener import Figures
from layerwise.report.summary import rows, summarize
from layerwise.run.run import Run
from layerwise.run.tracker import Tracker
from layerwise.run.trained import TrainedStack
from layerwise.training.depth import check_fit
from layerwise.training.evaluation import confusion
from layerwise.training.listeners import tell
from layerwise.training.stack import train_stack


def train(config: Config, run_dir: str | PathLike[str] | None = None, data: DataSet | None = None) -> Run:
    """Check all that can be checked, then train what the run does not hold yet, test it, and print the results.

    Args:
        config: of the run.
        run_dir: the run's directory; None: what the configuration says, or else one for these settings.
        data: what to learn from; None: what the configuration says.

    Returns:
        The run, with all its layers.

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
    run, digest = Run(run_dir or config.run_dir or default_run_dir(config)), data.digest
    run.check(config, digest)
    shape = "×".join(map(str, data.shape))
    print(
        f"data: {config.data.name}, {len(data.train)} training, {len(data.val)} validation and {len(data.test)} test "
        f"images, {shape}, {len(data.classes)} classes",
        flush=True,
    )
    run.start(config, digest)
    tracker = None
    try:
        tracker = Tracker(config.wandb, run.path, plain(config))
        figures = Figures(run, tracker, data, device)
        stack, records = train_stack(config, data, run, device, [tracker, figures])
        counts = confusion(stack.layers, data.test, len(data.classes), device)  # the only time that they are looked at
        summary = summarize(records, float(counts.diag().sum()) / float(counts.sum()))
        run.save_json("summary.json", summary)
        tell([tracker, figures], "stack_finished", stack, records, counts, summary)
        print()
        print_table(rows(summary))
        print(f"\ntest accuracy at depth {summary['depth']}: {summary['test_accuracy']:.2%}")
        print(f"run directory: {run.path}\nreport: {run.path / 'report.html'}\nW&B: {tracker.place}")
    except BaseException:
        if tracker is not None:
            tracker.close(1)
        raise
    finally:
        run.release()
    tracker.close()
    return run


def recipe(name: str, *options: str) -> Config:
    """A configuration from a recipe and options, such as those of `train.py --depth 2`: "digits", "--depth=2".

    Args:
        name: of a recipe that comes with the package, or a settings file.
        options: as on the command line.

    Raises:
        SettingError: something that was given is not right.
    """
    return parse([f"--config={name}", *options])[0]


def load(run_dir: str | PathLike[str]) -> TrainedStack:
    """Read the finished layers of a run directory. Nothing in it can run code.

    Raises:
        FileNotFoundError: there is no finished layer.
        DamagedRun: a file is not as it was written.
    """
    run = Run(run_dir)
    return TrainedStack(run.stack(), run.records)


def device_of(trainer: settings.Trainer) -> torch.device:
    """What computes a run.

    Raises:
        SettingError: a GPU is asked for, and there is none.
    """
    if trainer.accelerator == "gpu" and not torch.cuda.is_available():
        raise SettingError("trainer.accelerator: gpu, but torch finds none here; give cpu or auto")
    on_gpu = trainer.accelerator != "cpu" and torch.cuda.is_available()
    return torch.device("cuda" if on_gpu else "cpu")
