"""W&B: real offline runs, read back with W&B's own reader; and that no failure of it stops a training."""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import layerwise
from layerwise.config import Wandb
from layerwise.run.history import History, identity
from layerwise.run.tracker import Tracker, picture
from tests.conftest import QUIET, SMALL, Command, environment
from tests.wandb_server import Server, wandb_server


def test_disabled__writes_nothing(command: Command, tmp_path: Path) -> None:
    done = command("train", *QUIET)
    assert done.returncode == 0, done.stderr
    assert "W&B: disabled" in done.stdout
    assert not (tmp_path / "r" / "wandb").exists()


def test_without_wandb__one_line_says_so(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in Path(layerwise.__file__).parent.rglob("*.py"):  # it is imported where it is called, and nowhere else
        assert not re.search(r"^(import|from) wandb\b", path.read_text(), re.MULTILINE), path
    monkeypatch.setitem(sys.modules, "wandb", None)  # so that `import wandb` fails
    done = command("train", *SMALL, "--run_dir=r")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("the package wandb is not installed") == 1
    assert (tmp_path / "r" / "summary.json").exists()


class Failing:
    """Stands in for a W&B run; a call of `broken` raises."""

    def __init__(self, broken: str) -> None:
        self.broken = broken
        self.calls: list[str] = []
        self.summary: dict[str, Any] = {}
        self.step = 0
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
        made._run, made._folder, made.place = run, "offline-run-1", "offline, somewhere"
        (tmp_path / "wandb").mkdir()
        return made

    return make


@pytest.mark.parametrize("broken", ["define_metric", "log"])
def test_a_failing_call__ends_the_tracking_with_one_line(
    broken: str, tracker: Callable[[Failing], Tracker], capsys: pytest.CaptureFixture[str]
) -> None:
    run = Failing(broken)
    own = tracker(run)
    own.log({"layer1/train_loss": 2.0}, "layer1/step", 0)
    own.log({"layer1/train_loss": 1.0}, "layer1/step", 1)
    own.figures({"accuracy": np.zeros((2, 2, 3), np.uint8)})
    own.close()
    printed = capsys.readouterr()
    assert printed.out == "W&B: failed ([Errno 28] No space left on device); tracking stops here\n"
    assert printed.err == ""
    assert run.calls[-1] == broken and run.calls.count(broken) == 1
    assert own.place == "offline, somewhere, up to a failure"


def test_after_a_failure__the_next_run_of_the_process_is_tracked(command: Command, tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        own = Tracker(Wandb("offline"), tmp_path / name, {})
        own.open()
        assert own.is_open and own.place.startswith("offline, ")
        own.define("layer1/x", summary="nonsense")  # which W&B refuses
        assert not own.is_open and own.place.endswith(", up to a failure")
        own.log({"layer1/x": 1.0}, "layer1/step", 0)
        own.close()
        assert History(tmp_path / name / "wandb").of("layer1/x") == [1.0]  # for when it is opened again


def test_a_failing_end__is_one_line(tracker: Callable[[Failing], Tracker], capsys: pytest.CaptureFixture[str]) -> None:
    run = Failing("finish")
    own = tracker(run)
    own.log({"layer1/train_loss": 2.0}, "layer1/step", 0)
    own.log({"layer2/train_loss": 2.0}, "layer2/step", 0)
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
        place = settings["dir"] / "wandb" / f"{settings['mode']}-run-1" / "files"
        return SimpleNamespace(url="https://w.b/r", id=settings["id"], dir=str(place), starting_step=0)


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
    assert own.place == "nothing new" and not own.is_open and not service.asked
    own.open()
    expected = place + (f"{tmp_path}/wandb/offline-run-1" if place == "offline, " else "")
    assert own.place == expected
    assert [settings["mode"] for settings in service.asked] == modes
    identity = tmp_path / "wandb" / "run-id"
    for settings in service.asked:
        assert re.fullmatch("[0-9a-f]{8}", settings["id"]) and settings["id"] == identity.read_text().split("\n")[0]
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
        Tracker(Wandb("online", name="mine"), tmp_path, {}).open()
    first, second = service.asked
    assert first["id"] == second["id"] and first["name"] == "mine"


def test_wandb_that_cannot_start__is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "wandb").write_text("a file where the folder would be")
    own = Tracker(Wandb(mode="offline"), tmp_path, {})
    own.open()
    own.log({"layer1/train_loss": 2.0}, "layer1/step", 0)
    own.close()
    assert own.place == "failed to start"
    printed = capsys.readouterr().out
    assert printed.startswith("W&B: could not start (") and printed.count("\n") == 1


HANGING = """if True:
    import os, signal, sys, time
    from pathlib import Path
    from layerwise.config import Wandb
    from layerwise.run import tracker

    run_dir = Path("run")
    run_dir.mkdir()
    own = tracker.Tracker(Wandb(mode="offline"), run_dir, {})
    own.open()
    own.log({"layer1/train_loss": 2.0}, "layer1/step", 0)
    tracker.LIMIT, tracker.FINISH_LIMIT = 2.0, 2.0
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
            if parent == os.getpid() and b"wandb" in (folder / "cmdline").read_bytes():
                os.kill(int(folder.name), getattr(signal, sys.argv[1]))
        except OSError:
            pass
    began = time.monotonic()
    for step in range(1, 4):
        own.log({"layer1/train_loss": 2.0}, "layer1/step", step)
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
        "own.open()\nown.log({'layer1/train_loss': 2.0}, 'layer1/step', 0)\nown.close()\nprint(own.place, flush=True)\n"
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


@pytest.mark.parametrize("content", [b"../../elsewhere", b"", b"\xff\x00", b"a" * 400, b"two words\nlines", b"\nlines"])
def test_an_id_that_is_damaged__is_made_anew(content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_RUN_ID", raising=False)
    folder = tmp_path / "wandb"
    first = identity(folder)
    assert re.fullmatch("[0-9a-f]{8}", first) and identity(folder) == first
    (folder / "run-id").write_bytes(content)
    anew = identity(folder)
    assert re.fullmatch("[0-9a-f]{8}", anew) and anew != first
    assert (folder / "run-id").read_text() == f"{anew}\n{folder}"


def test_identity__of_a_copy_is_its_own__of_what_was_moved_or_is_seen_elsewhere_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("WANDB_RUN_ID", raising=False)
    (tmp_path / "a").mkdir()
    first = identity(tmp_path / "a" / "wandb")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    assert identity(tmp_path / "link" / "wandb") == first
    assert capsys.readouterr().out == ""
    second = identity(tmp_path / "b" / "wandb")
    assert second != first and identity(tmp_path / "b" / "wandb") == second
    assert capsys.readouterr().out == f"W&B: this is a copy of {tmp_path}/a, so it becomes a W&B run of its own\n"
    (tmp_path / "a").rename(tmp_path / "c")
    assert identity(tmp_path / "c" / "wandb") == first  # and no longer that of a, when c is copied
    shutil.copytree(tmp_path / "c", tmp_path / "a")
    assert identity(tmp_path / "a" / "wandb") != first == identity(tmp_path / "c" / "wandb")


def test_identity__is_that_of_the_variable__unless_the_directory_has_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WANDB_RUN_ID", "agent-7")
    assert identity(tmp_path / "wandb") == "agent-7" == identity(tmp_path / "wandb")
    assert capsys.readouterr().out == ""
    monkeypatch.setenv("WANDB_RUN_ID", "agent-8")
    assert identity(tmp_path / "wandb") == "agent-7"
    assert capsys.readouterr().out == f"W&B: {tmp_path} is the W&B run agent-7, so WANDB_RUN_ID is not followed\n"


VARIABLES = {"PROJECT": "p", "ENTITY": "e", "NAME": "n", "TAGS": "a, b", "RUN_GROUP": "g", "MODE": "offline"}


@pytest.mark.parametrize(
    "config, more, expected",
    [
        (Wandb(), {}, ("offline", "p", "e", "n", ["a", "b"], "g")),
        (Wandb("online", "q", "f", "m", ["c"], "h"), {}, ("online", "q", "f", "m", ["c"], "h")),
        (Wandb(), {"MODE": "dryrun"}, ("offline", "p", "e", "n", ["a", "b"], "g")),
        (Wandb(), {"MODE": "run"}, ("online", "p", "e", "n", ["a", "b"], "g")),
        (Wandb(), {"MODE": ""}, ("online", "p", "e", "n", ["a", "b"], "g")),  # there is a key
        (Wandb(), {"DISABLED": "false", "MODE": "online"}, ("online", "p", "e", "n", ["a", "b"], "g")),
        (Wandb("offline"), {"DISABLED": "true"}, ("offline", "p", "e", "n", ["a", "b"], "g")),
        (Wandb(), {"DISABLED": "true"}, None),
        (Wandb(), {"MODE": "disabled"}, None),
    ],
)
def test_variables__say_what_the_settings_leave_open(
    config: Wandb, more: dict[str, str], expected: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (VARIABLES | more).items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    service = Service(True)
    monkeypatch.setitem(sys.modules, "wandb", service)
    own = Tracker(config, tmp_path, {})
    own.open()
    names = ("mode", "project", "entity", "name", "tags", "group")
    assert [tuple(asked[name] for name in names) for asked in service.asked] == ([expected] if expected else [])
    assert (own.place == "disabled") == (expected is None)


def test_a_row__is_logged_once__and_what_was_not_yet_is(tracker: Callable[[Failing], Tracker], tmp_path: Path) -> None:
    run = Failing("")
    own = tracker(run)
    own.log({"layer2/a": 1.0, "layer2/b": 2.0}, "layer2/step", 7)
    own.log({"layer2/b": 3.0, "layer2/c": 4.0}, "layer2/step", 7)
    own.log({"layer2/b": 3.0}, "layer2/step", 7)
    own.log({"layer2/b": 5.0}, "layer2/step", 8)
    assert run.values == [
        {"layer2/a": 1.0, "layer2/b": 2.0, "layer2/step": 7},
        {"layer2/c": 4.0, "layer2/step": 7},
        {"layer2/b": 5.0, "layer2/step": 8},
    ]
    assert run.metrics == [("layer2/step", {"hidden": True}), ("layer2/*", {"step_metric": "layer2/step"})]
    assert own.logged("layer2/b") == [2.0, 5.0] and own.last("layer2/step") == 8 and own.last("layer1/step") == 0
    assert own.has("layer2/a", 7) and not own.has("layer2/a", 8)
    known = History(tmp_path / "wandb")
    assert known.of("layer2/b") == [2.0, 5.0] and known.has("layer2/c", 7)
    own.close(3)
    assert run.code == 3


def test_a_picture_that_fails__costs_that_picture(
    tracker: Callable[[Failing], Tracker], capsys: pytest.CaptureFixture[str]
) -> None:
    run = Failing("")
    own = tracker(run)

    def broken(wandb: Any) -> Any:
        raise ValueError("no\nink")

    own.log({"layer1/maps": broken, "layer1/overlap": 0.5}, "layer1/step", 3)
    own.log({"layer1/train_loss": 2.0}, "layer1/step", 4)
    assert run.values == [{"layer1/overlap": 0.5, "layer1/step": 3}, {"layer1/train_loss": 2.0, "layer1/step": 4}]
    assert capsys.readouterr().out == "W&B: layer1/maps failed (no ink), all else goes on\n"


def test_tables__are_kept_with_the_run__and_the_variable_is_as_it_was(
    tracker: Callable[[Failing], Tracker], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    own = tracker(Failing(""))
    for i, given in enumerate((None, "elsewhere")):
        if given is None:
            monkeypatch.delenv("WANDB_DATA_DIR", raising=False)
        else:
            monkeypatch.setenv("WANDB_DATA_DIR", given)
        own.log({"layer1/table": lambda wandb: seen.append(os.environ["WANDB_DATA_DIR"])}, "layer1/step", i)
        assert os.environ.get("WANDB_DATA_DIR") == given
    assert seen == [str(tmp_path / "wandb" / "offline-run-1"), "elsewhere"]


class Keeping(Failing):
    """Notes the artifacts that it is given."""

    def __init__(self) -> None:
        super().__init__("")
        self.id = "abc"
        self.kept: list[Any] = []

    def log_artifact(self, artifact: Any) -> None:
        self.kept.append(artifact)


def test_offline_folders_of_which_nothing_is_known__stay(tmp_path: Path) -> None:
    (tmp_path / "r" / "wandb" / "offline-run-20250101_000000-abcd1234").mkdir(parents=True)
    (tmp_path / "r" / "wandb" / "history.jsonl").write_text(
        '{"folder": "offline-run-/../../../kept", "step": 0, "axis": "layer1/step", "at": 0, "values": {"layer1/x": 1}}'
    )
    (tmp_path / "kept").mkdir()
    with wandb_server() as server:
        for _ in range(2):
            rows(server, tmp_path, "offline", "0", "1", "")
    assert (tmp_path / "r/wandb/offline-run-20250101_000000-abcd1234").is_dir() and (tmp_path / "kept").is_dir()
    assert len(list(tmp_path.glob("r/wandb/offline-run-*"))) == 2


@pytest.mark.parametrize(
    "wanted, folder, count", [(True, "run-1", 1), (True, "offline-run-1", 0), (False, "run-1", 0), (True, None, 0)]
)
def test_files__are_kept_where_that_is_wanted_and_the_run_is_online(
    wanted: bool, folder: str | None, count: int, tmp_path: Path
) -> None:
    (tmp_path / "weights").write_bytes(b"12345")
    run, own = Keeping(), Tracker(Wandb("disabled", artifacts=wanted), tmp_path, {})
    own._run, own._folder = run, folder
    own.keep("layer-2", [tmp_path / "weights"])
    assert len(run.kept) == count
    for artifact in run.kept:
        assert (artifact.name, artifact.type) == ("layer-2-abc", "model")
        assert {name: entry.size for name, entry in artifact.manifest.entries.items()} == {"weights": 5}


ROWS = """if True:
    import os, signal, sys
    from pathlib import Path
    from layerwise.config import Wandb
    from layerwise.run.tracker import Tracker

    mode, first, last, end = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    Path("r").mkdir(exist_ok=True)
    own = Tracker(Wandb(mode), Path("r"), {})
    own.open()
    for i in range(first, last):
        own.log({"layer1/loss": i / 8}, "layer1/step", i)
        own.log({"layer1/accuracy": i / 4}, "layer1/step", i)
    if end == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    own.close()
"""


def rows(server: Server, folder: Path, *arguments: str) -> None:
    """Log rows, from the first to before the last, by a process of its own; or run `wandb sync`."""
    full = environment() | {"WANDB_BASE_URL": server.address, "WANDB_API_KEY": "a" * 40}
    what = ["-m", "wandb", "sync"] if arguments[0] == "sync" else ["-c", ROWS, *arguments]
    given = list(arguments[1:]) if arguments[0] == "sync" else []
    done = subprocess.run([sys.executable, *what, *given], cwd=folder, env=full, capture_output=True, timeout=120)
    assert done.returncode == (-9 if arguments[-1] == "killed" else 0), done.stderr


@pytest.mark.parametrize(
    "processes",
    [
        [("online", "0", "4", ""), ("online", "2", "6", "killed"), ("online", "4", "8", "")],
        [("offline", "0", "4", ""), ("sync", "r/wandb"), ("offline", "2", "6", "killed"), ("offline", "4", "8", ""),
         ("sync", "r/wandb")],
        [("online", "0", "4", ""), ("offline", "4", "6", "killed"), ("online", "5", "8", "")],
    ],
)  # fmt: skip
def test_the_server__has_each_row_once__whatever_was_killed_and_offline(
    processes: list[tuple[str, ...]], tmp_path: Path
) -> None:
    with wandb_server() as server:
        for process in processes:
            rows(server, tmp_path, *process)
        (history,) = server.history.values()
    for name, unit in (("layer1/loss", 8), ("layer1/accuracy", 4)):
        found = [(row["layer1/step"], row[name]) for row in history if name in row]
        assert found == [(i, i / unit) for i in range(8)]
    assert [row["_step"] for row in history] == list(range(16))


def test_offline_folders__are_replaced_by_one_that_holds_all__but_for_what_was_uploaded(tmp_path: Path) -> None:
    with wandb_server() as server:
        for last, end in (("0", "killed"), ("2", "killed"), ("4", "")):
            rows(server, tmp_path, "offline", "0", last, end)
        assert len(list(tmp_path.glob("r/wandb/offline-run-*"))) == 1
        rows(server, tmp_path, "sync", "r/wandb")
        rows(server, tmp_path, "offline", "0", "5", "")
        first, second = sorted(tmp_path.glob("r/wandb/offline-run-*"))
        assert list(first.glob("*.synced")) and not list(second.glob("*.synced"))


def test_a_copy__has_the_whole_history_under_an_id_of_its_own(tmp_path: Path) -> None:
    with wandb_server() as server:
        rows(server, tmp_path, "online", "0", "3", "")
        shutil.copytree(tmp_path / "r", tmp_path / "copy" / "r", symlinks=True)
        rows(server, tmp_path / "copy", "online", "3", "5", "")
        rows(server, tmp_path / "copy", "online", "5", "6", "")
        rows(server, tmp_path, "online", "3", "4", "")
        first, second = server.history.values()
    steps = [[row["layer1/step"] for row in history if "layer1/loss" in row] for history in (first, second)]
    assert steps == [list(range(4)), list(range(6))]


def test_picture__is_an_image_of_wandbs(tmp_path: Path) -> None:
    import wandb

    assert picture(np.zeros((2, 3, 3), np.uint8))(wandb).image.size == (3, 2)
