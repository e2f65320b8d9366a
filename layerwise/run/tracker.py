"""The connection to W&B: one run for each run directory, whatever number of processes train it; or none at all.

Nothing here stops a training: no key, no network, no wandb, a full disk, and a server or a process of W&B's that fails
or does not answer each cost one printed line, and a bounded time.
"""

import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import numpy as np

from layerwise.config import Wandb
from layerwise.run.calls import Calls, abandon, in_a_line, spared
from layerwise.run.history import History, Row, identity

Value = float | Callable[[Any], Any]
"""a number, or what makes a picture or a table of W&B's module"""
OFFLINE = "offline-run-"
"""how the names of W&B's offline folders begin"""
MODES: dict[str, Literal["online", "offline", "disabled"]] = {"online": "online", "run": "online", "shared": "online"}
MODES |= {"offline": "offline", "dryrun": "offline", "disabled": "disabled"}
"""what WANDB_MODE may say"""
LIMIT = 20.0
"""seconds that a call of W&B may take"""
FINISH_LIMIT = 40.0
"""seconds that its end may take, with what is still to be sent"""


class Tracker:
    """The W&B run of a run directory, with a configuration as plain values; calls do nothing where it is not open."""

    def __init__(self, config: Wandb, run_dir: Path, values: dict[str, Any]) -> None:
        self._config, self._run_dir, self._values = config, run_dir, values
        self._calls = Calls()
        self._history = History(run_dir / "wandb")
        self._run: Any = None
        self._folder: str | None = None  # of W&B's, in that of the run; None where none was opened
        self._step = 0  # of W&B's own, which counts all rows
        self._axes: set[str] = set()
        self.place = "nothing new"
        """where the run is to be seen, in words"""

    def open(self) -> None:
        """Begin the W&B run, or go on with it."""
        self._run, self.place = self._open(_chosen(self._config, self._run_dir))
        if self._run is None:
            return
        try:
            self._folder, self._step = Path(self._run.dir).parent.name, self._run.starting_step
            self._go_on()
        except Exception as error:  # such as that the history cannot be written
            self._fail(error)

    @property
    def is_open(self) -> bool:
        """Whether calls have an effect."""
        return self._run is not None

    def log(self, values: Mapping[str, Value], axis: str, at: int) -> None:
        """Log what was not logged at this position of an axis yet, such as `layer3/train_loss` at a `layer3/step`.

        The axis is one of the whole group, layer3. W&B's own step is never given: it counts all layers together, and
        would drop what comes out of order.
        """
        fresh = {name: value for name, value in values.items() if not self._history.has(name, at)}
        if not fresh or self._folder is None:
            return
        numbers = {name: None if callable(value) else value for name, value in fresh.items()}
        with suppress(OSError):
            self._history.add(Row(self._folder if self._run is not None else "", self._step, axis, at, numbers))
        self._log(fresh, axis, at)

    def has(self, name: str, at: int) -> bool:
        """Whether a value was logged, by whatever process."""
        return self._history.has(name, at)

    def logged(self, name: str) -> list[float]:
        """All values of a name, those of earlier processes included."""
        return self._history.of(name)

    def last(self, axis: str) -> int:
        """The last position on an axis."""
        return self._history.last(axis)

    def define(self, name: str, **settings: Any) -> None:
        """Say how W&B is to show a value, as its `define_metric` takes it."""
        self._attempt(lambda run: run.define_metric(name, **settings))

    def summarize(self, values: Mapping[str, Any]) -> None:
        """Set values of the summary, over the last ones that were logged."""
        self._attempt(lambda run: run.summary.update(dict(values)))

    def figures(self, figures: Mapping[str, np.ndarray]) -> None:
        """Log figures (H, W, 3) of uint8 that belong to no axis."""
        self._attempt(lambda run: self._show(run, {n: picture(figure) for n, figure in figures.items()}, {}))

    def keep(self, name: str, files: Sequence[Path]) -> None:
        """Keep files as a model artifact, where that is wanted and the run is online; W&B keeps the same ones once."""
        if not self._config.artifacts or self._folder is None or self._folder.startswith(OFFLINE):
            return

        def log(run: Any) -> None:
            import wandb

            artifact = wandb.Artifact(f"{name}-{run.id}", "model")
            for file in files:
                artifact.add_file(str(file), policy="immutable")
            run.log_artifact(artifact)

        self._attempt(lambda run: spared(f"the artifact {name}", lambda: log(run)), FINISH_LIMIT)

    def close(self, exit_code: int = 0) -> None:
        """End the run, whatever happened."""
        self._attempt(lambda run: run.finish(exit_code=exit_code), FINISH_LIMIT)

    def _go_on(self) -> None:
        """Log again what W&B's server lacks of the history, and delete the offline folders that hold no more than it.

        What an earlier process logged is then in one place, though W&B cannot add to a folder.
        """
        known = self._history.folders
        for row in self._history.move(str(self._folder), self._step, self._is_sent):
            self._log(row.values, row.axis, row.at)
        for old in (self._run_dir / "wandb").glob(f"{OFFLINE}*"):
            if self._run is not None and old.name in known and not _synced(old):
                shutil.rmtree(old, ignore_errors=True)
        self._history.add(Row(str(self._folder), self._step, "layer1/step", 0, {}))  # known, though it may stay empty

    def _is_sent(self, row: Row) -> bool:
        """Whether W&B's server has a row of this W&B run."""
        folder, offline = self._run_dir / "wandb" / row.folder, str(self._folder).startswith(OFFLINE)
        if row.folder.partition("run-")[2][len("YYYYMMDD_hhmmss-") :] != self._run.id:
            return False
        if row.folder.startswith(OFFLINE):  # deleted by `wandb clean` if it is gone
            return _synced(folder) or not folder.exists()
        return offline or row.step < self._run.starting_step  # of how many rows the server has, if it can be asked

    def _log(self, values: Mapping[str, Value | None], axis: str, at: int) -> None:
        made = {name: value for name, value in values.items() if callable(value)}
        numbers = {name: value for name, value in values.items() if name not in made}

        def log(run: Any) -> None:
            if axis not in self._axes:
                run.define_metric(axis, hidden=True)
                run.define_metric(f"{axis.partition('/')[0]}/*", step_metric=axis)
                self._axes.add(axis)
            if numbers:
                run.log(numbers | {axis: at})
            if made:
                self._show(run, made, {axis: at})
            self._step = run.step

        self._attempt(log)

    def _show(self, run: Any, made: Mapping[str, Callable[[Any], Any]], position: dict[str, int]) -> None:
        """Make and log pictures and tables; where that fails, it costs them alone."""
        import wandb

        with _staging(self._run_dir / "wandb" / str(self._folder)):
            spared(", ".join(made), lambda: run.log({name: make(wandb) for name, make in made.items()} | position))

    def _attempt(self, call: Callable[[Any], object], limit: float | None = None) -> None:
        """Call W&B; the first failure, of whatever kind, is said and ends the tracking."""
        run = self._run
        if run is None:
            return
        try:
            self._calls(lambda: call(run), limit or LIMIT)
        except Exception as error:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        print(f"W&B: failed ({in_a_line(error)}); tracking stops here", flush=True)
        self._run, self.place = None, f"{self.place}, up to a failure"
        abandon()

    def _open(self, given: dict[str, Any]) -> tuple[Any, str]:
        mode = given["mode"]
        if mode == "disabled":
            return None, "disabled"
        try:
            import wandb

            if mode == "auto":
                mode = "online" if self._has_key() else "offline"
            # absolute, as W&B's own process stays where an earlier run of this process began
            own = given | {"mode": mode, "dir": self._run_dir.resolve(), "id": identity(self._run_dir / "wandb")}
            # what is printed is not passed on: printing would hang where W&B does
            own["settings"] = wandb.Settings(silent=True, init_timeout=LIMIT / 2, console="off")
            run = self._calls(lambda: wandb.init(resume="allow", config=self._values, **own), LIMIT)
        except ImportError:
            print("W&B: the package wandb is not installed, so nothing is tracked; pip install wandb")
            return None, "not installed"
        except Exception as error:  # wandb raises many kinds, none of which is worth a training
            if mode != "online" or isinstance(error, TimeoutError):
                print(f"W&B: could not start ({in_a_line(error)}), so nothing is tracked")
                abandon()
                return None, "failed to start"
            print(f"W&B: could not go online ({in_a_line(error)}), tracking offline")
            with suppress(Exception):  # of a run that failed to begin, the id stays in use
                self._calls(lambda: wandb.teardown(exit_code=1), LIMIT)
            return self._open(given | {"mode": "offline"})
        if mode == "offline":
            folder = self._run_dir / "wandb" / Path(run.dir).parent.name
            print(f"W&B: tracking offline; to upload: {'uv run ' if 'UV' in os.environ else ''}wandb sync {folder}")
            return run, f"offline, {folder}"
        return run, str(run.url)

    def _has_key(self) -> bool:
        import wandb

        try:
            return bool(self._calls(lambda: wandb.login(prompt=False), LIMIT))
        except Exception:  # an unreachable server or a malformed key is the same to us as no key
            self._calls = Calls()  # the other may hang
            return False


