"""Several processes that train one stack together, a device each, by torch.distributed; most often it is one, alone.

How they start and end is in `layerwise.launcher`. Every one has the images, and its part of every batch; the first,
rank 0, alone reads and writes the run's directory, learns dictionaries and speaks. What is computed of images once,
such as features that are stored, lies in a file that the processes of a machine share: each computes a part, all read
it. With several machines each has such a file, and computes all of it, which costs no traffic.
"""

import math
import os
import pickle
import tempfile
from collections.abc import Callable
from datetime import timedelta
from typing import Any, BinaryIO, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from layerwise.errors import TOLD_ELSEWHERE

S = TypeVar("S")
T = TypeVar("T")
PATIENCE = timedelta(days=7)
"""for which others wait for the first, which may learn a dictionary for hours; that it has ended is noticed at once"""
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


def _number() -> int:
    """Which of those on this machine this is, from 0."""
    return 0 if _environment is None else int(_environment.local_rank())


def enter(environment: Any, devices: int) -> None:
    """Be one of several, who know each other by Lightning's environment, so many of them on each machine."""
    global _environment, _devices, _words
    _environment, _devices = environment, devices
    _words = dist.new_group(backend="gloo", timeout=PATIENCE)


def leave(orderly: bool = True) -> None:
    """Be one alone again; in disorder where others may no longer answer."""
    global _environment, _devices, _words
    _environment, _devices, _words = None, 1, None
    if orderly:
        dist.destroy_process_group()


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


def divided(task: Callable[[list[S]], list[T]], items: list[S]) -> list[T]:
    """What a task makes of items, one of each: every process of this machine does its part, all are told all of it."""
    if count() == 1:
        return task(items)
    own = agreed(task, items[_number() :: _devices])
    told: list[Any] = [None] * count()
    dist.all_gather_object(told, (cluster().node_rank(), _number(), own), _words)
    made: list[Any] = [None] * len(items)
    for machine, number, part in told:
        if machine == cluster().node_rank():
            made[number::_devices] = part
    return made


def shared(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """A tensor of zeros in a file that the processes of a machine share (`shared_file`)."""
    size = math.prod(shape) * dtype.itemsize
    with shared_file(size) as file:
        held = agreed(lambda: np.memmap(file, np.uint8, "r+", shape=max(1, size)))
    return torch.from_numpy(held)[:size].view(dtype).view(shape)


def shared_file(size: int) -> BinaryIO:
    """A file of so many zeros that the processes of a machine share; OSError in all where one has no room for it.

    It has no name once all have opened it, so that it is gone with them, however they end.
    """
    first = _number() == 0
    file = agreed(lambda: _room(max(1, size)) if first else None)
    paths: list[Any] = [None] * count()
    dist.all_gather_object(paths, (cluster().node_rank(), file and file.name), _words)
    path = next(path for machine, path in paths if path and machine == cluster().node_rank())
    opened: BinaryIO = agreed(lambda: open(path, "r+b", buffering=0))  # noqa: SIM115  (whoever asked closes it)
    if file is not None:
        file.close()
    return opened


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
