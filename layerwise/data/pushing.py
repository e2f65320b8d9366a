"""Pushing views through frozen layers, in batches whose sizes do not depend on what else there is.

Shapes: B batch, C channels, H W side of a crop, M margin: the whole that crops are of is H + M by W + M; O = M + 1.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from layerwise.data.batches import images_in_room
from layerwise.data.crops import Origin
from layerwise.data.images import Augmentation, to_input
from layerwise.errors import TrainingFailed
from layerwise.nn.layer import ProbedLayer
from layerwise.nn.outline import most_numbers
from layerwise.nn.stack import FrozenStack

Pushed = Iterator[tuple[Tensor, Tensor, Tensor]]
"""input (B, C, H+M, W+M); logits of the layers below, of each crop, (B, O, O, classes) or of one alone
(B, classes), of no class where there are none; which atoms are near to the input, (B, h, w, S), or (B, 0) where that
is not known"""


def together(layer: ProbedLayer, shape: tuple[int, int, int], margin: int) -> int:
    """How many inputs, of which crops (C, H, W) are cut, a layer takes at a time where nothing is trained."""
    numbers, (_, height, width) = most_numbers([layer], shape), shape
    return images_in_room(numbers * (height + margin) * (width + margin) // (height * width))


def through(
    parts: Pushed,
    number: int,
    layer: ProbedLayer,
    shape: tuple[int, int, int],
    margin: int,
    origin: Origin,
    dtype: torch.dtype,
    told: bool,
) -> Pushed:
    """Push inputs, of crops (C, H, W) and a margin, through layer `number`; outputs are rounded as they are stored.

    Its batches do not depend on the parts that the inputs come in, as the size of a batch may decide on the last bit.
    Logits are of no class unless they are `told`.
    """
    pool = layer.layer.embedding.pool
    less = margin - origin.margin * pool  # by how much what is needed is smaller than the input
    for x, below, near in _regrouped(parts, together(layer, shape, margin)):
        if less:
            x, near = _from(x, origin, less, 2), _from(near, origin, less, 1) if near.ndim > 2 else near
        known = near if near.ndim > 2 else None
        with torch.no_grad():
            if told:
                read, exact = layer.layer.both(x, known)
                logits = _logits(layer, read, below, origin, pool)
            else:
                exact, logits = layer.layer.handed_on(x, known), x.new_empty(len(x), *[origin.margin + 1] * 2, 0)
        rounded = exact.to(dtype).float()
        if not bool(rounded.isfinite().all()):
            raise TrainingFailed(_not_finite(number, exact, dtype))
        yield rounded, logits, x.new_empty(len(x), 0)


def _from(values: Tensor, origin: Origin, less: int, dim: int) -> Tensor:
    """The part that begins at an origin, `less` smaller along each side; rows are dimension `dim`, columns the next."""
    rows = values.narrow(dim, origin.rows, values.shape[dim] - less)
    return rows.narrow(dim + 1, origin.columns, values.shape[dim + 1] - less)


def _logits(layer: ProbedLayer, out: Tensor, below: Tensor, origin: Origin, pool: int) -> Tensor:
    """Those of each crop of what the probe reads, (B, D, h'+M, w'+M): (B, O, O, classes)."""
    _, h, w = layer.shape
    places, found = range(origin.margin + 1), []
    for i in places:
        for j in places:
            row, column = origin.rows + i * pool, origin.columns + j * pool
            under = below if below.ndim == 2 else below[:, row, column]
            found.append(layer.classified(out[:, :, i : i + h, j : j + w], under if below.shape[-1] else None))
    return torch.stack(found, 1).view(len(out), len(places), len(places), -1)


def _regrouped(parts: Pushed, size: int) -> Pushed:
    """The same inputs, and what belongs to them, `size` at a time."""
    waiting = torch.empty(0), torch.empty(0), torch.empty(0)
    for part in parts:
        x, logits, near = map(torch.cat, zip(waiting, part, strict=True)) if len(waiting[0]) else part
        while len(x) >= size:
            yield x[:size], logits[:size], near[:size]
            x, logits, near = x[size:], logits[size:], near[size:]
        waiting = x, logits, near
    if len(waiting[0]):
        yield waiting


def _not_finite(layer: int, output: Tensor, dtype: torch.dtype) -> str:
    if bool(output.isfinite().all()):
        reach = f"reaches {float(output.abs().max()):.3g}, beyond {torch.finfo(dtype).max:g}, the highest {dtype}"
        return f"layer {layer}: its output {reach}, in which views are stored; give --features.views 0"
    return f"layer {layer}: its output is not finite; train it again with --restart_from {layer}"


@torch.no_grad()
def makes_crops_of_crops(stack: FrozenStack, pixels: Tensor, augmentation: Augmentation, device: torch.device) -> bool:
    """Whether a stack makes of a crop of an image a crop of what it makes of the whole, tried on a few (B, C, H, W).

    So it is of patches and windows, where windows part the positions evenly; not if a layer looks at an image's sides.
    """
    margin, layers, step = 2 * augmentation.crop, stack.column.layers, 1
    pools = [layer.layer.embedding.pool for layer in layers]
    for pool in pools:
        margin, step = margin // pool, step * pool
    if not margin:
        return False
    outputs = []
    for shift, beyond in ((0, margin * step), (0, 0), (margin * step, 0)):
        drawn = augmentation.whole(len(pixels), False, shift, shift, beyond).to(pixels.device)
        x = to_input(augmentation(pixels, drawn).to(device))
        try:
            for layer in layers:
                x = layer.layer.handed_on(x)
        except RuntimeError:
            return False
        outputs.append(x)
    whole, *crops = outputs
    _, h, w = layers[-1].shape
    for place, crop in zip((0, margin), crops, strict=True):
        part = whole[:, :, place : place + h, place : place + w]
        # a near tie may be decided in another way
        if part.shape != crop.shape or float((part - crop).abs().mean()) > 1e-3 * float(crop.std()):
            return False
    return True


def chains(plan: Sequence[Sequence[Origin]], start: int) -> list[list[Origin]]:
    """How each view of a plan's last layer comes from the output of layer `start`: an origin for each layer."""
    found = []
    for last in plan[-1]:
        chain = [last]
        for level in reversed(plan[start:-1]):
            chain.insert(0, level[chain[0].parent])
        found.append(chain)
    return found
