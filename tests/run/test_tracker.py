"""W&B: real offline runs, read back with W&B's own reader; and that no failure of it stops a training."""

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from layerwise.config import Wandb
from layerwise.run.record import LayerRecord
from layerwise.run.tracker import Tracker, _identity
from tests.conftest import QUIET, SMALL, Command, environment


def read_back(run: Path, process: Command) -> list[dict[str, Any]]:
    """Every record of every offline run in a run directory, in order of time."""
    records = []
    for folder in sorted((run / "wandb").glob("offline-run-*")):
        for _ in range(5):  # W&B's own process may still be writing when the run has ended
            done = process("-m", "wandb", "leet", "inspect", "--json", str(folder))
            if done.returncode == 0:
                break
            time.sleep(1)
        done.check_returncode()
        records += [json.loads(line) for line in done.stdout.splitlines()]
    return records


def test_offline_run__has_each_layers_curves_on_its_own_axis__and_one_id_on_resume(
    command: Command, process: Command, tmp_path: Path
) -> None:
    first = command("train", "--depth=1", *SMALL, "--run_dir=r")
    assert first.returncode == 0, first.stderr
    assert len(re.findall("W&B: tracking offline; to upload: (?:uv run )?wandb sync ", first.stdout)) == 1
    second = command("train", "--depth=2", *SMALL, "--run_dir=r")
    assert second.returncode == 0, second.stderr

    records = read_back(tmp_path / "r", process)
    assert len({record["run"]["run_id"] for record in records if record["type"] == "run"}) == 1
    history = [record["history"]["item"] for record in records if record["type"] == "history"]
    for layer in ("layer1", "layer2"):
        for name in ("train_loss", "train_accuracy", "val_loss", "val_accuracy"):
            steps = [item[f"{layer}/step"] for item in history if f"{layer}/{name}" in item]
            assert len(steps) >= 2 and steps == sorted(set(steps)), (layer, name, steps)
            assert 0 <= steps[0] <= 5 and steps[-1] <= 10  # two epochs of five steps
    depths = {item["summary/depth"]: item["summary/accuracy"] for item in history if "summary/depth" in item}
    summary = json.loads((tmp_path / "r" / "summary.json").read_text())
    assert depths == {layer["layer"]: layer["val_accuracy"] for layer in summary["layers"]}
    pictures = {name for item in history for name in item if name.endswith("._type")}
    assert {"layer1/atoms._type", "layer2/usage._type", "accuracy._type", "confusion._type"} <= pictures


def test_disabled__writes_nothing(command: Command, tmp_path: Path) -> None:
    done = command("train", *QUIET)
    assert done.returncode == 0, done.stderr
    assert "W&B: disabled" in done.stdout
    assert not (tmp_path / "r" / "wandb").exists()


def test_without_wandb__one_line_says_so(process: Command, tmp_path: Path) -> None:
    # a process in which `import wandb` fails, as where it is not installed
    program = (
        "import sys; sys.modules['wandb'] = None\n"
        "from layerwise.cli import main\n"
        f"sys.exit(main({['train', *SMALL, '--run_dir=r']!r}))"
    )
    done = process("-c", program)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("the package wandb is not installed") == 1
    assert (tmp_path / "r" / "summary.json").exists()


class Failing:
    """Stands in for a W&B run; a call of `broken` raises."""

    def __init__(self, broken: str) -> None:
        self.broken = broken
        self.calls: list[str] = []
        self.summary: dict[str, Any] = {}
        self.values: list[dict[str, Any]] = []
        self.metrics: list[tuple[str, dict[str, Any]]] = []
        self.code: int | None = None

    def _called(self, name: str) -> None:
        self.calls.append(name)
        if name == self.broken:
            raise OSError(28, "No space left\non device")

    def define_metric(self, name: str, **settings: Any) -> None:
        self._called("define_metric")
        self.metrics.append((name, settings))

    def log(self, values: dict[str, Any]) -> None:
        self._called("log")
        self.values.append(values)

    def finish(self, exit_code: int) -> None:
        self._called("finish")
        self.code = exit_code


@pytest.fixture
def tracker(tmp_path: Path) -> Callable[[Failing], Tracker]:
    """A tracker of a W&B run that is given."""

    def make(run: Failing) -> Tracker:
        made = Tracker(Wandb(mode="disabled"), tmp_path, {})
        made._run, made.place = run, "offline, somewhere"
        return made

    return make


