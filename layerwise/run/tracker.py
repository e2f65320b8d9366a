"""The W&B run of a stack: one run, a section for each layer with its own axis; or none at all.

Nothing here stops a training: no key, no network, no wandb, a full disk, and a server or a process of W&B's that fails
or does not answer each cost one printed line, and a bounded time.
"""

import os
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any

import numpy as np

from layerwise.config import Wandb
from layerwise.run.files import commit
from layerwise.run.record import LayerRecord

LIMIT = 20.0
"""seconds that a call of W&B may take"""
FINISH_LIMIT = 40.0
"""seconds that its end may take, with what is still to be sent"""


class _Calls:
    """Makes every call of W&B, one after another, in a thread of its own, which may hang without holding up others."""

    def __init__(self) -> None:
        self._waiting: SimpleQueue[tuple[Callable[[], Any], SimpleQueue[Any]]] = SimpleQueue()
        Thread(target=self._work, daemon=True, name="W&B").start()

    def __call__(self, call: Callable[[], Any], limit: float) -> Any:
        """Make a call and return what it does, raise what it raises, or TimeoutError."""
        answer: SimpleQueue[Any] = SimpleQueue()
        self._waiting.put((call, answer))
        try:
            result, error = answer.get(timeout=limit)
        except Empty:
            raise TimeoutError(f"no answer in {limit:.0f} seconds") from None
        if error is not None:
            raise error
        return result

    def _work(self) -> None:
        while True:
            call, answer = self._waiting.get()
            try:
                answer.put((call(), None))
            except BaseException as error:  # such as SystemExit, which is not for the training
                answer.put((None, error if isinstance(error, Exception) else RuntimeError(repr(error))))


class Tracker:
    """The W&B run of a run directory, with a configuration as plain values; calls do nothing where there is none."""

    def __init__(self, config: Wandb, run_dir: Path, values: dict[str, Any]) -> None:
        self._calls = _Calls()
        self._run, self.place = self._open(config, run_dir, values)  # place: where it is to be seen, in words
        self._run_dir = run_dir
        self._axes: set[str] = set()

    def logged(self, layer: int, step: int, metrics: Mapping[str, float]) -> None:
        """Log metrics of a layer, such as `layer3/train_loss`, at the layer's own step, which counts from its start.

        W&B's own step is never given: it counts all layers together, and would drop what comes out of order.
        """
        named = {f"layer{layer}/{name}": value for name, value in metrics.items()}
        self._log(f"layer{layer}", "step", named | {f"layer{layer}/step": step})

    def layer_finished(self, stack: object, records: Sequence[LayerRecord]) -> None:
        """Record the top layer: its row of accuracy against depth, and its summary; once, as its figures are drawn."""
        record = records[-1]
        if (self._run_dir / f"layer-{record.layer}-atoms.png").exists():
            return
        self._log("summary", "depth", {"summary/depth": record.layer, "summary/accuracy": record.val_accuracy})
        names = ("val_accuracy", "atoms", "seconds", "output_shape")
        values = {f"layer{record.layer}/{name}": getattr(record, name) for name in names}
        self._attempt(lambda run: run.summary.update(values))

    def stack_finished(
        self, stack: object, records: Sequence[LayerRecord], counts: object, summary: Mapping[str, Any]
    ) -> None:
        """Record the test accuracy and the depth of the whole stack."""
        self._attempt(lambda run: run.summary.update({name: summary[name] for name in ("test_accuracy", "depth")}))

    def figures(self, figures: Mapping[str, np.ndarray]) -> None:
        """Record figures (H, W, 3) of uint8."""

        def log(run: Any) -> None:
            import wandb

            run.log({name: wandb.Image(figure) for name, figure in figures.items()})

        self._attempt(log)

    def close(self, exit_code: int = 0) -> None:
        """End the run, whatever happened."""
        self._attempt(lambda run: run.finish(exit_code=exit_code), FINISH_LIMIT)

    def _log(self, group: str, axis: str, values: dict[str, Any]) -> None:
        def log(run: Any) -> None:
            if group not in self._axes:
                run.define_metric(f"{group}/{axis}", hidden=True)
                run.define_metric(f"{group}/*", step_metric=f"{group}/{axis}")
                self._axes.add(group)
            run.log(values)

        self._attempt(log)

    def _attempt(self, call: Callable[[Any], object], limit: float | None = None) -> None:
        """Call W&B; the first failure, of whatever kind, is said and ends the tracking."""
        run = self._run
        if run is None:
            return
        try:
            self._calls(lambda: call(run), limit or LIMIT)
        except Exception as error:
            print(f"W&B: failed ({_line(error)}); tracking stops here", flush=True)
            self._run, self.place = None, f"{self.place}, up to a failure"
            _abandon()

    def _open(self, config: Wandb, run_dir: Path, values: dict[str, Any]) -> tuple[Any, str]:
        if config.mode == "disabled":
            return None, "disabled"
        mode = config.mode
        try:
            import wandb

            if mode == "auto":
                mode = "online" if self._has_key() else "offline"
            # absolute, as W&B's own process stays where an earlier run of this process began
            own = vars(config) | {"name": config.name or run_dir.name, "mode": mode, "dir": run_dir.resolve()}
            own["id"] = _identity(run_dir / "wandb" / "run-id")
            # what is printed is not passed on: printing would hang where W&B does
            own["settings"] = wandb.Settings(silent=True, init_timeout=LIMIT / 2, console="off")
            run = self._calls(lambda: wandb.init(resume="allow", config=values, **own), LIMIT)
        except ImportError:
            print("W&B: the package wandb is not installed, so nothing is tracked; pip install wandb")
            return None, "not installed"
        except Exception as error:  # wandb raises many kinds, none of which is worth a training
            if mode != "online" or isinstance(error, TimeoutError):
                print(f"W&B: could not start ({_line(error)}), so nothing is tracked")
                _abandon()
                return None, "failed to start"
            print(f"W&B: could not go online ({_line(error)}), tracking offline")
            with suppress(Exception):  # of a run that failed to begin, the id stays in use
                self._calls(lambda: wandb.teardown(exit_code=1), LIMIT)
            return self._open(Wandb(**vars(config) | {"mode": "offline"}), run_dir, values)
        if mode == "offline":
            folder = run_dir / "wandb" / Path(run.dir).parent.name
            print(f"W&B: tracking offline; to upload: {'uv run ' if 'UV' in os.environ else ''}wandb sync {folder}")
            return run, f"offline, {folder}"
        return run, str(run.url)

    def _has_key(self) -> bool:
        import wandb

        try:
            return bool(self._calls(lambda: wandb.login(prompt=False), LIMIT))
        except Exception:  # an unreachable server or a malformed key is the same to us as no key
            self._calls = _Calls()  # the other may hang
            return False


def _identity(path: Path) -> str:
    """The id of the run directory's W&B run, which a file keeps; a new one where that holds no such id."""
    path.parent.mkdir(exist_ok=True)
    found = path.read_bytes().strip() if path.exists() else b""
    if not re.fullmatch(rb"[0-9a-z]{8}", found):
        found = secrets.token_hex(4).encode()
        commit(path, lambda temporary: temporary.write_bytes(found))
    return found.decode()


def _abandon() -> None:
    """End W&B's own process, which this one would wait for at its exit, even where that process hangs."""
    try:
        import wandb

        connection: Any = wandb.setup()._connection
        connection._cleanup()  # what it does at the exit
        connection._proc._process.kill()
    except Exception:  # it is not there, or where another version has it
        return


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
