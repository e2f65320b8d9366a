"""One run of a table."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import layerwise
from layerwise.config import Features
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


@pytest.mark.parametrize("views, epochs", [(0, 3), (2, 3), (5, 3)])
def test_estimate__counts_steps_validation_and_the_layers_below(
    views: int, epochs: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = ["--depth=3", *QUIET, f"--optimizer.epochs={epochs}", f"--run_dir={tmp_path / 'r'}"]
    config = replace(parse(given)[0], features=Features(views=views))
    monkeypatch.setattr(job, "seconds_per_step", lambda *_: 2.0)
    steps, validation = 1294 // 256, 1 + 0.6 * 144 / 1294  # a pass over the validation images is a forward pass
    own = epochs * 2 * validation
    # without stored views every step goes through all layers below, with them each view once through the one below
    below = [0, 1.2, 2.4] if not views else [0, 1.2, 1.2]
    passes = epochs if not views else min(views, epochs)
    expected = steps * sum(own + passes * part for part in below)
    assert estimate([Job(config)]) == pytest.approx(expected)
    assert estimate([Job(config)] * 2) == pytest.approx(2 * expected)
    for number in (1, 2):
        (tmp_path / "r" / f"layer-{number}").mkdir(parents=True)
        (tmp_path / "r" / f"layer-{number}" / "layer.json").touch()
    assert estimate([Job(config)]) == pytest.approx(steps * (own + passes * below[2]))


def test_estimate__measures_each_kind_of_layer_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = parse(["--depth=3", *QUIET, f"--run_dir={tmp_path / 'r'}"])[0]
    measured = []

    def seconds(model: torch.nn.Module, optimizer: object, shape: tuple[int, int, int], *_: object) -> float:
        measured.append(shape)
        return 1.0

    monkeypatch.setattr(job, "seconds_per_step", seconds)
    estimate([Job(config)] * 3)
    assert measured == [(1, 8, 8), (8, 6, 6), (8, 4, 4)]
