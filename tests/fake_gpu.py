"""A GPU that is not there: its tensors have shapes, types and places, but no content; what the CPU has is real.

So that, without a GPU, what lies in the wrong place is found, and where a step would wait for the GPU.
"""
# mypy: disable-error-code="no-untyped-call"

from collections import defaultdict
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

aten = torch.ops.aten
COPIES = (aten._to_copy.default, aten.copy_.default)


class FakeGPU(TorchDispatchMode):
    """Within, tensors that are made on, or moved to, "cuda" are without content.

    An operator whose tensors lie apart raises; so does what the GPU would have to be asked for, such as a number or
    how many there are of something. Copies that the CPU would wait for are noted in `waits`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.fake = FakeTensorMode(allow_non_fake_inputs=True)
        self.pinned: list[Tensor] = []
        self.waits: list[str] = []

    def __enter__(self) -> "FakeGPU":
        """Torch looks for no driver while there is a mode of its own for such tensors."""
        self.fake.__enter__()
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self.fake.__exit__(*error)

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Do what concerns the GPU without content."""
        named = kwargs or {}
        given = [value for value in tree_leaves((args, named)) if isinstance(value, Tensor)]
        to = torch.device(named.get("device") or (given[0].device if given else "cpu"))
        if function is aten._pin_memory.default:
            with unset_fake_temporarily():
                self.pinned.append(args[0].clone())
            return self.pinned[-1]
        if to.type == "cpu" and not any(value.is_cuda for value in given):
            with unset_fake_temporarily():
                return function(*args, **named)
        devices = [value.device.type for value in given]
        if function in COPIES:
            before, after = (devices[0], to.type) if len(given) == 1 else (devices[1], devices[0])
            paged = before == "cpu" and not any(given[-1] is values for values in self.pinned)
            # a number is passed on with the call
            if before != after and (paged or after == "cpu") and given[-1].ndim + (after == "cpu"):
                self.waits.append(f"{function} of {tuple(given[-1].shape)} from {before} to {after}")
        elif len(set(devices)) > 1 and any(value.ndim for value in given if not value.is_cuda):
            self.waits.append(f"{function} of tensors on {devices}")
        # two of which torch does not know the shapes
        if function is aten.batch_norm_update_stats.default:
            return args[1].new_empty(args[1].shape), args[1].new_empty(args[1].shape)
        if function is aten._fused_sgd_.default:
            return None
        return function(*args, **named)


def backward(loss: Tensor) -> None:
    """What `loss.backward()` does, whose threads need a real GPU: each node of the graph, once all its grads are in."""
    waiting: dict[Any, int] = defaultdict(int)
    nodes, found = [loss.grad_fn], {loss.grad_fn}
    for node in nodes:
        for after, _ in node.next_functions if node else ():
            waiting[after] += 1
            if after is not None and after not in found:
                found.add(after)
                nodes.append(after)
    grads: dict[Any, dict[int, Tensor]] = defaultdict(dict, {loss.grad_fn: {0: torch.ones_like(loss)}})
    ready: list[Any] = [loss.grad_fn]
    while ready:
        node = ready.pop()
        own = grads.pop(node, {})
        function = getattr(node, "apply", node)  # which is Python's, or else C++'s
        passed = function(*(own.get(i) for i in range(max(own, default=0) + 1))) if own else ()
        values = list(passed) if isinstance(passed, tuple) else [passed]
        following = node.next_functions
        if function is not node and own:  # what is no tensor has an answer, too, and no node
            values = [value for value, needed in zip(values, node.needs_input_grad, strict=True) if needed]
            following = [pair for pair in following if pair[0] is not None]
        for (after, place), value in zip_longest(following, values):
            if after is None:
                continue
            if value is not None:
                value = value.sum_to_size(after._input_metadata[place].shape)
                before = grads[after].get(place)
                grads[after][place] = value if before is None else before + value
            waiting[after] -= 1
            if not waiting[after]:
                ready.append(after)
