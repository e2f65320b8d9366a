"""Numbers that memory need not hold, used a few rows at a time: those in hand are all that takes room.

Shapes: n rows, m of them in hand, of any shape.
"""

import copy
import math
import os
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, BinaryIO, Self, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from layerwise import memory

HELD = 1 << 30
"""bytes of one kind, such as the images or the views of a layer, that memory holds at most"""
Places: TypeAlias = npt.NDArray[np.int64]


class Rows(ABC):
    """Numbers (n, …) of the processor's that are indexed like a tensor, by row alone, and come as tensors."""

    device = torch.device("cpu")

    def __init__(self, shape: tuple[int, ...], dtype: torch.dtype) -> None:
        self.dtype, self._each, self._places = dtype, tuple(shape[1:]), np.arange(shape[0])
        self.row_bytes = math.prod(self._each) * dtype.itemsize

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, …)."""
        return len(self), *self._each

    def __len__(self) -> int:
        return len(self._places)

    def numel(self) -> int:
        """How many numbers there are."""
        return math.prod(self.shape)

    @property
    def itemsize(self) -> int:
        """Bytes of a number."""
        return self.dtype.itemsize

    def __getitem__(self, index: int | slice | Tensor) -> Tensor:
        """The row at a position, without its axis, or those of a slice or at positions (m,) int64: (m, …)."""
        if isinstance(index, int):
            return self._read(self._places[[index]])[0]
        return self._read(self._chosen(index))

    def at(self, index: slice | Tensor) -> Self:
        """The same numbers, of some rows only, uncopied."""
        part = copy.copy(self)
        part._places = self._chosen(index)
        return part

    def _chosen(self, index: slice | Tensor) -> Places:
        return self._places[index if isinstance(index, slice) else index.numpy()]

    @abstractmethod
    def _read(self, places: Places) -> Tensor:
        """What lies at places (m,), (m, …)."""


class Stored(Rows):
    """Numbers in a temporary file, or in one that is given.

    The file has no name once it is open, so that it is gone with the process, however that ends. It is read and written
    by calls, not mapped: what the system keeps of it in memory is the system's to let go. OSError where there is no
    room for it, at once.
    """

    def __init__(self, shape: tuple[int, ...], dtype: torch.dtype, file: BinaryIO | None = None) -> None:
        super().__init__(shape, dtype)
        self._number = torch.empty(0, dtype=dtype).numpy().dtype
        self._file = file or tempfile.TemporaryFile(buffering=0)  # noqa: SIM115  (as long as anything refers to it)
        if hasattr(os, "posix_fallocate") and self.numel():
            os.posix_fallocate(self._file.fileno(), 0, len(self) * self.row_bytes)
        if hasattr(os, "posix_fadvise"):  # what is read next is told, not guessed
            os.posix_fadvise(self._file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)

    def __setitem__(self, index: int | slice | Tensor, values: Tensor) -> None:
        """Write rows: (m, …), or one row alone."""
        if isinstance(index, int):  # at once, as pictures are written one by one
            given = np.require(
                values.numpy() if values.shape == self._each else values.expand(self._each).numpy(), self._number, "C"
            )
            runs = iter([(int(self._places[index]) * self.row_bytes, given.reshape(-1).view(np.uint8).data)])
        else:
            places = self._chosen(index)
            runs = self._runs(places, values.to(self.dtype).expand(len(places), *self._each).contiguous())
        for offset, part in runs:
            while part:
                offset, part = self._on(offset, part, os.pwrite(self._file.fileno(), part, offset))

    def _read(self, places: Places) -> Tensor:
        found = torch.empty((len(places), *self._each), dtype=self.dtype)
        runs = list(self._runs(places, found))
        if len(runs) > 1 and hasattr(os, "posix_fadvise"):  # a disk reads many at once faster than one after another
            for offset, part in runs:
                os.posix_fadvise(self._file.fileno(), offset, len(part), os.POSIX_FADV_WILLNEED)
        for offset, part in runs:
            while part:
                offset, part = self._on(offset, part, os.preadv(self._file.fileno(), [part], offset))
        return found

    def _runs(self, places: Places, values: Tensor) -> Iterator[tuple[int, memoryview]]:
        """Where in the file adjacent rows begin, and the bytes of `values` that are theirs."""
        own, size = _bytes_of(values), self.row_bytes
        starts = [0, *(np.flatnonzero(places[1:] - places[:-1] != 1) + 1).tolist()] if own else []
        for start, end in pairwise([*starts, len(places)]):
            yield int(places[start]) * size, own[start * size : end * size]

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:
        """All of them as one array: of every row of the file a map, which takes no memory until it is read."""
        if len(self) * self.row_bytes != os.fstat(self._file.fileno()).st_size:
            return self[:].numpy()
        return np.memmap(self._file, self._number, "r", shape=self.shape)

    @staticmethod
    def _on(offset: int, part: memoryview, done: int) -> tuple[int, memoryview]:
        if not done:
            raise OSError("a temporary file ended early")
        return offset + done, part[done:]


def _bytes_of(values: Tensor) -> memoryview:
    return values.flatten().view(torch.uint8).numpy().data


def kept(values: Tensor | Rows, rows: list[int]) -> Tensor | Rows:
    """Some rows, in rising order, uncopied where they are a file's or follow one another."""
    index = (
        slice(rows[0], rows[-1] + 1)
        if rows and rows[-1] - rows[0] + 1 == len(rows)
        else torch.tensor(rows, dtype=torch.long)
    )
    return values.at(index) if isinstance(values, Rows) else values[index]


def is_held(size: int) -> bool:
    """Whether memory holds so many bytes of one kind: no more than `HELD`, nor than a quarter of what there is."""
    return size <= min(HELD, memory.total() // 4)


def allocate(
    shape: tuple[int, ...], dtype: torch.dtype = torch.uint8, count: int = 1, device: torch.device | str = "cpu"
) -> Tensor | Stored:
    """Uninitialized numbers; in a temporary file where memory does not hold `count` times as many (`is_held`).

    Where no disk has room, a quarter of the memory is still taken.
    """
    size = math.prod(shape) * dtype.itemsize
    if torch.device(device).type != "cpu":
        return torch.empty(shape, dtype=dtype, device=device)
    if not is_held(count * size):
        try:
            return Stored(shape, dtype)
        except OSError:
            if count * size > memory.total() // 4:
                raise
    return torch.empty(shape, dtype=dtype)
