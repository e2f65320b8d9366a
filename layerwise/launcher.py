"""How several processes start, find each other and end, as `layerwise.processes` says what they do together.

Lightning starts them, by its own launcher, which starts the script again, or joins those of torchrun, SLURM and others.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from layerwise import config, console, processes
from layerwise.environment import OTHERS, hidden, number_on_machine, show_launcher
from layerwise.errors import TOLD_ELSEWHERE, SettingError, TrainingFailed

LAUNCHER = "LAYERWISE_LAUNCHER"
"""the variable that tells processes which one has started them"""
LIMIT = 60.0
"""seconds, at most, in which a process that fails leaves the one that has started it to end by itself"""


@contextmanager
def together(trainer: config.Trainer) -> Iterator[None]:
    """Start the processes that are asked for, or join those that a launcher has started, for as long as this lasts.

    What is within is done by all of them. One alone is left as it is. Raises SettingError where there are no such
    processes, TrainingFailed where another one is lost.
    """
    if trainer.processes == 1:
        yield
        return
    launcher = int(os.environ.get(LAUNCHER, 0))
    if launched := launcher == os.getppid():
        threading.Thread(target=_end_with, args=(launcher,), daemon=True).start()
    try:
        with _ended_by_signals():
            processes.enter(_joined(trainer), trainer.devices)
    except SettingError as error:
        if number_on_machine():
            error.add_note(TOLD_ELSEWHERE)
        raise
    try:
        with console.mute(processes.rank() > 0):
            yield
            processes.agreed(lambda: None)  # none ends before the others
    except BaseException as error:
        processes.leave(dist.get_backend() == "gloo")  # NCCL would wait for the others
        if launched and TOLD_ELSEWHERE in getattr(error, "__notes__", ()):
            time.sleep(LIMIT)  # Lightning's launcher kills itself once one that it has started has failed
        if isinstance(error, RuntimeError) and _tells_of_a_loss(error):
            lost = f"one of {trainer.processes} processes has ended; the same command goes on from the last epoch"
            raise TrainingFailed(f"trainer.devices: {lost} ({' '.join(str(error).split())[:200]})") from error
        raise
    processes.leave()


def _joined(trainer: config.Trainer) -> Any:
    """Start or join the other processes; the environment by which they know each other."""
    from lightning.fabric import Fabric
    from lightning.fabric.plugins.environments.lightning import LightningEnvironment
    from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
    from lightning.fabric.strategies.ddp import DDPStrategy

    console.silence_lightning()
    show_launcher()
    gpu = torch.cuda.is_available() and trainer.accelerator != "cpu"
    try:
        with hidden(OTHERS):
            fabric = Fabric(
                accelerator="gpu" if gpu else "cpu",
                devices=trainer.devices,
                num_nodes=trainer.num_nodes,
                strategy=DDPStrategy(),
            )
        environment = fabric.strategy.cluster_environment  # type: ignore[attr-defined]
        if isinstance(environment, LightningEnvironment) and not environment.creates_processes_externally:
            main = sys.modules["__main__"]
            if getattr(main, "__spec__", None) is None and not Path(sys.argv[0]).is_file():
                raise ValueError("several processes start the program again, and this is none; put it into a file")
            os.environ[LAUNCHER] = str(os.getpid())
        if isinstance(environment, SLURMEnvironment):
            environment.auto_requeue = False  # the command itself ends, and goes on, on a signal
        fabric.launch()
    except Exception as error:
        if isinstance(error, dist.DistError):
            raise
        asked = f"{trainer.devices}, with --trainer.num_nodes {trainer.num_nodes}"
        raise SettingError(f"trainer.devices: {asked}: {' '.join(str(error).split())}") from error
    return environment


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Leave signals to the system, as long as this waits for other processes, when no handler of Python's is called."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    if not all(map(callable, handlers.values())) or threading.current_thread() is not threading.main_thread():
        yield
        return
    try:
        for number in handlers:
            signal.signal(number, signal.SIG_DFL)
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _end_with(launcher: int) -> None:
    """End this process once the one that has started it is gone, whatever it waits for."""
    while os.getppid() == launcher:
        time.sleep(0.5)
    os._exit(1)


def _tells_of_a_loss(error: RuntimeError) -> bool:
    """Whether an error says that another process can no longer be reached."""
    told = str(error)
    return isinstance(error, dist.DistError) or any(word in told for word in ("gloo", "Gloo", "NCCL", "by peer"))
