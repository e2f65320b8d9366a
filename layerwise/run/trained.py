"""A trained stack, for use: features and predictions of any images."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from layerwise.data.batches import EVALUATION_BATCH
from layerwise.data.images import to_input
from layerwise.nn.stack import FrozenStack
from layerwise.run.record import LayerRecord


class TrainedStack:
    """The frozen layers of a run, with the preprocessing that they were trained with.

    Attributes:
        stack: the layers, on the device that computes.
        records: what layer.json says of each.
        classes: names of the classes, in the order of the logits.
        input_shape: (C, H, W) of the images.
    """

    def __init__(self, stack: FrozenStack, records: list[LayerRecord]) -> None:
        self.stack = stack
        self.records = records
        self.classes = records[0].classes
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
        """Compute the output of a layer.

        Args:
            images: (n, C, H, W) or one image (C, H, W); uint8 in [0, 255] or floating point in [0, 1]; a tensor or an
                array. Any n, 0 included.
            layer: its number, from 1; None: the top layer.

        Returns:
            (n, D, h', w') float32, on the CPU.

        Raises:
            ValueError: images of another shape, range or type, or no such layer.
        """
        number = len(self.records) if layer is None else layer
        if not 1 <= number <= len(self.records):
            raise ValueError(f"layer: {layer} is not one of the layers 1 to {len(self.records)}")
        return self._run(images, number)[0]

    def predict(self, images: Any) -> Tensor:
        """Classify images, given as to `transform`.

        Returns:
            (n,) int64, on the CPU: positions in `classes`.
        """
        return self._run(images, len(self.records))[1].argmax(1)

    def _run(self, images: Any, depth: int) -> tuple[Tensor, Tensor]:
        x = self._check(images)
        part = self.stack.below(depth + 1)
        outputs, logits = [torch.empty(0, *part.layers[-1].shape)], [torch.empty(0, len(self.classes))]
        for chunk in torch.split(x, EVALUATION_BATCH):
            inputs = to_input(chunk) if chunk.dtype == torch.uint8 else chunk.float() * 2 - 1
            for kept, values in zip((outputs, logits), part(inputs.to(self.device)), strict=True):
                kept.append(values.cpu())
        return torch.cat(outputs), torch.cat(logits)

    def _check(self, images: Any) -> Tensor:
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
            raise ValueError(
                f"images: values from {float(x.min()):g} to {float(x.max()):g}; floating point images range from 0 to 1"
            )
        return x