@pytest.mark.parametrize("broken", ["define_metric", "log"])
def test_a_failing_call__ends_the_tracking_with_one_line(
    broken: str, tracker: Callable[[Failing], Tracker], capsys: pytest.CaptureFixture[str]
) -> None:
    run = Failing(broken)
    own = tracker(run)
    own.logged(1, 0, {"train_loss": 2.0})
    own.logged(1, 1, {"train_loss": 1.0})
    own.figures({"accuracy": np.zeros((2, 2, 3), np.uint8)})
    own.close()
    printed = capsys.readouterr()
    assert printed.out == "W&B: failed ([Errno 28] No space left on device); tracking stops here\n"
    assert printed.err == ""
    assert run.calls[-1] == broken and run.calls.count(broken) == 1
    assert own.place == "offline, somewhere, up to a failure"


def test_a_failing_end__is_one_line(tracker: Callable[[Failing], Tracker], capsys: pytest.CaptureFixture[str]) -> None:
    run = Failing("finish")
    own = tracker(run)
    own.logged(1, 0, {"train_loss": 2.0})
    own.logged(2, 0, {"train_loss": 2.0})
    own.close()
    assert run.calls == ["define_metric", "define_metric", "log"] * 2 + ["finish"]
    assert capsys.readouterr().out.count("\n") == 1


class Service:
    """Stands in for the package wandb: whether there is a key, and which modes cannot start."""

    def __init__(self, key: bool, failing: tuple[str, ...] = ()) -> None:
        self.key = key
        self.failing = failing
        self.asked: list[dict[str, Any]] = []

    def login(self, prompt: bool) -> bool:
        assert not prompt
        return self.key

    def Settings(self, **settings: Any) -> dict[str, Any]:  # noqa: N802  (W&B's name)
        return settings

    def init(self, **settings: Any) -> Any:
        self.asked.append(settings)
        if settings["mode"] in self.failing:
            raise OSError("no\nnetwork")
        return SimpleNamespace(
            url="https://w.b/r", dir=str(settings["dir"] / "wandb" / f"{settings['mode']}-run-1" / "files")
        )


@pytest.mark.parametrize(
    "asked, key, failing, modes, place",
    [
        ("auto", True, (), ["online"], "https://w.b/r"),
        ("auto", False, (), ["offline"], "offline, "),
        ("online", False, (), ["online"], "https://w.b/r"),
        ("offline", True, (), ["offline"], "offline, "),
        ("auto", True, ("online",), ["online", "offline"], "offline, "),
        ("online", True, ("online", "offline"), ["online", "offline"], "failed to start"),
        ("disabled", True, (), [], "disabled"),
    ],
)
def test_mode__is_online_with_a_key__offline_without_one_or_without_network(
    asked: Any, key: bool, failing: tuple[str, ...], modes: list[str], place: str,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    service = Service(key, failing)
    monkeypatch.setitem(sys.modules, "wandb", service)
    monkeypatch.delenv("UV", raising=False)
    own = Tracker(Wandb(asked, tags=["a"]), tmp_path, {"seed": 3})
    expected = place + (f"{tmp_path}/wandb/offline-run-1" if place == "offline, " else "")
    assert own.place == expected
    assert [settings["mode"] for settings in service.asked] == modes
    identity = tmp_path / "wandb" / "run-id"
    for settings in service.asked:
        assert re.fullmatch("[0-9a-f]{8}", settings["id"]) and settings["id"] == identity.read_text()
        assert (settings["name"], settings["project"], settings["tags"]) == (tmp_path.name, "layerwise", ["a"])
        assert (settings["resume"], settings["dir"], settings["config"]) == ("allow", tmp_path, {"seed": 3})
        assert settings["settings"]["silent"] and settings["settings"]["init_timeout"] <= 60  # seconds
    assert identity.exists() == bool(modes)
    printed = capsys.readouterr().out
    assert ("W&B: could not go online (no network), tracking offline\n" in printed) == ("online" in failing)
    assert ("W&B: could not start (no network), so nothing is tracked\n" in printed) == ("offline" in failing)
    assert (f"to upload: wandb sync {tmp_path}/wandb/offline-run-1" in printed) == (place == "offline, ")


def test_identity__is_kept__and_a_name_that_is_given_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    service = Service(True)
    monkeypatch.setitem(sys.modules, "wandb", service)
    for _ in range(2):
        Tracker(Wandb("online", name="mine"), tmp_path, {})
    first, second = service.asked
    assert first["id"] == second["id"] and first["name"] == "mine"


def test_layer_finished__is_recorded_once(tracker: Callable[[Failing], Tracker], tmp_path: Path) -> None:
    run, record = Failing(""), LayerRecord(2, 16, 0.75, [], [1, 8, 8], [8, 6, 6], ["a", "b"], 1.5, {})
    own = tracker(run)
    own.layer_finished(None, [replace(record, layer=1), record])
    assert run.values == [{"summary/depth": 2, "summary/accuracy": 0.75}]
    assert run.summary == {
        "layer2/val_accuracy": 0.75, "layer2/atoms": 16, "layer2/seconds": 1.5, "layer2/output_shape": [8, 6, 6]
    }  # fmt: skip
    assert run.metrics == [("summary/depth", {"hidden": True}), ("summary/*", {"step_metric": "summary/depth"})]
    (tmp_path / "layer-2-atoms.png").touch()  # of an earlier process
    own.layer_finished(None, [record])
    own.logged(2, 7, {"train_loss": 0.5})
    assert run.values[1:] == [{"layer2/train_loss": 0.5, "layer2/step": 7}]
    own.stack_finished(None, [record], None, {"test_accuracy": 0.5, "depth": 2, "seconds": 3})
    assert (run.summary["test_accuracy"], run.summary["depth"]) == (0.5, 2) and "seconds" not in run.summary
    own.close(3)
    assert run.code == 3


def test_wandb_that_cannot_start__is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "wandb").write_text("a file where the folder would be")
    own = Tracker(Wandb(mode="offline"), tmp_path, {})
    own.logged(1, 0, {"train_loss": 2.0})
    own.close()
    assert own.place == "failed to start"
    printed = capsys.readouterr().out
    assert printed.startswith("W&B: could not start (") and printed.count("\n") == 1


