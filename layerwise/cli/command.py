"""The command train.py: parse, check, train, say what came out; exit codes."""

import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING

from layerwise.config.run import Config, SettingError

if TYPE_CHECKING:  # importing it takes seconds, which --help should not
    import torch


def main(arguments: list[str]) -> int:
    """Run the command.

    Returns:
        The exit code: 0; 2 for a mistake in what was given; 1 for any other failure.

    Raises:
        SystemExit: 0 after --help; 130 and 143 on SIGINT and SIGTERM.
    """

    def run() -> None:
        from layerwise.cli.parsing import parse  # --help needs no more than this

        config, run_dir = parse(arguments)
        train(config, run_dir)

    return guarded(run)


def guarded(run: Callable[[], object]) -> int:
    """Call `run`; turn errors into one line and an exit code, and signals into an orderly end."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    try:
        run()
    except SettingError as error:
        return _complain(error, 2)
    except (RuntimeError, OSError) as error:
        from layerwise.run.directory import DamagedRun
        from layerwise.training.module import TrainingFailed

        if isinstance(error, TrainingFailed | DamagedRun | OSError):
            return _complain(error, 1)
        raise
    return 0


def device_of(config: Config) -> "torch.device":
    """What computes a run.

    Raises:
        SettingError: a GPU is asked for, and there is none.
    """
    import torch

    if config.trainer.accelerator == "gpu" and not torch.cuda.is_available():
        raise SettingError("trainer.accelerator: gpu, but torch finds none here; give cpu or auto")
    on_gpu = config.trainer.accelerator != "cpu" and torch.cuda.is_available()
    return torch.device("cuda" if on_gpu else "cpu")


def train(config: Config, run_dir: str) -> None:
    """Check all that can be checked, then train, and write and print the results.

    Raises:
        SettingError: something does not fit; nothing has been written.
    """
    from layerwise.config.checks import check_fit
    from layerwise.config.run import plain
    from layerwise.data.splits import load_data
    from layerwise.nn.gates import check_gates
    from layerwise.run.directory import RunDir

    check_gates(config)
    device = device_of(config)
    data = load_data(config.data, config.seed)
    check_fit(config, *data.shape, len(data.train))
    directory = RunDir(run_dir)
    digest = data.digest()
    directory.check(config, digest)

    import yaml

    from layerwise.report.results import Results
    from layerwise.run.tracker import Tracker
    from layerwise.training.stack import train_stack

    shape = "×".join(map(str, data.shape))
    print(
        f"data: {config.data.name}, {len(data.train)} training, {len(data.val)} validation and {len(data.test)} test "
        f"images, {shape}, {len(data.classes)} classes"
    )
    directory.start(config, digest)
    tracker = Tracker(config.wandb, directory.path, plain(config))
    try:
        results = Results(directory, tracker, data, device)
        stack, records = train_stack(config, data, directory, tracker, device, results.layer_finished)
        results.stack_finished(stack, records, yaml.safe_dump(plain(config), sort_keys=False, allow_unicode=True))
    except BaseException:
        tracker.close(1)
        raise
    finally:
        directory.release()
    tracker.close()


def _stop(number: int, frame: FrameType | None) -> None:
    for other in (signal.SIGINT, signal.SIGTERM):  # a second signal ends the process at once
        signal.signal(other, signal.SIG_DFL)
    print(f"\nstopped by {signal.Signals(number).name}; the same command goes on from here", file=sys.stderr)
    raise SystemExit(128 + number)


def _complain(error: Exception, code: int) -> int:
    print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
    return code
