"""One run of a table."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

import layerwise
from layerwise.config import Config
from layerwise.data.images import to_input
from layerwise.data.splits import load_data
from layerwise.experiments.paper import job
from layerwise.experiments.paper.job import Job, estimate
from layerwise.parsing import parse
from tests.conftest import QUIET


def test_job__of_a_stack_tells_its_accuracy_at_every_depth(tmp_path: Path) -> None:
    config = parse(["--depth=2", *QUIET, f"--run_dir={tmp_path / 'r'}"])[0]
    own = Job(config)
    assert own.tested() is None
    own.train()
    test, stack = load_data(config.data, config.seed).test, layerwise.load(tmp_path / "r").stack
    expected = []
    for depth in (1, 2):
        _, logits = stack.below(depth + 1)(to_input(test.pixels[:]))
        assert logits is not None
        expected.append(float((logits.argmax(1) == test.labels).double().mean()))
    assert own.tested() == pytest.approx(expected) and expected[0] != expected[1]
    assert 0 < own.seconds(1) < own.seconds(2)
    assert Job(replace(config, seed=1)).tested() is None


def test_estimate__is_what_the_plan_says_of_layers_that_are_not_trained__each_kind_rehearsed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = parse(["--depth=3", *QUIET, f"--run_dir={tmp_path / 'r'}"])[0]
    asked = []

    def said(config: Config, *_: object) -> tuple[list[SimpleNamespace], float]:
        asked.append(config.depth)
        return [SimpleNamespace(seconds=10.0**number) for number in range(config.deepest)], 0.0

    monkeypatch.setattr(job, "planned", said)
    assert estimate([Job(config)]) == 111
    assert estimate([Job(config), Job(replace(config, seed=1)), Job(replace(config, depth=1))]) == 223
    assert asked == [3, 3, 1]
    for number in (1, 2):
        (tmp_path / "r" / f"layer-{number}").mkdir(parents=True)
        (tmp_path / "r" / f"layer-{number}" / "layer.json").touch()
    assert estimate([Job(config)]) == 100


def test_estimate__of_a_cnn_counts_steps_and_validation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = ["--depth=2", *QUIET, "--layer.gate.kind=relu", "--optimizer.epochs=3"]
    config = parse([*given, "--optimizer.batch_size=50", f"--run_dir={tmp_path / 'r'}"])[0]
    monkeypatch.setattr(job, "seconds_per_step", lambda *_: 2.0)
    monkeypatch.setattr(job, "median_seconds", lambda *_: 0.5)
    # of the digits, a fifth of 1,797 is for the test, and a tenth of the rest for validation
    assert estimate([Job(config, True)]) == pytest.approx(3 * (2 * 1294 + 0.5 * 144) / 50)


def test_paced__gets_the_epochs_that_there_is_time_for__and_keeps_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ahead = Job(parse(["--depth=2", *QUIET, f"--run_dir={tmp_path / 'a'}"])[0])
    given = ["--depth=2", *QUIET, "--optimizer.epochs=4", "--layers.2.optimizer.epochs=2", "--layer.gate.kind=relu"]
    own = Job(parse([*given, f"--run_dir={tmp_path / 'b'}"])[0], paced=(ahead, 1))
    taken = {("nearest", 1): [50.0], ("relu", 2): [30.0, 70.0]}

    def said(config: Config, *_: object) -> tuple[list[SimpleNamespace], float]:
        return [SimpleNamespace(seconds=one) for one in taken[config.layer.gate.kind, config.deepest]], 0.0

    monkeypatch.setattr(job, "planned", said)
    assert estimate([own]) == 50  # of what it is to be as long as
    assert own.tested() is None
    own.train()  # half the seconds that its own epochs were to take; the other run need not be there
    records = layerwise.load(tmp_path / "b").records
    assert [len(record.epochs) for record in records] == [2, 1]
    taken["nearest", 1] = [500.0]
    accuracies = own.tested()
    assert accuracies is not None and len(accuracies) == 2
    own.train()
    assert [len(record.epochs) for record in layerwise.load(tmp_path / "b").records] == [2, 1]
    assert replace(own, config=replace(own.config, seed=1)).tested() is None
