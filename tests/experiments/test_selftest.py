"""layerwise selftest: that it finds nothing here, and that it would find what is broken."""

import json
import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from layerwise.experiments.selftest import damage
from layerwise.experiments.selftest.bench import Bench, differing
from layerwise.run import folder, run
from tests.conftest import Command


@pytest.mark.slow
def test_selftest__a_short_one_finds_no_failure(command: Command, tmp_path: Path) -> None:
    done = command("selftest", "--effort", "0.1", "--folder", str(tmp_path), "--json", "s.json")
    assert done.returncode == 0, done.stdout + done.stderr
    outcomes = json.loads((tmp_path / "s.json").read_text())
    trials = {outcome["promise"].partition(":")[0]: outcome["trials"] for outcome in outcomes}
    assert len(trials) == 9 and trials["SIGKILL at any instant"] >= 1 and "Not promised" in done.stdout
    assert sum(trials.values()) > 45 and not any(outcome["failures"] for outcome in outcomes)
    assert [path.name for path in tmp_path.iterdir()] == ["s.json"]


def test_selftest__answers_to_bad_options(command: Command) -> None:
    for given in ("0", "-1", "nan", "x"):
        done = command("selftest", "--effort", given)
        assert done.returncode == 2 and "--effort" in done.stderr, done.stderr


@pytest.fixture
def bench(trained: Path, tmp_path: Path) -> Iterator[Bench]:
    """One whose undisturbed runs are of digits, so that no process is needed."""

    run = tmp_path / "run"
    shutil.copytree(trained / "layer-1", run / "layer-1")

    class OfDigits(Bench):
        shallow = half = run

        def command(self, *more: str) -> list[str]:
            return ["train", "--config=plain_digits"]

    yield OfDigits(tmp_path, 0.2, random.Random(0))


def test_damaged__finds_what_is_accepted_though_it_changed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run.Run, "check", lambda *_: None)
    monkeypatch.setattr(run.Run, "config", None)
    assert damage.damaged(bench).failures == []
    monkeypatch.setattr(folder, "read_record", lambda path, check: json.loads(path.read_text()))
    failures = damage.damaged(bench).failures
    assert failures and all(failure.startswith("layer-1/layer.json, ") for failure in failures)


def test_differing__names_the_files_that_differ_but_for_seconds(finished: Path, trained: Path) -> None:
    assert differing(finished, trained) == ""
    summary = json.loads((finished / "summary.json").read_text())
    (finished / "summary.json").write_text(json.dumps(summary | {"seconds": 1}, indent=2))
    assert differing(finished, trained) == ""
    (finished / "summary.json").write_text(json.dumps(summary | {"depth": 1}))
    shutil.rmtree(finished / "layer-2")
    os.truncate(finished / "accuracy.png", 100)
    told = (
        "other content of accuracy.png, layer-2/dictionary.safetensors, layer-2/layer.json, layer-2/layer.safetensors"
    )
    assert differing(finished, trained) == f"{told}, summary.json"
