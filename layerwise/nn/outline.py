"""What shapes come out of modules, by passes of tensors that have a shape and no content.

Shapes: C channels in, H W image side, D channels out, h' w' output side.
"""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call


def output_shape(module: nn.Module, shape: tuple[int, int, int]) -> tuple[int, int, int]:
    """The shape that a module makes of an input (C, H, W), by a pass of tensors without content; or ValueError."""
    try:
        # two images, since batch norm refuses one
        _, d, h, w = _outlined(module, torch.empty(2, *shape, dtype=torch.float32, device="meta")).shape
    except RuntimeError as error:
        raise ValueError(f"nothing is left of an input of {shape[1]}×{shape[2]}") from error
    return d, h, w


@torch.no_grad()
def most_numbers(layers: Iterable[nn.Module], shape: tuple[int, int, int]) -> int:
    """The size of the largest of an image (C, H, W) and what the layers of a stack and their parts make of it."""
    sizes, x, logits = [math.prod(shape)], torch.empty(2, *shape, dtype=torch.float32, device="meta"), None

    def note(part: nn.Module, inputs: Any, output: Any) -> None:
        tensors = output if isinstance(output, tuple) else (output,)
        sizes.extend(math.prod(tensor.shape[1:]) for tensor in tensors if isinstance(tensor, Tensor))

    images = x
    for layer in layers:
        x = images if getattr(layer, "anew", False) else x  # a CNN, or a part of a layer, has no such thing
        hooks = [part.register_forward_hook(note) for part in layer.modules()]
        try:
            x, logits = _outlined(layer, x, logits)
        finally:
            for hook in hooks:
                hook.remove()
    return max(sizes)


def _outlined(module: nn.Module, *inputs: Tensor | None) -> Any:
    """What a module makes of inputs without content."""
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    return functional_call(module, {name: tensor.to("meta") for name, tensor in tensors.items()}, inputs)
