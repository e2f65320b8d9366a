"""The CNN that is trained end to end, against its layers written out."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from layerwise.config import Config, Norm, SettingError, SingleLayer
from layerwise.data.images import to_input
from layerwise.data.splits import load_data
from layerwise.errors import DamagedRun
from layerwise.experiments.paper import cnn
from layerwise.experiments.paper.cnn import EndToEnd, train_end_to_end
from layerwise.experiments.paper.job import Job
from layerwise.nn.outline import most_numbers
from layerwise.parsing import parse
from layerwise.report.summary import summarize
from layerwise.report.tracking import Tracking
from layerwise.run.files import read_record, write_record
from layerwise.run.record import LayerRecord
from layerwise.run.run import Run

SMALL = SingleLayer(patch_size=4, atoms=6, channels=3, pool=2, norm=Norm(eps=0.1))
ABOVE = SingleLayer(patch_size=3, atoms=5, channels=3, pool=1, norm=Norm(kind="none"))


@pytest.mark.parametrize("convolutions", [1, 2, 3])
def test_end_to_end__is_convolutions_and_bottlenecks__pooled_and_normalized_as_settings_say(convolutions: int) -> None:
    torch.manual_seed(0)
    model = EndToEnd([SMALL, *[ABOVE] * (convolutions - 1)], (2, 16, 15), 5)
    torch.nn.init.normal_(model.probe.linear.weight)
    x = torch.randn(7, 2, 16, 15)
    w = [parameter.detach() for parameter in model.network.parameters()]
    assert len(w) == 6 + 4 * (convolutions - 1) and w[0].shape == (6, 2, 4, 4)
    out = F.avg_pool2d(F.conv2d(x, w[0], w[1]).relu(), 2, ceil_mode=True)  # 13 and 12 positions, 7 and 6 windows
    centered = out - out.mean((0, 2, 3), keepdim=True)
    out = centered / (out.var((0, 2, 3), correction=0, keepdim=True) + 0.1).sqrt()
    out = F.conv2d(out, w[4], w[5])
    for i in range(6, len(w), 4):
        assert w[i].shape == (5, 3, 3, 3) and w[i + 2].shape == (3, 5, 1, 1)
        out = F.conv2d(F.conv2d(out, w[i], w[i + 1]).relu(), w[i + 2], w[i + 3])
    found, logits = model(x)
    torch.testing.assert_close(found, out, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(logits, out.flatten(1) @ model.probe.linear.weight.T + model.probe.linear.bias)
    assert most_numbers([model], (2, 16, 15)) == 6 * 13 * 12
    assert model.shape == tuple(out.shape[1:]) == (3, 9 - 2 * convolutions, 8 - 2 * convolutions)


def test_end_to_end__without_channels_keeps_the_atoms__without_room_is_refused() -> None:
    bare = replace(SMALL, channels=None), replace(ABOVE, channels=None, pool=2, norm=Norm(eps=0.1))
    model = EndToEnd(bare, (2, 16, 15), 5)
    assert model.shape == (5, 3, 2)
    w = [parameter.detach() for parameter in model.network.parameters()]
    assert [tuple(parameter.shape) for parameter in w[::2]] == [(6, 2, 4, 4), (6,), (5, 6, 3, 3), (5,)]
    with pytest.raises(SettingError, match="^depth: 5 convolutions leave nothing of 16×15 images"):
        EndToEnd([SMALL, *[ABOVE] * 4], (2, 16, 15), 5)


def settings(tmp_path: Path, *more: str) -> Config:
    given = [
        "--config=plain_digits",
        "--layer.atoms=16",
        "--layer.channels=8",
        "--layer.gate.kind=relu",
        "--layer.pool=2",
    ]
    given += ["--depth=2", "--optimizer.epochs=3", "--optimizer.learning_rate=0.01", "--wandb.mode=disabled"]
    return parse([*given, f"--run_dir={tmp_path / 'r'}", *more])[0]


def test_end_to_end__is_trained_tested_tracked_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logged, told = list[str](), list[LayerRecord]()

    def noted(records: list[LayerRecord], *others: Any) -> dict[str, Any]:
        told.extend(records)
        return summarize(records, *others)

    monkeypatch.setattr(cnn, "summarize", noted)
    monkeypatch.setattr(Tracking, "logged", lambda own, layer, step, metrics: logged.extend(metrics))
    config = settings(tmp_path)
    run = Run(tmp_path / "r")
    accuracy, took = train_end_to_end(config, run)
    data = load_data(config.data, config.seed)
    model = EndToEnd([config.layer_at(1), config.layer_at(2)], data.shape, 10)
    model.load_state_dict(load_file(run.path / "cnn.safetensors"))
    _, logits = model.eval()(to_input(data.test.pixels[:]))
    assert accuracy == pytest.approx(float((logits.argmax(1) == data.test.labels).double().mean()))
    assert accuracy > 0.6 and logged.count("val_accuracy") == 3
    summary = json.loads((run.path / "summary.json").read_text())
    assert summary["test_accuracy"] == pytest.approx(accuracy) and summary["layers"][0]["atoms"] == 16
    _, logits = model(to_input(data.val.pixels[:]))
    best = float((logits.argmax(1) == data.val.labels).double().mean())
    assert summary["layers"][0]["val_accuracy"] == pytest.approx(best)
    assert summary["layers"][0]["output_shape"] == list(model.shape)
    (record,) = told
    assert record.error == pytest.approx((best * (1 - best) / len(data.val)) ** 0.5)
    seconds = summary["layers"][0]["seconds"]
    assert 0 < seconds == round(seconds, 3) == took
    assert (run.path / "config.yaml").exists()
    assert train_end_to_end(config, run) == (accuracy, took)  # killed here, it goes on from its last epoch
    run.start(config, data)  # which the training let go of
    run.release()


def test_job__tells_accuracies_and_seconds_of_a_finished_run(tmp_path: Path) -> None:
    config = settings(tmp_path)
    job = Job(config, True)
    assert job.folder == tmp_path / "r" and job.tested() is None
    job.train()
    assert not (job.folder / "last.ckpt").exists()
    (accuracy,) = job.tested() or []
    assert 0.6 < accuracy <= 1 and job.seconds(1) > 0
    assert Job(settings(tmp_path, "--trainer.accelerator=cpu"), True).tested() == [accuracy]
    other = Job(settings(tmp_path, "--layer.atoms=17"), True)
    assert other.tested() is None
    with pytest.raises(SettingError, match="was begun with other settings"):
        other.train()
    path = tmp_path / "r" / "depths.json"
    write_record(path, read_record(path) | {"seconds": [1.5, 2.25, 4]})
    assert [job.seconds(depth) for depth in (1, 2, 3)] == [1.5, 3.75, 7.75]
    path.write_text(path.read_text().replace("2.25", "2.35"))
    with pytest.raises(DamagedRun, match=r"depths\.json is damaged \(its content is not .*\); delete it, and the same"):
        job.seconds(1)
