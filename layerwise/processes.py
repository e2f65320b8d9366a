"""Several processes that train one stack together, a device each, by torch.distributed; most often it is one, alone.

They are started and find each other as Lightning has it: by its own launcher, which starts the script again, or by
torchrun, SLURM and others. Every one has the images, and its part of every batch; the first, rank 0, alone reads and
writes the run's directory, learns dictionaries and speaks. What is computed of images once, such as features that are
stored, lies in a file that the processes of a machine share: each computes a part, all read it. With several machines
each has such a file, and computes all of it, which costs no traffic.
"""

import math
import os
import pickle
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from layerwise import config, console
from layerwise.environment import OTHERS, hidden, number_on_machine, show_launcher
from layerwise.errors import TOLD_ELSEWHERE, SettingError, TrainingFailed

T = TypeVar("T")
PATIENCE = timedelta(days=7)
"""for which others wait for the first, which may learn a dictionary for hours; that it has ended is noticed at once"""
LAUNCHER = "LAYERWISE_LAUNCHER"
"""the variable that tells processes which one has started them"""
LIMIT = 60.0
"""seconds, at most, in which a process that fails leaves the one that has started it to end by itself"""

_environment: Any = None  # Lightning's, by which the processes know each other; None of one alone
_devices = 1  # processes on each machine
_words: Any = None  # torch's group of all, by which they tell each other what is no tensor of a device


def count() -> int:
    """How many processes train together."""
    return dist.get_world_size() if _environment is not None else 1


def rank() -> int:
    """Which of them this is, from 0."""
    return dist.get_rank() if _environment is not None else 0


def cluster() -> Any:
    """Lightning's environment of several processes; None of one alone."""
    return _environment