def picture(source: np.ndarray | Path) -> Callable[[Any], Any]:
    """A value to log: a figure (H, W, 3) of uint8, or a file that holds one."""
    return lambda wandb: wandb.Image(str(source) if isinstance(source, Path) else source)


def _chosen(config: Wandb, run_dir: Path) -> dict[str, Any]:
    """What W&B is asked for: what the settings say; where they leave it open, W&B's variables; or else the defaults."""
    said, mode = os.environ.get, config.mode
    if mode == "auto":
        off = said("WANDB_DISABLED", "").lower() not in ("", "0", "false", "no")
        mode = MODES.get("disabled" if off else said("WANDB_MODE", "").lower(), "auto")
    return {
        "mode": mode,
        "project": config.project or said("WANDB_PROJECT") or "layerwise",
        "entity": config.entity or said("WANDB_ENTITY"),
        "name": config.name or said("WANDB_NAME") or run_dir.name,
        "tags": config.tags or [tag.strip() for tag in said("WANDB_TAGS", "").split(",") if tag.strip()],
        "group": config.group or said("WANDB_RUN_GROUP"),
    }


def _synced(folder: Path) -> bool:
    return any(folder.glob("*.synced"))


@contextmanager
def _staging(folder: Path) -> Iterator[None]:
    """Let W&B keep the files of tables, until they are uploaded, where the rest of an offline run is, not at home."""
    chosen = os.environ.get("WANDB_DATA_DIR")
    try:
        os.environ["WANDB_DATA_DIR"] = chosen or str(folder.resolve())
        yield
    finally:
        if chosen is None:
            del os.environ["WANDB_DATA_DIR"]
