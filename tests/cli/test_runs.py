"""layerwise runs: one line a run, whatever is in its folder."""

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import pytest

from layerwise.data.splits import load_data
from layerwise.parsing import parse
from layerwise.run.files import write_record
from layerwise.run.lock import Lock
from layerwise.run.run import Run
from tests.conftest import QUIET, Command


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A run of two layers, in the folder that is looked in."""
    return Path(shutil.copytree(trained, tmp_path / "runs" / "a"))


def told(command: Command, *arguments: str) -> dict[str, dict[str, Any]]:
    """What is said of each run, by name."""
    done = command("runs", "--json", *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    return {run["name"]: run for run in json.loads(done.stdout)}


def asked_for(folder: Path, depth: int | Literal["auto"]) -> None:
    """Begin to train to a depth, and stop at once."""
    run, config = Run(folder), parse(QUIET)[0]
    run.start(replace(config, depth=depth), load_data(config.data, 0))
    run.release()


def test_runs__of_a_finished_run__is_what_its_files_say(run: Path, command: Command) -> None:
    summary = json.loads((run / "summary.json").read_text())
    newest = max(path.stat().st_mtime for path in run.rglob("*"))
    assert told(command) == {
        "a": {
            "name": "a",
            "path": "runs/a",
            "changed": datetime.fromtimestamp(newest).astimezone().isoformat(timespec="seconds"),
            "problem": None,
            "data": "digits",
            "depth": 2,
            "asked": 2,
            "state": "done",
            "used_by": None,
            "val_accuracy": summary["layers"][1]["val_accuracy"],
            "test_accuracy": summary["test_accuracy"],
        }
    }
    header, line = command("runs").stdout.splitlines()
    assert header.split() == ["run", "data", "state", "depth", "val", "test", "changed"]
    accuracies = f"{summary['layers'][1]['val_accuracy']:.2%} {summary['test_accuracy']:.2%}"
    assert " ".join(line.split()) == f"a digits done 2/2 {accuracies} {datetime.fromtimestamp(newest):%Y-%m-%d}"


def test_runs__finds_those_below__but_not_within_runs_or_hidden(run: Path, command: Command, tmp_path: Path) -> None:
    for name in ("tables/one/b", "a/wandb/within", ".hidden/c"):
        shutil.copytree(run, tmp_path / "runs" / name)
    (tmp_path / "runs" / "tables" / "up").symlink_to(tmp_path / "runs")
    (tmp_path / "runs" / "empty").mkdir()
    assert list(told(command)) == ["a", "tables/one/b"]
    assert list(told(command, "runs/tables")) == ["one/b", "up/a"]  # and not what it began with once more
    assert list(told(command, "runs/a")) == ["a"]


def test_runs__tells_how_far_each_is(run: Path, command: Command, tmp_path: Path) -> None:
    def state(name: str = "a") -> tuple[str, int, object, bool]:
        found = told(command)[name]
        return found["state"], found["depth"], found["asked"], found["test_accuracy"] is not None

    asked_for(tmp_path / "runs" / "new", 2)
    assert state("new") == ("not begun", 0, 2, False)
    asked_for(run, 3)
    assert state() == ("stopped", 2, 3, True)
    (run / "layer-3").mkdir()
    (run / "layer-3" / "last.ckpt").touch()
    assert state() == ("in layer 3", 2, 3, True)
    assert " in layer 3    2/3 " in command("runs").stdout
    shutil.rmtree(run / "layer-3")
    asked_for(run, 1)
    assert state() == ("not tested", 1, 1, False)
    asked_for(run, "auto")  # which the second layer is worth, and a third was not tried
    assert state() == ("stopped", 2, "auto", True)
    assert " stopped    2 auto " in command("runs").stdout
    summary = json.loads((run / "summary.json").read_text())
    (run / "summary.json").write_text(json.dumps(summary | {"stopped": "layer 3 brings nothing"}))
    assert state() == ("done", 2, "auto", True)
    (run / "summary.json").unlink()
    assert state() == ("stopped", 2, "auto", False)
    asked_for(run, 2)
    assert state() == ("not tested", 2, 2, False)


def test_runs__with_a_third_layer_that_does_not_help__have_two(run: Path, command: Command) -> None:
    asked_for(run, "auto")
    known = json.loads((run / "layer-2" / "layer.json").read_text())
    del known["fingerprint"]
    write_record(run / "layer-2" / "layer.json", known | {"val_accuracy": 0.0})
    found = told(command)["a"]
    assert (found["depth"], found["state"]) == (1, "not tested")


def test_runs__of_a_network_without_layers__are_what_its_summary_says(run: Path, command: Command) -> None:
    for layer in ("layer-1", "layer-2"):
        shutil.rmtree(run / layer)
    summary = json.loads((run / "summary.json").read_text())
    found = told(command)["a"]
    assert (found["state"], found["depth"], found["test_accuracy"]) == ("done", 2, summary["test_accuracy"])


def test_runs__in_use__name_the_process(run: Path, command: Command) -> None:
    lock = Lock(run)
    lock.acquire()
    owner = (run / ".owner").read_text()
    found = told(command)["a"]
    assert (found["state"], found["used_by"]) == ("running", owner)
    assert found["depth"] == 2
    lock.release()
    (run / ".owner").write_text(owner)  # as a kill leaves it
    assert told(command)["a"]["state"] == "done"


def old_version(run: Path) -> None:
    known = json.loads((run / "layer-1" / "layer.json").read_text())
    (run / "layer-1" / "layer.json").write_text(json.dumps(known | {"format": 3}))


def flipped(run: Path) -> None:
    content = bytearray((run / "layer-2" / "layer.safetensors").read_bytes())
    content[-5] ^= 4
    (run / "layer-2" / "layer.safetensors").write_bytes(content)


BAD: list[tuple[Callable[[Path], object], str]] = [
    (flipped, r"layer-2/layer\.safetensors is missing or damaged"),
    (old_version, r"layer-1 was written by another version of layerwise \(format 3, this one reads 4\)"),
    (lambda run: shutil.rmtree(run / "layer-1"), r"layer-1/layer\.json is missing, though layer-2 was trained on .*"),
    (lambda run: (run / "config.yaml").unlink(), r"config\.yaml is missing"),
    (lambda run: (run / "config.yaml").write_text("a: ["), r"config\.yaml is damaged or was edited \(.*\)"),
    (lambda run: (run / "config.yaml").write_bytes(b"\xff\0"), r"config\.yaml is damaged or was edited \(.*\)"),
    (
        lambda run: (run / "layer-1" / "layer.json").write_text("{}"),
        r"layer-1/layer\.json is missing or damaged \(.*\)",
    ),
    (lambda run: (run / "summary.json").write_text("[]"), r"summary\.json is damaged"),
    (lambda run: (run / "summary.json").write_text('{"depth": 2}'), r"summary\.json is damaged"),
]


@pytest.mark.parametrize("damage, clause", BAD)
def test_runs__that_are_damaged__are_told_beside_the_others(
    damage: Callable[[Path], object], clause: str, run: Path, command: Command
) -> None:
    shutil.copytree(run, run.with_name("whole"))
    damage(run)
    done = command("runs")
    assert (done.returncode, done.stderr) == (0, "")
    header, whole, bad = done.stdout.splitlines()
    assert whole.startswith("whole  digits  done ")
    assert re.fullmatch(rf"a: {clause}", bad), bad
    assert told(command)["a"]["problem"] == bad[3:] and told(command)["a"]["depth"] is None


def test_runs__where_there_is_none(command: Command, tmp_path: Path) -> None:
    assert command("runs").stdout == "no runs in runs\n"
    assert command("runs", "--json").stdout == "[]\n"
    (tmp_path / "empty").mkdir()
    assert command("runs", "empty").stdout == "no runs in empty\n"
    done = command("runs", "nowhere")
    assert done.returncode == 2
    assert done.stderr == "error: DIR: nowhere is not a folder; give one that holds runs, such as runs\n"


def test_process__runs_are_listed_without_torch(run: Path, process: Command) -> None:
    done = process("-X", "importtime", "-m", "layerwise", "runs")
    assert " done " in done.stdout, done.stderr
    assert "safetensors" in done.stderr
    assert not re.search(r"\| +(torch|numpy|lightning|wandb)$", done.stderr, re.MULTILINE)
