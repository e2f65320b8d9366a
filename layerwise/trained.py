"""A trained stack, with all that it takes to use it: from pictures to classes and features.

Shapes: n images, C H W of the images that the stack was trained on.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from numbers import Integral
from pathlib import Path
from typing import Any, Literal, overload

import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor

from layerwise.data.batches import images_in_room
from layerwise.data.given import Given
from layerwise.data.images import Images, to_input
from layerwise.data.reading import each, labeled_files
from layerwise.data.rows import allocate, kept
from layerwise.errors import DamagedRun, SettingError
from layerwise.nn.outline import most_numbers
from layerwise.nn.stack import FrozenStack
from layerwise.ops import in_float32
from layerwise.run.files import read_tensors
from layerwise.run.folder import assembled
from layerwise.run.record import LayerRecord
from layerwise.run.run import Run

POOL = 4
"""side of the grid of positions that features are averaged to"""
TOGETHER = 64
"""images, at most, that are read and computed at once"""
MODEL = "model.safetensors"
"""of a folder that was exported: all layers"""


class TrainedStack:
    """The frozen layers of a run, with the preprocessing that they were trained with.

    `stack` holds the layers, `records` what layer.json says of each, `classes` names in the order of the logits, and
    `input_shape` is (C, H, W).

    Images, wherever they are taken, are one or any number of

    - paths of pictures and PIL images: turned upright, shrunk or enlarged to cover H×W, of which the center is cut out,
      in gray or color, just as a folder of images is read for training;
    - arrays and tensors of H×W, of uint8 in [0, 255] or floating point in [0, 1], with the channels before or behind
      the sides, or without them where C is 1: (n, C, H, W), (n, H, W, C), (C, H, W), (H, W) and so on.

    They are read, and computed, a few at a time. What is none of that raises ValueError.
    """

    def __init__(self, stack: FrozenStack, records: list[LayerRecord]) -> None:
        self.stack, self.records, self.classes = stack, records, records[0].classes
        c, h, w = records[0].input_shape
        self.input_shape = (c, h, w)
        together = images_in_room(most_numbers(stack.layers, self.input_shape))
        self._given = Given(self.input_shape, records[0].dimmest, min(TOGETHER, together))

    def tensors(self) -> dict[str, Tensor]:
        """All that the layers hold, by layer and name."""
        layers = enumerate(self.stack.layers, 1)
        return {f"{i}.{name}": value for i, layer in layers for name, value in layer.state_dict().items()}

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as plain values and .safetensors."""
        held = {name: value.cpu().contiguous() for name, value in self.tensors().items()}
        return _restored, ([vars(record) for record in self.records], safetensors.torch.save(held))

    def to(self, device: torch.device | str) -> "TrainedStack":
        """Compute on another device from now on."""
        self.stack.to(device)
        return self

    @property
    def device(self) -> torch.device:
        """Where the layers are."""
        return next(self.stack.parameters()).device

    def preprocess(self, images: Any) -> Tensor:
        """What the first layer takes: (n, C, H, W) float32 in [-1, 1]."""
        return self._gathered(images, lambda inputs: inputs)

    def transform(
        self, images: Any, layer: int | Literal["all"] = "all", pool: int | None = POOL, flatten: bool = True
    ) -> Tensor:
        """Features of images, for a linear model or whatever else, float32 on the CPU.

        By default (n, F): of all layers what their probes read, each averaged to at most `pool`×`pool` positions, with
        each channel brought to mean 0 and deviation 1 over training images, side by side. A layer's number, from 1,
        chooses one; `pool` None averages nothing. Without `flatten` it is of that layer, (n, D, h', w'), as it is.

        Raises:
            ValueError: images that are none, no such layer, or no such grid.
        """
        numbers = self._numbers(layer)
        if pool is not None and not (isinstance(pool, Integral) and pool >= 1):
            raise ValueError(f"pool: {pool} is no side of a grid; give a whole number from 1, or None")
        if layer == "all" and not flatten:
            raise ValueError("flatten: False, but layers differ in shape; give the number of one")
        return self._gathered(images, lambda inputs: self._features(inputs, numbers, pool, flatten))

    def transformed(
        self, files: Iterable[str], layer: int | Literal["all"] = "all", pool: int | None = POOL
    ) -> Iterator[tuple[str, Tensor | str]]:
        """Features (F,), as of `transform`, of one picture after another; or why a file is none, in words."""
        numbers = self._numbers(layer)
        return self._of_each(files, lambda inputs: self._features(inputs, numbers, pool, True))

    def _numbers(self, layer: int | Literal["all"]) -> Sequence[int]:
        if layer == "all":
            return range(1, len(self.records) + 1)
        if not isinstance(layer, Integral) or not 1 <= layer <= len(self.records):
            raise ValueError(f"layer: {layer} is not one of the layers 1 to {len(self.records)}")
        return [int(layer)]

    def _features(self, inputs: Tensor, numbers: Sequence[int], pool: int | None, flatten: bool) -> Tensor:
        found = []
        outputs = self.stack.below(max(numbers) + 1).outputs(inputs.to(self.device))
        for record, output in zip(self.records, outputs, strict=False):
            if record.layer in numbers:
                h, w = output.shape[-2:]
                if pool is not None:
                    output = F.adaptive_avg_pool2d(output, (min(h, pool), min(w, pool)))
                if flatten:
                    mean, deviation = torch.tensor(record.statistics, device=self.device)[:, :, None, None]
                    output = ((output - mean) / deviation).flatten(1)
                found.append(output.cpu())
        return torch.cat(found, 1)

    def predict_proba(self, images: Any) -> Tensor:
        """The probability of each class, (n, classes) float32, on the CPU."""
        return self._gathered(images, lambda inputs: self._classified(inputs).softmax(1))

    @overload
    def predict(self, images: Any, names: Literal[False] = ...) -> Tensor: ...

    @overload
    def predict(self, images: Any, names: Literal[True]) -> list[str]: ...

    def predict(self, images: Any, names: bool = False) -> Tensor | list[str]:
        """Classify images: positions in `classes`, (n,) int64, on the CPU; or the names of the classes."""
        found = self._gathered(images, lambda inputs: self._classified(inputs).argmax(1))
        return [self.classes[i] for i in found.tolist()] if names else found

    def classified(self, files: Iterable[str]) -> Iterator[tuple[str, Tensor | str]]:
        """The probability of each class, (classes,), of one picture after another; or why a file is none, in words."""
        return self._of_each(files, lambda inputs: self._classified(inputs).softmax(1))

    def _of_each(self, files: Iterable[str], compute: Callable[[Tensor], Tensor]) -> Iterator[tuple[str, Tensor | str]]:
        def read(file: str) -> Tensor | str:
            try:
                return to_input(self._given.one(file)[None])
            except ValueError as error:
                return str(error)

        remaining = iter(files)
        while several := list(islice(remaining, self._given.together)):
            with ThreadPoolExecutor() as pool:
                inputs = list(pool.map(read, several))
            read_ones = [one for one in inputs if isinstance(one, Tensor)]
            with in_float32():
                rows = iter(compute(torch.cat(read_ones)) if read_ones else ())
            for file, found in zip(several, inputs, strict=True):
                yield file, found if isinstance(found, str) else next(rows)

    def labeled(self, folder: Path) -> tuple[Images, list[str]]:
        """The pictures folder/<class>/*, with their classes' positions; and of files that are none, why, in words.

        Raises SettingError where a class is unknown to the stack, or there is no picture.
        """
        files = labeled_files(folder, self.classes)
        pixels = allocate((len(files), *self.input_shape))

        def store(row: int) -> str:
            try:
                pixels[row] = self._given.one(files[row][0])
            except ValueError as error:
                return str(error)
            return ""

        told = each("reading images", store, range(len(files)))
        lost = [reason for reason in told if reason]
        if len(lost) == len(files):
            raise SettingError(f"images: no file under {folder} is a readable image ({lost[0]})")
        read = [row for row, reason in enumerate(told) if not reason]
        labels, names = zip(
            *((files[row][1], files[row][0].relative_to(folder).as_posix()) for row in read), strict=True
        )
        return Images(kept(pixels, read), torch.tensor(labels), list(names)), lost

    @in_float32()
    def _gathered(self, images: Any, compute: Callable[[Tensor], Tensor]) -> Tensor:
        """What is computed of all images, (n, …), in room that is taken once, where it is known how many there are."""
        none = compute(torch.empty(0, *self.input_shape))
        parts: Iterable[Tensor] = map(compute, self._given.inputs(images))
        if (count := self._given.count(images)) is None:
            held = list(parts)
            count, parts = sum(map(len, held)), (held.pop(0) for _ in range(len(held)))  # are let go one by one
        found, start = none.new_empty(count, *none.shape[1:]), 0
        for part in parts:
            found[start : start + len(part)] = part
            start += len(part)
        return found

    def _classified(self, inputs: Tensor) -> Tensor:
        """Logits for what the first layer takes, on the CPU."""
        *_, logits = self.stack.said(inputs.to(self.device))
        return logits.cpu()


