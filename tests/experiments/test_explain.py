"""What a run's layers know by heart, say alone and leave unused."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

import layerwise
from layerwise.data.images import to_input
from layerwise.experiments.explain import SmallCNN, explain
from layerwise.parsing import parse
from layerwise.run.run import Run
from tests.conftest import SMALL, Command


def test_small_cnn__halves_large_maps__and_makes_something_of_any() -> None:
    for shape, parts in (
        ((3, 32, 32), 2),
        ((5, 9, 8), 1),
        ((5, 8, 8), 0),
        ((7, 1, 1), 0),
        ((3, 64, 4), 3),
        ((3, 1, 9), 1),
    ):
        model = SmallCNN(shape, 4)
        assert sum(isinstance(part, torch.nn.AvgPool2d) for part in model.network) == parts
        out, logits = model(torch.randn(6, *shape))
        assert out.shape == (6, 128, 2, 2) and logits.shape == (6, 4)


def test_explain__measures_the_stack__each_layer_alone__and_a_cnn(finished: Path, tmp_path: Path) -> None:
    run = Run(finished)
    found = explain(str(finished), None, 4, tmp_path / "e.json")
    records = run.finished()
    assert [one.layer for one in found] == [record.layer for record in records]
    assert [one.val_accuracy for one in found] == pytest.approx([record.val_accuracy for record in records])
    data = run.data(None)

    def said(of: Tensor, labels: Tensor) -> float:
        return float((of.argmax(1) == labels).double().mean())

    for images, whole, alone in (
        (data.train, "train_accuracy", "alone_train"),
        (data.val, "val_accuracy", "alone_val"),
    ):
        x, below = to_input(images.pixels[:]), torch.zeros(len(images), len(data.classes))
        for one, layer in zip(found, run.stack(records).layers, strict=True):
            with torch.no_grad():
                x, logits = layer(x, below)
            assert vars(one)[whole] == pytest.approx(said(logits, images.labels))
            assert vars(one)[alone] == pytest.approx(said(logits - below, images.labels))  # as they are summed
            below = logits
    assert all(one.cnn_val is not None and 0.3 < one.cnn_val <= 1 for one in found)
    assert (finished / "explained.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((tmp_path / "e.json").read_text()) == [vars(one) for one in found]


def test_explain__trains_one_cnn_for_layers_that_are_given_the_images(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A column that is begun anew is given what layer 1 was."""
    more = ["--layer.probe.logits=averaged", "--layers.2.input=images", "--wandb.mode=disabled"]
    run = layerwise.train(parse([*SMALL, *more, "--depth=3", f"--run_dir={tmp_path / 'columns'}"])[0])
    found = explain(str(run.path), None, 1, None)
    assert capsys.readouterr().out.count("a CNN on the input of layer") == 2
    assert found[0].cnn_val == found[1].cnn_val is not None


def test_explain__prints_a_table__without_a_cnn_if_none_is_wanted(command: Command, finished: Path) -> None:
    done = command("explain", str(finished), "--epochs", "0")
    lines = done.stdout.strip().splitlines()
    assert done.returncode == 0 and lines[-5].split() == [
        "layer",
        "training",
        "validation",
        "alone,",
        "training",
        "alone,",
        "validation",
    ]
    assert "CNN" not in done.stdout and lines[-3].split()[0] == "2"
    refused = command("explain", str(finished), "--epochs", "-1")
    assert refused.returncode == 2 and "epochs: -1 is too few; give 1 or more, or 0 for no CNN" in refused.stderr
