"""The training of one layer: its checkpoint, its number format."""

import io
import logging
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from layerwise import config
from layerwise.config import Features, Optimizer
from layerwise.data.views import ViewStore
from layerwise.errors import DamagedRun
from layerwise.nn.stack import FrozenStack
from layerwise.run.files import commit
from layerwise.run.folder import LayerFolder
from layerwise.training import fit
from layerwise.training.fit import fit_layer, rounding
from layerwise.training.inputs import LayerData
from layerwise.training.module import BestEpoch
from tests.conftest import QUIET, Command, products_by
from tests.nn.layers import SMALL, make_layer
from tests.run.test_run import hashes
from tests.training.worlds import CPU, Matrix, world


def fitted(model: torch.nn.Module, folder: Path, epochs: int = 2, precision: str = "32-true") -> BestEpoch:
    """Train a model on twenty images."""
    batches = LayerData(FrozenStack(), ViewStore(Features(), world(20), 0, CPU), 5, 0)
    optimizer = Optimizer("sgd", "steps", epochs=epochs, batch_size=5, learning_rate=0.01)
    where = config.Trainer(precision=precision)  # type: ignore[arg-type]
    return fit_layer(model, 1, batches, optimizer, where, folder)


class Watched(Matrix):
    """Notes the number format of its products."""

    def __init__(self) -> None:
        super().__init__(36, 20)
        self.seen: set[torch.dtype] = set()
        self.multiplied: set[str] = set()

    def said(self, x: Tensor, below: Tensor | None = None, near: Tensor | None = None) -> Tensor:
        logits = super().said(x, below)
        self.seen.add(logits.dtype)
        self.multiplied.add(torch.get_float32_matmul_precision())
        return logits


@pytest.mark.parametrize("precision, expected", [("32-true", torch.float32), ("bf16-mixed", torch.bfloat16)])
def test_precision__is_that_of_the_products(precision: str, expected: torch.dtype, tmp_path: Path) -> None:
    model = Watched()
    fitted(model, tmp_path, 1, precision)
    assert model.seen == {expected} and model.weight.dtype == torch.float32


def test_products_of_float32__are_exact__but_on_a_gpu_where_half_precision_is_asked_for(tmp_path: Path) -> None:
    model = Watched()
    for way in ("medium", "tf32"):
        with products_by(way):
            fitted(model, tmp_path, 1, "bf16-mixed")
    assert model.multiplied == {"highest"}
    gpu = torch.device("cuda")
    for precision, expected in (("32-true", "highest"), ("16-mixed", "high"), ("bf16-mixed", "high")):
        assert (rounding(precision, CPU), rounding(precision, gpu)) == ("highest", expected)


def test_half_precision__changes_the_projection__but_no_gate_and_no_map(generator: torch.Generator) -> None:
    layer, x = make_layer(SMALL, (2, 9, 8)).layer.eval(), torch.randn(4, 2, 9, 8, generator=generator)
    seen: list[Tensor] = []
    exact = layer.embedding(x)
    whole = layer.projection(layer.norm(exact))
    layer.embedding.register_forward_hook(lambda module, inputs, output: seen.append(output.detach()))
    with torch.autocast("cpu", torch.bfloat16):
        rounded = layer(x)
    assert torch.equal(seen[0], exact) and exact.dtype == torch.float32
    assert rounded.dtype == torch.bfloat16 and not torch.equal(rounded.float(), whole)
    torch.testing.assert_close(rounded.float(), whole, atol=0.03, rtol=0.03)


def test_fit__goes_on_where_it_stood__and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = fitted(Matrix(36, 20), tmp_path, 3)
    assert len(whole.epochs) == 3 and "resuming" not in capsys.readouterr().out
    again = fitted(Matrix(36, 20), tmp_path, 3)
    assert again.epochs == whole.epochs and torch.equal(again.weights["weight"], whole.weights["weight"])
    assert again.seconds >= whole.seconds > 0
    assert capsys.readouterr().out == "layer 1: resuming after its last finished epoch\n"


