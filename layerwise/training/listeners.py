"""Who is told how a training goes, such as figures and W&B. Their failures never matter to it."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from layerwise.nn.stack import FrozenStack
from layerwise.run.record import LayerRecord
from layerwise.training.evaluation import Evaluation


class Listener(Protocol):
    """The calls that a listener receives."""

    def logged(self, layer: int, step: int, metrics: Mapping[str, float]) -> None:
        """Metrics of a layer's training, at a step that counts from the layer's start."""

    def layer_finished(self, stack: FrozenStack, records: Sequence[LayerRecord]) -> None:
        """The top layer of the stack is trained and frozen."""

    def stack_finished(
        self, stack: FrozenStack, records: Sequence[LayerRecord], tested: Evaluation, summary: Mapping[str, Any]
    ) -> None:
        """The whole stack is tested: what it says of the test images, and what summary.json holds."""


def tell(listeners: Sequence[Listener], occasion: str, *what: object) -> None:
    """Call a method of every listener; what one of them raises is printed, and does not stop the others."""
    for listener in listeners:
        try:
            getattr(listener, occasion)(*what)
        except Exception as error:
            print(f"{type(listener).__name__} failed; the training continues without its output: {error!r}", flush=True)
