"""What is recorded in W&B: real trainings offline, interrupted and not, read back with W&B's own reader."""

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from layerwise.config import SettingError
from layerwise.config.identity import default_run_dir
from layerwise.data.images import Images
from layerwise.parsing import RECIPES, parse
from layerwise.report.tracking import confusion_matrix, described, predictions
from layerwise.training.evaluation import Evaluation
from tests.conftest import ROOT, SMALL, Command, environment
from tests.test_whole_program import started, wait_for
from tests.training.worlds import world

OFFLINE = [*SMALL, "--run_dir=r", "--wandb.mode=offline"]
CURVES = ["train_loss", "train_accuracy", "val_loss", "val_accuracy", "learning_rate", "epoch"]
COSTS = ["epoch_seconds", "images_per_second", "memory_gb"]
Records = list[dict[str, Any]]


def read_back(run: Path, process: Command) -> Records:
    """The records of the one offline run in a run directory that goes by its id."""
    identity = (run / "wandb" / "run-id").read_text().split("\n")[0]
    (folder,) = (run / "wandb").glob(f"offline-run-*-{identity}")
    for _ in range(5):  # W&B's own process may still be writing when the run has ended
        done = process("-m", "wandb", "leet", "inspect", "--json", str(folder))
        if done.returncode == 0:
            break
        time.sleep(1)
    done.check_returncode()
    return [json.loads(line) for line in done.stdout.splitlines()]


def series(records: Records) -> dict[str, list[tuple[int, Any]]]:
    """Of everything that was logged: the positions on its axis and the values, in order."""
    found: dict[str, list[tuple[int, Any]]] = {}
    for record in records:
        item = record["history"]["item"] if record["type"] == "history" else {}
        for name, value in item.items():
            if not name.startswith("_") and name not in ("layer1/step", "layer2/step", "summary/depth"):
                axis = f"{name.split('/')[0]}/step" if name.startswith("layer") else "summary/depth"
                found.setdefault(name, []).append((item[axis], value))
    return found


def summary(records: Records) -> dict[str, Any]:
    """The summary, as it is in the end."""
    return {
        name: value
        for record in records
        if record["type"] == "summary"
        for name, value in record["summary"].get("update", {}).items()
    }


def names(found: dict[str, Any]) -> set[str]:
    return {name.removesuffix("._type") for name in found if "." not in name or name.endswith("._type")}


def test_a_stack__is_one_offline_run_that_holds_all_of_it__though_it_was_made_deeper(
    command: Command, process: Command, tmp_path: Path
) -> None:
    first = command("train", "--depth=1", *OFFLINE)
    assert first.returncode == 0, first.stderr
    assert len(re.findall("W&B: tracking offline; to upload: (?:uv run )?wandb sync ", first.stdout)) == 1
    second = command("train", "--depth=2", *OFFLINE)
    assert second.returncode == 0, second.stderr
    third = command("train", "--depth=2", *OFFLINE)
    assert third.stdout.endswith("W&B: nothing new\n") and "offline" not in third.stdout

    records = read_back(tmp_path / "r", process)
    found, told = series(records), json.loads((tmp_path / "r" / "summary.json").read_text())
    for layer in ("layer1", "layer2"):
        for name in (*CURVES, *COSTS):
            steps = [step for step, _ in found[f"{layer}/{name}"]]
            # two epochs of five steps, each of which is logged
            assert steps == ([4, 9] if name in (*CURVES[1:4], *COSTS) else list(range(10))), name
        assert all(value > 0 for name in COSTS for _, value in found[f"{layer}/{name}"])
    pictures = {f"layer{i}/{name}" for i in (1, 2) for name in ("atoms", "usage", "maps")}
    pictures |= {"layer1/whitened", "layer2/answers", "accuracy", "confusion"}
    tables = {"summary/predictions", "summary/confusion_matrix_table"}
    rows = {f"layer{i}/{name}" for i in (1, 2) for name in (*CURVES, *COSTS, "overlap")}
    assert names(found) == pictures | tables | rows | {"summary/accuracy", "summary/test_accuracy"}
    for name, key in (("summary/accuracy", "val_accuracy"), ("summary/test_accuracy", "test_accuracy")):
        assert found[name] == [(layer["layer"], layer[key]) for layer in told["layers"]]

    shown = summary(records)
    for i, layer in enumerate(told["layers"], 1):
        best = max(value for _, value in found[f"layer{i}/val_accuracy"])
        assert shown[f"layer{i}/val_accuracy"] == layer["val_accuracy"] == best
        assert shown[f"layer{i}/test_accuracy"] == layer["test_accuracy"]
    assert (shown["test_accuracy"], shown["depth"]) == (told["test_accuracy"], 2)

    metrics = [record["metric"] for record in records if record["type"] == "metric"]
    hidden = {metric["name"] for metric in metrics if metric["options"].get("hidden")}
    assert hidden == {"layer1/step", "layer1/epoch", "layer2/step", "layer2/epoch", "summary/depth"}
    axes = {metric["glob_name"]: metric["step_metric"] for metric in metrics if "glob_name" in metric}
    assert axes == {"layer1/*": "layer1/step", "layer2/*": "layer2/step", "summary/*": "summary/depth"}
    (config,) = (record["run"]["config"]["update"] for record in records if record["type"] == "run")
    assert config["images"] == {"train": 1294, "val": 144, "test": 359, "shape": [1, 8, 8]}
    assert config["classes"] == [str(i) for i in range(10)] and config["layer"]["atoms"] == 16


