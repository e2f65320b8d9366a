"""Listeners: told of everything, and never in the way."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from layerwise.data.splits import load_data
from layerwise.nn.stack import FrozenStack
from layerwise.parsing import parse
from layerwise.run.record import LayerRecord
from layerwise.run.run import Run
from layerwise.training.evaluation import Evaluation
from layerwise.training.listeners import tell
from layerwise.training.stack import train_stack
from tests.conftest import SMALL

TESTED = Evaluation(torch.zeros(1).long(), torch.zeros(0, 1, 2).long(), torch.zeros(0, 1, 2), 2)


class Noting:
    """Notes what it is told, then fails if it is to."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.told: list[Any] = []

    def _note(self, *what: Any) -> None:
        self.told.append(what)
        if self.error is not None:
            raise self.error

    def logged(self, layer: int, step: int, metrics: Mapping[str, float]) -> None:
        self._note("logged", layer, sorted(metrics))

    def layer_finished(self, stack: FrozenStack, records: Sequence[LayerRecord]) -> None:
        self._note("layer_finished", len(stack), [record.layer for record in records])

    def stack_finished(
        self, stack: FrozenStack, records: Sequence[LayerRecord], tested: Evaluation, summary: Mapping[str, Any]
    ) -> None:
        self._note("stack_finished", dict(summary))


def test_tell__goes_on_after_one_that_raises(capsys: pytest.CaptureFixture[str]) -> None:
    first, second = Noting(RuntimeError("no more ink")), Noting()
    tell([first, second], "stack_finished", FrozenStack(), [], TESTED, {"depth": 0})
    assert first.told == second.told == [("stack_finished", {"depth": 0})]
    assert (
        capsys.readouterr().out
        == "Noting failed; the training continues without its output: RuntimeError('no more ink')\n"
    )


def test_tell__does_not_keep_a_signal_back() -> None:
    class Stopped(Noting):
        def layer_finished(self, stack: FrozenStack, records: Sequence[LayerRecord]) -> None:
            raise SystemExit(143)

    with pytest.raises(SystemExit):
        tell([Stopped()], "layer_finished", FrozenStack(), [])


def test_train_stack__is_not_stopped_by_a_listener__tells_every_layer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = parse(["--depth=2", *SMALL, "--optimizer.epochs=1"])[0]
    data = load_data(config.data, config.seed)
    weights = []
    listeners = Noting(ValueError("broken")), Noting()
    for name, some in (("with", listeners), ("without", ())):
        run = Run(tmp_path / name)
        run.start(config, data)
        stack, records, _ = train_stack(config, data, run, torch.device("cpu"), some)
        run.release()
        assert [record.layer for record in records] == [1, 2]
        weights.append([value for value in stack.state_dict().values()])
    assert all(map(torch.equal, *weights))
    assert listeners[0].told == listeners[1].told
    finished = [what[1:] for what in listeners[1].told if what[0] == "layer_finished"]
    assert finished == [(1, [1]), (2, [1, 2])]
    assert {what[1] for what in listeners[1].told if what[0] == "logged"} == {1, 2}
    assert capsys.readouterr().out.count("Noting failed") == len(listeners[0].told)