HANGING = """if True:
    import os, signal, sys, time
    from pathlib import Path
    from layerwise.config import Wandb
    from layerwise.run import tracker

    tracker.LIMIT, tracker.FINISH_LIMIT = 8.0, 2.0
    run_dir = Path("run")
    run_dir.mkdir()
    own = tracker.Tracker(Wandb(mode="offline"), run_dir, {})
    own.logged(1, 0, {"train_loss": 2.0})
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
            if parent == os.getpid() and b"wandb" in (folder / "cmdline").read_bytes():
                os.kill(int(folder.name), getattr(signal, sys.argv[1]))
        except OSError:
            pass
    began = time.monotonic()
    for step in range(1, 4):
        own.logged(1, step, {"train_loss": 2.0})
        time.sleep(0.1)
    own.close()
    print(own.place.endswith("up to a failure"), time.monotonic() - began < 20)
"""


@pytest.mark.parametrize("how", ["SIGKILL", "SIGSTOP"])
def test_wandbs_own_process_killed_or_hanging__costs_a_line_and_a_bounded_time(how: str, process: Command) -> None:
    began = time.monotonic()
    done = process("-c", HANGING, how)
    assert done.returncode == 0, done.stderr
    told = done.stdout.splitlines()
    assert [line for line in told if "failed" in line] == [line for line in told if "tracking stops here" in line]
    assert told[-1] == "True True" and len(told) == 3
    assert "Traceback" not in done.stderr
    assert time.monotonic() - began < 60


@pytest.mark.parametrize("answers", [True, False])
def test_a_server_that_fails_or_never_answers__leaves_an_offline_run(answers: bool, tmp_path: Path) -> None:
    class Failing500(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(500)
            self.end_headers()

        do_GET = do_POST  # noqa: N815

        def log_message(self, *_: Any) -> None:
            pass

    program = (
        "from pathlib import Path\nfrom layerwise.config import Wandb\nfrom layerwise.run import tracker\n"
        "tracker.LIMIT = 4.0\nown = tracker.Tracker(Wandb(mode='online'), Path('.'), {})\n"
        "own.logged(1, 0, {'train_loss': 2.0})\nown.close()\nprint(own.place, flush=True)\n"
        "import os\nos._exit(0)\n"  # W&B's own process tries for 20 seconds more to reach the server
    )
    with HTTPServer(("127.0.0.1", 0), Failing500) as server:
        if answers:
            Thread(target=server.serve_forever, daemon=True).start()
        given = {"WANDB_BASE_URL": f"http://127.0.0.1:{server.server_port}", "WANDB_API_KEY": "a" * 40}
        full = environment() | given
        done = subprocess.run(
            [sys.executable, "-c", program], cwd=tmp_path, env=full, capture_output=True, text=True, timeout=90
        )
        if answers:
            server.shutdown()
    assert done.returncode == 0, done.stderr
    assert "W&B: could not go online (" in done.stdout and "Traceback" not in done.stderr
    assert done.stdout.splitlines()[-1].startswith("offline, ")
    assert len(list(tmp_path.glob("wandb/offline-run-*/*.wandb"))) == 1


@pytest.mark.parametrize("content", [b"../../elsewhere", b"", b"\xff\x00", b"a" * 400, b"two\nlines"])
def test_an_id_that_is_damaged__is_made_anew(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "wandb" / "run-id"
    first = _identity(path)
    assert re.fullmatch("[0-9a-f]{8}", first) and _identity(path) == first
    path.write_bytes(content)
    anew = _identity(path)
    assert re.fullmatch("[0-9a-f]{8}", anew) and anew != first and path.read_text() == anew