def test_what_is_dropped__follows_from_the_epoch__whatever_was_drawn_before(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ["train", *QUIET, "--layer.probe.dropout=0.5"]
    assert command(*settings, "--run_dir=whole").returncode == 0

    def stopped(path: Path, write: Callable[[Path], object]) -> None:
        commit(path, write)
        raise OSError("stopped")

    with monkeypatch.context() as moment:  # after the first of two epochs
        moment.setattr("layerwise.training.fit.commit", stopped)
        assert command(*settings).returncode == 1
    torch.rand(5)
    resumed = command(*settings)
    assert resumed.returncode == 0 and "resuming after its last finished epoch" in resumed.stdout
    assert "epoch 2/2" in resumed.stdout and "epoch 1/2" not in resumed.stdout
    assert hashes(tmp_path / "r", "layer-1/*.safetensors") == hashes(tmp_path / "whole", "layer-1/*.safetensors")


def flipped(content: bytes) -> bytes:
    """Content with one bit of its largest part, the weights, turned."""
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def test_a_damaged_checkpoint__is_named_in_one_line(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object) -> None:
        raise OSError("stopped")

    with monkeypatch.context() as moment:  # after the last epoch, before the layer is saved
        moment.setattr(LayerFolder, "save", stopped)
        assert command("train", *QUIET).returncode == 1
    path = tmp_path / "r" / "layer-1" / "last.ckpt"
    content = path.read_bytes()
    for damaged in (content[: len(content) // 2], flipped(content), b""):
        path.write_bytes(damaged)
        done = command("train", *QUIET)
        assert done.returncode == 1
        told = r"error: r/layer-1/last\.ckpt is damaged \(.+\); delete it to train the layer from its start\n"
        assert re.fullmatch(told, done.stderr), done.stderr
    path.write_bytes(content)
    resumed = command("train", *QUIET)
    assert resumed.returncode == 0 and "epoch 1/" not in resumed.stdout and not path.exists()


def test_a_damaged_checkpoint__raises_damaged_run(tmp_path: Path) -> None:
    fitted(Matrix(36, 20), tmp_path, 1)
    path = tmp_path / "last.ckpt"
    path.write_bytes(flipped(path.read_bytes()))
    with pytest.raises(DamagedRun, match=r"last\.ckpt is damaged \(.*\); delete it"):
        fitted(Matrix(36, 20), tmp_path, 1)


class Terminal(io.StringIO):
    """What a bar is drawn on."""

    def isatty(self) -> bool:
        return True


def test_shown__tells_the_time_that_is_left_for_the_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    now = [100.0]
    monkeypatch.setattr("layerwise.training.fit.time.perf_counter", lambda: now[0])
    trainer: Any = SimpleNamespace(global_step=4, current_epoch=1, max_epochs=2)
    trainer.callback_metrics = {"val_accuracy": torch.tensor(0.625)}
    shown = fit._Shown("layer 1/3", 10, 2)
    shown.on_train_start(trainer, None)
    assert shown.bar is not None and (shown.bar.n, shown.bar.total) == (4, 10)
    for _ in range(2):
        now[0] += 3
        trainer.global_step += 1
        shown.on_before_optimizer_step(trainer)
    assert shown.bar.n == 6 and shown.bar.desc == "layer 1/3, epoch 2/2"
    assert shown.bar.postfix == "stack 01:12"  # 3 seconds a step: 4 steps here, 10 in each of two layers above
    shown.on_train_epoch_end(trainer, None)
    now[0] += 6
    trainer.global_step += 1
    shown.on_before_optimizer_step(trainer)
    assert shown.bar.postfix == "stack 01:32, 62.5% correct"  # 4 seconds a step
    now[0] += fit.PAUSE / 2
    trainer.global_step += 1
    shown.on_before_optimizer_step(trainer)
    assert shown.bar.n == 7  # as it was drawn just now
    shown.bar.close()


def test_shown__without_a_terminal_is_a_line_an_epoch(capsys: pytest.CaptureFixture[str]) -> None:
    trainer: Any = SimpleNamespace(global_step=0, current_epoch=1, max_epochs=4)
    trainer.callback_metrics = {"val_accuracy": torch.tensor(0.625)}
    shown = fit._Shown("layer 1", 10, 0)
    shown.on_train_start(trainer, None)
    shown.on_before_optimizer_step(trainer)
    shown.on_train_epoch_end(trainer, None)
    assert capsys.readouterr().out == "layer 1: epoch 2/4, validation accuracy 62.50%\n"


def test_fit__says_which_layer_of_how_many__and_names_its_epochs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    batches = LayerData(FrozenStack(), ViewStore(Features(), world(20), 0, CPU), 5, 0)
    optimizer = Optimizer(epochs=1, batch_size=5)
    for number, depth, name in ((2, 3, "layer 2/3"), (5, None, "layer 5")):
        folder = tmp_path / str(number)
        folder.mkdir()
        fit_layer(Matrix(36, 20), number, batches, optimizer, config.Trainer(), folder, depth=depth)
        assert f"{name}: epoch 1/1, validation accuracy" in capsys.readouterr().out


def test_fit__notes_nothing_of_the_machine(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("lightning.pytorch", "lightning.fabric"):
        caplog.set_level(logging.INFO, name)
    fitted(Matrix(36, 20), tmp_path, 1)
    assert [record.message for record in caplog.records if record.name.startswith("lightning")] == []


class Noting:
    """A listener that notes metrics, and whether there was a checkpoint yet."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rows: list[tuple[int, dict[str, float], bool]] = []

    def logged(self, layer: int, step: int, metrics: dict[str, float]) -> None:
        self.rows.append((step, dict(metrics), (self.folder / "last.ckpt").exists()))


def test_listeners__are_told_each_rate_and_what_an_epoch_costs__before_it_counts_as_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noting: Any = Noting(tmp_path)
    batches = LayerData(FrozenStack(), ViewStore(Features(), world(20), 0, CPU), 5, 0)
    optimizer = Optimizer("sgd", "cycle", epochs=2, batch_size=5, learning_rate=0.01, warmup=0.5)
    monkeypatch.setattr("layerwise.training.fit.memory.peak", lambda: 2_500_000_000)
    best = fit_layer(Matrix(36, 20), 1, batches, optimizer, config.Trainer(), tmp_path, [noting])
    rates = {step: row["learning_rate"] for step, row, _ in noting.rows if "learning_rate" in row}
    assert list(rates) == list(range(8)) and max(rates.values()) == pytest.approx(0.01)
    assert rates[0] < rates[1] < rates[2] and rates[5] > rates[6] > rates[7]
    ends = [(step, row, kept) for step, row, kept in noting.rows if "train_accuracy" in row]
    assert [(step, kept) for step, _, kept in ends] == [(3, False), (7, True)]
    assert [row["train_accuracy"] for _, row, _ in ends] == [epoch["train_accuracy"] for epoch in best.epochs]
    for _, row, _ in ends:
        assert row["memory_gb"] == 2.5 and 0 < 20 / row["images_per_second"] < row["epoch_seconds"]
    assert sum(row["epoch_seconds"] for _, row, _ in ends) <= best.seconds * 1.5