def share_cores(devices: int) -> None:
    """Use as many threads as one of so many processes on this machine will."""
    if devices > 1:
        torch.set_num_threads(max(1, torch.get_num_threads() // devices))


def _number() -> int:
    """Which of those on this machine this is, from 0."""
    return 0 if _environment is None else int(_environment.local_rank())


@contextmanager
def together(trainer: config.Trainer) -> Iterator[None]:
    """Start the processes that are asked for, or join those that a launcher has started, for as long as this lasts.

    What is within is done by all of them. One alone is left as it is. Raises SettingError where there are no such
    processes, TrainingFailed where another one is lost.
    """
    global _environment, _devices, _words
    if trainer.processes == 1:
        yield
        return
    launcher = int(os.environ.get(LAUNCHER, 0))
    if launched := launcher == os.getppid():
        threading.Thread(target=_end_with, args=(launcher,), daemon=True).start()
    try:
        with _ended_by_signals():
            _environment = _joined(trainer)
            _words = dist.new_group(backend="gloo", timeout=PATIENCE)
        _devices = trainer.devices
    except SettingError as error:
        if number_on_machine():
            error.add_note(TOLD_ELSEWHERE)
        raise
    try:
        with console.mute(rank() > 0):
            yield
            agreed(lambda: None)  # none ends before the others
    except BaseException as error:
        _leave(dist.get_backend() == "gloo")  # NCCL would wait for the others
        if launched and TOLD_ELSEWHERE in getattr(error, "__notes__", ()):
            time.sleep(LIMIT)  # Lightning's launcher kills itself once one that it has started has failed
        if isinstance(error, RuntimeError) and _tells_of_a_loss(error):
            lost = f"one of {trainer.processes} processes has ended; the same command goes on from the last epoch"
            raise TrainingFailed(f"trainer.devices: {lost} ({' '.join(str(error).split())[:200]})") from error
        raise
    _leave()


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


def _leave(orderly: bool = True) -> None:
    global _environment, _devices, _words
    _environment, _devices, _words = None, 1, None
    if orderly:
        dist.destroy_process_group()


def _end_with(launcher: int) -> None:
    """End this process once the one that has started it is gone, whatever it waits for."""
    while os.getppid() == launcher:
        time.sleep(0.5)
    os._exit(1)


def _tells_of_a_loss(error: RuntimeError) -> bool:
    """Whether an error says that another process can no longer be reached."""
    told = str(error)
    return isinstance(error, dist.DistError) or any(word in told for word in ("gloo", "Gloo", "NCCL", "by peer"))


# what all do, and what one does for all


def agreed(task: Callable[..., T], *given: Any) -> T:
    """What a task gives here, once it has succeeded in every process; where it has not, all raise the first error."""
    if count() == 1:
        return task(*given)
    outcome: Any = None
    own: Exception | None = None
    try:
        outcome = task(*given)
    except Exception as error:
        own = error
    errors: list[Exception | None] = [None] * count()
    dist.all_gather_object(errors, _sendable(own), _words)
    _raise(next((error for error in errors if error is not None), None))
    return outcome  # type: ignore[no-any-return]


def by_first(task: Callable[..., T], *given: Any) -> T:
    """What a task gives in the first process, which alone does it, told to the others; an error is raised in all."""
    if count() == 1:
        return task(*given)
    outcome: Any = None
    error: Exception | None = None
    if rank() == 0:
        try:
            outcome = task(*given)
        except Exception as raised:
            error = raised
    told = [outcome, _sendable(error)]
    dist.broadcast_object_list(told, group=_words)
    _raise(error or told[1])
    return told[0]  # type: ignore[no-any-return]


def in_turn(task: Callable[[], T]) -> T:
    """What a task gives here: on each machine one process does it first, and what it leaves there is the others'."""
    early = agreed(lambda: [] if _number() else [task()])
    return agreed(lambda: early[0] if early else task())


def _sendable(error: Exception | None) -> Exception | None:
    try:
        return error and pickle.loads(pickle.dumps(error))  # its own
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")


def _raise(error: Exception | None) -> None:
    if error is None:
        return
    if rank():
        error.add_note(TOLD_ELSEWHERE)
    raise error


# who computes what


def own_part(size: int) -> slice:
    """Which of so many images of a batch are this process's, each of which has as many."""
    each = size // count()
    return slice(rank() * each, (rank() + 1) * each)


def own_share(total: int) -> Tensor:
    """Which of so many images are this process's, (m,) int64, of those of all."""
    return torch.arange(rank(), total, count())


def machine_share(total: int, together: int) -> Tensor:
    """Which of so many images are this process's, (m,) int64, of those of its machine: whole groups of `together`."""
    groups = torch.split(torch.arange(total), together)
    return torch.cat([torch.arange(0), *groups[_number() :: _devices]])


def shared(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """A tensor of zeros in a file that the processes of a machine share; OSError in all where one has no room for it.

    The file has no name once all have opened it, so that it is gone with them, however they end.
    """
    size, first = max(1, math.prod(shape) * dtype.itemsize), _number() == 0
    file = agreed(lambda: _room(size) if first else None)
    paths: list[Any] = [None] * count()
    dist.all_gather_object(paths, (cluster().node_rank(), file and file.name), _words)
    path = next(path for machine, path in paths if path and machine == cluster().node_rank())
    held = agreed(lambda: np.memmap(path, np.uint8, "r+", shape=size))
    if file is not None:
        file.close()
    return torch.from_numpy(held)[: math.prod(shape) * dtype.itemsize].view(dtype).view(shape)


def _room(size: int) -> Any:
    file = tempfile.NamedTemporaryFile()  # noqa: SIM115  (closed once all have it)
    if hasattr(os, "posix_fallocate"):  # an error now, where the disk is too small, and no SIGBUS later
        os.posix_fallocate(file.fileno(), 0, size)
    else:
        file.truncate(size)
    return file


# sums over all


def lowest(value: Tensor) -> Tensor:
    """The lowest of all processes' values."""
    if count() > 1:
        value = value.clone()
        dist.all_reduce(value, dist.ReduceOp.MIN)
    return value


def averaged(value: Tensor) -> Tensor:
    """The mean of all processes' values, which can be differentiated."""
    return value if count() == 1 else summed(value) / count()


def summed(value: Tensor) -> Tensor:
    """The sum of all processes' values, which can be differentiated: of the sum of what they make of it."""
    return value if count() == 1 else _Summed.apply(value)


class _Summed(torch.autograd.Function):
    """torch.distributed.nn.functional.all_reduce, which later versions of torch say is to go."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        total = value.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return summed(grad)
