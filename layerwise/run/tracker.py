"""The W&B run of a stack: one run, a section for each layer with its own axis; or none at all.

Nothing here stops a training: no key, no network, no wandb and a full disk each cost one printed line.
"""

import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from layerwise.config import Wandb
from layerwise.run.files import commit
from layerwise.run.record import LayerRecord


class Tracker:
    """The W&B run of a run directory, with a configuration as plain values; calls do nothing where there is none."""

    def __init__(self, config: Wandb, run_dir: Path, values: dict[str, Any]) -> None:
        self._run, self.place = _open(config, run_dir, values)  # place: where it is to be seen, in words
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
        self._attempt(lambda run: run.finish(exit_code=exit_code))

    def _log(self, group: str, axis: str, values: dict[str, Any]) -> None:
        def log(run: Any) -> None:
            if group not in self._axes:
                run.define_metric(f"{group}/{axis}", hidden=True)
                run.define_metric(f"{group}/*", step_metric=f"{group}/{axis}")
                self._axes.add(group)
            run.log(values)

        self._attempt(log)

    def _attempt(self, call: Callable[[Any], object]) -> None:
        """Call W&B; the first failure, of whatever kind, is said and ends the tracking."""
        if self._run is None:
            return
        try:
            call(self._run)
        except Exception as error:
            print(f"W&B: failed ({_line(error)}); tracking stops here", flush=True)
            self._run, self.place = None, f"{self.place}, up to a failure"


def _open(config: Wandb, run_dir: Path, values: dict[str, Any]) -> tuple[Any, str]:
    if config.mode == "disabled":
        return None, "disabled"
    try:
        import wandb
    except ImportError:
        print("W&B: the package wandb is not installed, so nothing is tracked; pip install wandb")
        return None, "not installed"
    mode = config.mode
    if mode == "auto":
        try:
            mode = "online" if wandb.login(prompt=False) else "offline"
        except Exception:  # an unreachable server or a malformed key is the same to us as no key
            mode = "offline"
    identity = run_dir / "wandb" / "run-id"
    own = vars(config) | {"name": config.name or run_dir.name, "mode": mode}
    try:
        identity.parent.mkdir(exist_ok=True)
        if not identity.exists():
            commit(identity, lambda path: path.write_text(secrets.token_hex(4)))
        own |= {"id": identity.read_text().strip(), "settings": wandb.Settings(silent=True, init_timeout=30)}
        # absolute, as W&B's own process stays where an earlier run of this process began
        run = wandb.init(resume="allow", dir=run_dir.resolve(), config=values, **own)
    except Exception as error:  # wandb raises many kinds, none of which is worth a training
        if mode != "online":
            print(f"W&B: could not start ({_line(error)}), so nothing is tracked")
            return None, "failed to start"
        print(f"W&B: could not go online ({_line(error)}), tracking offline")
        return _open(Wandb(**vars(config) | {"mode": "offline"}), run_dir, values)
    if mode == "offline":
        folder = run_dir / "wandb" / Path(run.dir).parent.name
        print(f"W&B: tracking offline; to upload: {'uv run ' if 'UV' in os.environ else ''}wandb sync {folder}")
        return run, f"offline, {folder}"
    return run, str(run.url)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
