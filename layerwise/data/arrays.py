"""Images and labels in memory: how axes and numbers of an array are read, and a data set of one's own arrays.

Shapes: n images, C channels, H W side.
"""

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import replace
from numbers import Integral
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from layerwise.config import Data, SettingError
from layerwise.config.checks import check_values
from layerwise.data.images import Images
from layerwise.data.rows import allocate
from layerwise.data.splits import DataSet, RawData, prepared

CHUNK = 1024
"""images that are read at a time"""


def dataset(
    images: Any,
    labels: Any,
    validation: tuple[Any, Any] | float = Data.validation,
    test: tuple[Any, Any] | float = Data.test,
    *,
    seed: int = 0,
    flip: bool = False,
    crop: int | None = None,
    border: str = Data.border,
    shifts: str = Data.shifts,
) -> DataSet:
    """A data set of your own arrays, for `layerwise.train(config, data=…)`.

    `images` is an array or a tensor of (n, H, W), (n, C, H, W) or (n, H, W, C), uint8 in [0, 255] or floating point in
    [0, 1], which is rounded to 256 levels. The channels are last where that axis is shorter than the two others.
    `labels` has one for each image, of any kind that can be hashed and sorted; the distinct ones, sorted, are the
    classes, and their `str` is their names. `validation` and `test` are pairs of images and labels, or the shares of
    the images, between 0 and 1, that are held out at random by `seed`: first the test, then the validation images.

    Training images are mirrored at random if `flip`, and shifted by up to `crop` pixels, an eighth of the side for
    None, where `border` enters: "mirrored" or "black"; by every amount equally often, or if `shifts` is "middling" by
    little more often.

    Raises:
        SettingError: images or labels are of another kind, or do not make a data set.
    """
    given: dict[str, Any] = {"validation": validation, "test": test}
    pairs = {name: value for name, value in given.items() if isinstance(value, Sequence)}
    shares = {name: value for name, value in given.items() if name not in pairs}
    if wrong := [name for name, pair in pairs.items() if len(pair) != 2]:
        raise SettingError(f"{wrong[0]}: {len(pairs[wrong[0]])} values; give a pair, images and labels, or a share")
    config = replace(Data("arrays", flip=flip, crop=crop, border=border, shifts=shifts), **shares)
    check_values(config, lambda name: f"data.{name}")
    if not isinstance(seed, Integral) or seed < 0:
        raise SettingError(f"seed: {seed} is no seed; give a whole number of at least 0")
    known = _listed(labels)
    try:
        classes = sorted(set(known))
    except TypeError as error:
        kinds = ", ".join(sorted({type(label).__name__ for label in known}))
        raise SettingError(f"labels: {kinds} cannot be hashed and sorted; give labels of one kind that can") from error
    positions = {label: i for i, label in enumerate(classes)}
    train = _images(images, known, positions)
    splits = {name: _images(pair[0], _listed(pair[1]), positions) for name, pair in pairs.items()}
    raw = RawData(list(map(str, classes)), train, splits.get("test"), splits.get("validation"))
    return prepared(raw, config, seed)


def as_tensor(images: Any) -> Tensor:
    """An array of numbers, of any byte order, as a tensor; SettingError where it holds none."""
    array = images if isinstance(images, Tensor) else np.asarray(images)
    if isinstance(array, np.ndarray):
        if array.dtype.kind not in "uif" or array.dtype.itemsize > 8:
            raise SettingError(f"images: type {array.dtype}; give uint8 in [0, 255] or floating point in [0, 1]")
        array = np.ascontiguousarray(array, array.dtype.newbyteorder("="))
        array = array if array.flags.writeable else array.copy()  # as torch asks for
    x = torch.as_tensor(array)
    if x.layout != torch.strided:
        raise SettingError(f"images: a tensor with {x.layout} layout; give a dense one, by its to_dense()")
    return x


def checked(x: Tensor) -> Tensor:
    """The same tensor, if its numbers are those of images, uint8 or from 0 to 1; else SettingError."""
    if x.dtype != torch.uint8 and not (x.dtype.is_floating_point and x.dtype.itemsize > 1):
        raise SettingError(f"images: type {x.dtype}; give uint8 in [0, 255] or floating point in [0, 1]")
    if x.dtype.is_floating_point and not bool(((x >= 0) & (x <= 1)).all()):
        found = f"values from {float(x.min()):g} to {float(x.max()):g}"
        raise SettingError(f"images: {found}; floating point images range from 0 to 1")
    return x


def arranged(x: Tensor, shape: tuple[int, int, int], one: bool = False) -> Tensor | None:
    """Images of shape (C, H, W), one or any number of them, as (n, C, H, W); None where they are of another shape.

    The channels may come last, or be missing where C is 1. `one` admits a single image alone.
    """
    (c, h, w), given = shape, tuple(x.shape)
    shapes = {(c, h, w): (), (h, w, c): (2, 0, 1)} | ({(h, w): ()} if c == 1 else {})
    for known, order in shapes.items():
        if given == known:
            x = x[None]
        elif one or given[1:] != known:
            continue
        return x.permute(0, *(i + 1 for i in order)) if order else x.reshape(-1, c, h, w)
    return None


def shape_of(images: Tensor | npt.NDArray[Any]) -> tuple[int, int, int]:
    """(C, H, W) of many images whose channels may be missing, or last, which is where that axis is the shortest."""
    given = tuple(images.shape)
    if len(given) not in (3, 4) or 0 in given[1:]:
        raise SettingError(f"images: shape {given}; give (n, H, W), (n, C, H, W) or (n, H, W, C)")
    a, b, c = given[1:] if len(given) == 4 else (1, *given[1:])
    return (c, a, b) if c < min(a, b) else (a, b, c)


def _images(images: Any, labels: Sequence[Hashable], positions: dict[Hashable, int]) -> Images:
    """One split, read a few images at a time."""
    array = as_tensor(images) if isinstance(images, Tensor) else np.asarray(images)
    shape = shape_of(array)
    if not len(array):
        raise SettingError("images: there are none; give some")
    if len(labels) != len(array):
        raise SettingError(f"labels: {len(labels)} for {len(array)} images; give one for each")
    if unknown := [label for label in labels if label not in positions]:
        raise SettingError(f"labels: {unknown[0]} is none of the training images'; give images of it for training, too")
    pixels = allocate((len(array), *shape))
    for start in range(0, len(array), CHUNK):
        x = arranged(checked(as_tensor(array[start : start + CHUNK])), shape)
        assert x is not None
        pixels[start : start + CHUNK] = x if x.dtype == torch.uint8 else (x * 255).round()
    return Images(pixels, torch.tensor([positions[label] for label in labels]))


def _listed(labels: Any) -> list[Hashable]:
    """Labels as a list of Python's own values."""
    if isinstance(labels, (np.ndarray, Tensor)):
        if labels.ndim != 1:
            raise SettingError(f"labels: shape {tuple(labels.shape)}; give one for each image, (n,)")
        return list(labels.tolist())
    if not isinstance(labels, Iterable):
        raise SettingError(f"labels: {labels!r} is no list; give one label for each image")
    values: list[Any] = [label.tolist() if isinstance(label, (np.generic, Tensor)) else label for label in labels]
    return values
