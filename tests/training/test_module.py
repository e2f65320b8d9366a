"""A layer's optimizer, its schedule and its loss, against formulas."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from layerwise import config
from layerwise.config import Features, Optimizer
from layerwise.data.images import to_input
from layerwise.data.views import ViewStore
from layerwise.nn.stack import FrozenStack
from layerwise.training.fit import fit_layer
from layerwise.training.inputs import LayerData
from layerwise.training.module import BestEpoch, LayerModule
from tests.nn.layers import SMALL, make_layer
from tests.training.worlds import CPU, Matrix, world


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_weight_decay__is_of_weights_alone(name: str) -> None:
    layer = make_layer(SMALL, (2, 9, 8))
    module = LayerModule(layer, 1, 3, Optimizer(name, "steps", learning_rate=0.1, weight_decay=0.5), 100)
    made: Any = module.configure_optimizers()
    before = {}
    for parameter_name, parameter in layer.named_parameters():
        nn.init.normal_(parameter)
        parameter.grad = torch.zeros_like(parameter)
        before[parameter_name] = parameter.detach().clone()
    made["optimizer"].step()
    weights = ["layer.embedding.maps.weight", "layer.projection.weight", "probe.linear.weight"]
    offsets = ["layer.embedding.maps.bias", "layer.projection.bias", "probe.linear.bias", "layer.norm.weight"]
    assert sorted(before) == sorted([*weights, *offsets, "layer.norm.bias"])
    for parameter_name, parameter in layer.named_parameters():
        # without a gradient a step is a decay by 1 - 0.1 * 0.5
        share = 0.95 if parameter_name in weights else 1
        torch.testing.assert_close(parameter.detach(), share * before[parameter_name])


class Rates(Callback):
    """Notes the learning rate of every step."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    def on_train_batch_start(self, trainer: Trainer, *args: object) -> None:
        self.seen.append(trainer.optimizers[0].param_groups[0]["lr"])
        assert len({group["lr"] for group in trainer.optimizers[0].param_groups}) == 1


def rates(tmp_path: Path, settings: Optimizer) -> list[float]:
    """The learning rates of two epochs of ten steps."""
    batch: Any = torch.randn(2, 1, 2, 2), None, torch.tensor([0, 1]), None
    steps: Any = [[batch]] * 10  # one at a time
    seen = Rates()
    trainer = Trainer(
        accelerator="cpu", max_epochs=2, callbacks=[seen], logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip
    held: Any = [batch]
    train, val = DataLoader(steps, batch_size=None), DataLoader(held, batch_size=None)
    trainer.fit(LayerModule(Matrix(4, 2), 1, 2, settings, 10), train, val)
    return seen.seen


def test_schedule__falls_to_a_tenth_and_a_hundredth__at_a_half_and_three_quarters_of_the_steps(tmp_path: Path) -> None:
    seen = rates(tmp_path, Optimizer("sgd", "steps", epochs=2, learning_rate=0.4))
    assert seen == pytest.approx([0.4] * 10 + [0.04] * 5 + [0.004] * 5)


def test_schedule__rises_for_a_share_of_the_steps__then_falls_to_next_to_nothing(tmp_path: Path) -> None:
    seen = rates(tmp_path, Optimizer("adamw", "cycle", epochs=2, learning_rate=0.5, warmup=0.25))
    # half a cosine from a 25th of the rate to the rate over steps 0 to 4, another to a 250,000th over steps 4 to 19
    up = [0.02 + 0.48 * (1 - math.cos(math.pi * step / 4)) / 2 for step in range(4)]
    down = [2e-6 + (0.5 - 2e-6) * (1 + math.cos(math.pi * step / 15)) / 2 for step in range(16)]
    assert seen == pytest.approx(up + down)


@pytest.mark.parametrize("schedule", ["cycle", "steps"])
def test_schedule__of_a_single_step__is_its_rate(schedule: str) -> None:
    module = LayerModule(Matrix(4, 2), 1, 2, Optimizer("sgd", schedule, epochs=1, learning_rate=0.4), 1)
    made: Any = module.configure_optimizers()
    assert [group["lr"] for group in made["optimizer"].param_groups] == [0.4] * 2


class Logged:
    """Notes what is logged: layer, step and value, by name."""

    def __init__(self) -> None:
        self.seen: dict[str, list[tuple[int, int, float]]] = {}

    def logged(self, layer: int, step: int, metrics: dict[str, float]) -> None:
        for name, value in metrics.items():
            self.seen.setdefault(name, []).append((layer, step, value))


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_loss__is_cross_entropy_with_smoothed_labels__of_validation_with_plain_ones(
    smoothing: float, tmp_path: Path
) -> None:
    data, model, losses = world(20), Matrix(36, 20), Logged()
    weight = model.weight.detach().double().clone()
    batches = LayerData(FrozenStack(), ViewStore(Features(), data, 0, CPU), 20, 0)
    optimizer = Optimizer("sgd", learning_rate=1e-30, epochs=1, batch_size=20, label_smoothing=smoothing)
    best = fit_layer(model, 1, batches, optimizer, config.Trainer(), tmp_path, [losses])  # type: ignore[list-item]

    def shares(pixels: Tensor) -> Tensor:
        return torch.log_softmax(to_input(pixels).double().flatten(1) @ weight, 1)

    logs = shares(data.train.pixels[:])  # all in one batch, so that no order matters
    expected = -((1 - smoothing) * logs.diag() + smoothing / 20 * logs.sum(1)).mean()
    ((layer, step, loss),) = losses.seen["train_loss"]
    assert (layer, step) == (1, 0) and loss == pytest.approx(float(expected), rel=1e-4)
    plain = -shares(data.val.pixels[:])[:, :10].diag().mean()
    assert best.epochs[0]["val_loss"] == pytest.approx(float(plain), rel=1e-4)


def test_metrics__are_logged_ten_times_an_epoch__and_are_shares_of_right_answers(tmp_path: Path) -> None:
    data, model, logged = world(90, classes=3), Matrix(36, 3), Logged()
    for images in (data.train, data.val):
        images.labels[: len(images) // 2] = 2  # classes are not equally frequent
    weight = model.weight.detach().clone()
    batches = LayerData(FrozenStack(), ViewStore(Features(), data, 0, CPU), 3, 0)
    optimizer = Optimizer("sgd", learning_rate=1e-30, epochs=2, batch_size=3)
    best = fit_layer(model, 4, batches, optimizer, config.Trainer(), tmp_path, [logged])  # type: ignore[list-item]
    assert [step for _, step, _ in logged.seen["train_loss"]] == list(range(2, 60, 3))
    assert {layer for seen in logged.seen.values() for layer, _, _ in seen} == {4}
    for name, images in (("train_accuracy", data.train), ("val_accuracy", data.val)):
        right = (to_input(images.pixels[:]).flatten(1) @ weight).argmax(1) == images.labels
        assert 0 < right.sum() < len(images)
        expected = float(right.double().mean())
        assert [value for _, _, value in logged.seen[name]] == pytest.approx([expected] * 2)
        assert [step for _, step, _ in logged.seen[name]] == [29, 59]
        assert [epoch[name] for epoch in best.epochs] == pytest.approx([expected] * 2)


def test_best_epoch__is_the_most_accurate__of_equal_ones_that_of_lowest_loss() -> None:
    history = BestEpoch()
    history.epochs = [
        {"val_accuracy": accuracy, "val_loss": loss}
        for accuracy, loss in [(0.7, 0.1), (0.8, 0.9), (0.8, 0.5), (0.6, 0.4)]
    ]
    assert history.best == {"val_accuracy": 0.8, "val_loss": 0.5}