@pytest.mark.slow
def test_what_was_killed_twice__is_one_offline_run_like_that_of_an_undisturbed_training(
    command: Command, process: Command, tmp_path: Path
) -> None:
    settings = [*OFFLINE, "--depth=2", "--optimizer.epochs=6"]
    whole = command("train", *settings, "--run_dir=u")
    assert whole.returncode == 0, whole.stderr
    for layer in (1, 2):
        killed = started(tmp_path, *settings)
        wait_for(tmp_path / "r" / f"layer-{layer}" / "last.ckpt", killed)
        killed.send_signal(signal.SIGKILL)
        killed.communicate()
        assert killed.returncode == -signal.SIGKILL
    last = command("train", *settings)
    assert last.returncode == 0, last.stderr
    assert "layer 2: resuming after its last finished epoch" in last.stdout

    mine, theirs = (series(read_back(tmp_path / name, process)) for name in ("r", "u"))
    assert mine.keys() == theirs.keys()
    for name, rows in mine.items():
        positions = [position for position, _ in rows]
        assert positions == [position for position, _ in theirs[name]] == sorted(set(positions)), name
        differs = name.rpartition("/")[2] in COSTS or "." in name  # such as where a picture is
        assert differs or rows == theirs[name], name


def test_layers_that_are_trained_anew__are_another_run__which_begins_with_those_below(
    command: Command, process: Command, tmp_path: Path
) -> None:
    settings = ["train", "--depth=2", *OFFLINE, "--optimizer.epochs=1"]
    assert command(*settings).returncode == 0
    before, identity = series(read_back(tmp_path / "r", process)), (tmp_path / "r" / "wandb" / "run-id").read_text()
    again = command(*settings, "--restart_from=2", "--layers.2.optimizer.learning_rate=0.001")
    assert again.returncode == 0, again.stderr
    after = series(read_back(tmp_path / "r", process))
    assert (tmp_path / "r" / "wandb" / "run-id").read_text()[:8] != identity[:8]
    assert len(list((tmp_path / "r" / "wandb").glob("offline-run-*"))) == 2  # the old one holds what was deleted
    assert after.keys() == before.keys()
    assert after["layer1/train_loss"] == before["layer1/train_loss"]
    assert [step for step, _ in after["layer2/val_loss"]] == [4]
    assert after["layer2/val_loss"] != before["layer2/val_loss"]