def load(run_dir: str | os.PathLike[str]) -> TrainedStack:
    """Read the finished layers of a run directory, or a folder that was exported. Nothing in it can run code.

    Raises:
        FileNotFoundError: there is no finished layer.
        DamagedRun: a file is not as it was written.
    """
    run = Run(run_dir)
    if (model := run.path / MODEL).exists():
        return read_exported(model)
    records = run.records
    return TrainedStack(run.stack(records), records)


def read_exported(path: Path) -> TrainedStack:
    """Read the file of a folder that was exported; DamagedRun where it is not as it was written."""
    try:
        tensors, about = read_tensors(path)
        return _put_together(about["records"], tensors)
    except (ValueError, KeyError, TypeError, RuntimeError, IndexError, OSError) as error:
        raise DamagedRun(f"{path} is damaged, or of another version of layerwise ({error}); export it anew") from error


def _restored(records: list[dict[str, Any]], content: bytes) -> TrainedStack:
    return _put_together(records, safetensors.torch.load(content))


def _put_together(about: list[dict[str, Any]], tensors: dict[str, Tensor]) -> TrainedStack:
    records, layers = [LayerRecord(**values) for values in about], []
    for record in records:
        start = f"{record.layer}."
        own = {name.removeprefix(start): value for name, value in tensors.items() if name.startswith(start)}
        layers.append(assembled(record, own))
    return TrainedStack(FrozenStack(layers), records)