@pytest.mark.slow
def test_an_agent_of_a_sweep__gives_each_run_its_id_and_a_directory(
    process: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = [word for word in SMALL if "epochs" not in word] + ["--optimizer.epochs=1", "--wandb.mode=offline"]
    (tmp_path / "config.yaml").write_text("wandb_version: 1\noptimizer.epochs: {value: 1}\n")
    agent = {"WANDB_SWEEP_ID": "s4", "WANDB_PROJECT": "tuning", "WANDB_DIR": str(tmp_path)}
    agent["WANDB_SWEEP_PARAM_PATH"] = str(tmp_path / "config.yaml")
    given = environment() | agent | {"WANDB_RUN_ID": "abcd1234"}
    command = [sys.executable, str(ROOT / "train.py"), *settings]
    done = subprocess.run(command, cwd=tmp_path, env=given, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "run directory: runs/sweep-s4/abcd1234\n" in done.stdout
    (run,) = (r["run"] for r in read_back(tmp_path / "runs/sweep-s4/abcd1234", process) if r["type"] == "run")
    assert (run["run_id"], run["project"], run["sweep_id"]) == ("abcd1234", "tuning", "s4")
    assert run["config"]["update"]["optimizer.epochs"] == 1
    for name, value in (agent | {"WANDB_RUN_ID": "../x y"}).items():  # of the same settings, a run of its own
        monkeypatch.setenv(name, value)
    assert parse(settings)[1] == default_run_dir(parse(settings)[0]) == "runs/sweep-s4/-x-y"


def test_the_sweep__sets_settings_that_there_are__and_measures_what_is_logged() -> None:
    sweep = yaml.safe_load((RECIPES / "sweep.yaml").read_text())
    assert sweep["metric"]["name"] == "summary/accuracy" and (RECIPES.parent / sweep["program"]).exists()
    for end in (min, max):
        chosen = {
            name: about.get("value", end(about["values"]) if "values" in about else about.get(end.__name__))
            for name, about in sweep["parameters"].items()
        }
        assert parse([f"--{name}={value}" for name, value in chosen.items()])[0].depth == 2
    with pytest.raises(SettingError, match="config: sweep is not a file"):
        parse(["--config=sweep"])


def evaluation() -> Evaluation:
    """Of five images: right at 0.9, wrong at 0.6, right at 0.5, wrong at 0.8, right at 0.7."""
    ranked = torch.tensor([[[0, 1], [1, 0], [0, 1], [0, 1], [1, 0]]])
    shares = torch.tensor([0.9, 0.6, 0.5, 0.8, 0.7])
    labels = torch.tensor([0, 0, 0, 1, 1])
    return Evaluation(labels, ranked, torch.stack([shares, 1 - shares], 1)[None], 2)


@pytest.mark.parametrize("channels", [1, 3, 16])
def test_predictions__begin_with_the_surest_mistake_and_end_with_what_is_surely_right(channels: int) -> None:
    import wandb

    pixels = torch.arange(5, dtype=torch.uint8)[:, None, None, None].expand(5, channels, 4, 6)
    table = predictions(evaluation(), Images(pixels, evaluation().labels), ["cat", "dog"])(wandb)
    expected = [("dog", "cat", 0.8), ("cat", "dog", 0.6), ("cat", "cat", 0.5), ("dog", "dog", 0.7), ("cat", "cat", 0.9)]
    assert [(true, found, round(share, 6)) for *_, true, found, share in table.data] == expected
    assert table.columns == ["image"] * (channels != 16) + ["true", "predicted", "probability"]
    if channels != 16:
        shown = [np.asarray(row[0].image) for row in table.data]
        assert [int(image.max()) for image in shown] == [3, 1, 2, 4, 0] and shown[0].shape[:2] == (4, 6)


def test_confusion_matrix__counts_true_and_predicted_classes() -> None:
    import wandb

    rows = confusion_matrix(evaluation(), ["cat", "dog"])(wandb).table.data
    assert rows == [["cat", "cat", 2], ["cat", "dog", 1], ["dog", "cat", 1], ["dog", "dog", 1]]


def test_described__names_classes_that_are_no_text() -> None:
    data = world(20)
    data.classes[0] = "b\udce4r"
    values = described(parse([])[0], data)
    assert values["classes"][0] == "b?r" and values["depth"] == 1
    json.dumps(values).encode()


def test_a_run_of_another_place__is_not_touched(command: Command, tmp_path: Path) -> None:
    assert command("train", *OFFLINE, "--optimizer.epochs=1").returncode == 0
    shutil.copytree(tmp_path / "r", tmp_path / "copy", symlinks=True)
    before = sorted(path.name for path in (tmp_path / "r" / "wandb").iterdir())
    done = command("train", *OFFLINE, "--optimizer.epochs=1", "--depth=2", "--run_dir=copy")
    assert done.returncode == 0 and "is a copy of" in done.stdout
    assert sorted(path.name for path in (tmp_path / "r" / "wandb").iterdir()) == before
    assert len(list((tmp_path / "copy" / "wandb").glob("offline-run-*"))) == 1
