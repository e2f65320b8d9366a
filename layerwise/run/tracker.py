"""The W&B run of a stack: one run, a section for each layer with its own axis; or none at all.

Nothing here stops a training: no key, no network and no wandb each cost one printed line.
"""

import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.loggers import Logger, WandbLogger

from layerwise.config.run import WandbConfig
from layerwise.run.directory import commit


class Tracker:
    """The W&B run of a run directory; every call does nothing where there is none.

    Attributes:
        place: where the run is to be seen, in words.
    """

    def __init__(self, config: WandbConfig, run_dir: Path, values: dict[str, Any]) -> None:
        self.run, self.place = _open(config, run_dir, values)
        if self.run is not None:
            self.run.define_metric("summary/depth", hidden=True)
            self.run.define_metric("summary/*", step_metric="summary/depth")

    def logger(self, layer: int) -> Logger | None:
        """A Lightning logger for the training of one layer, from 1."""
        if self.run is None:
            return None
        self.run.define_metric(f"layer{layer}/step", hidden=True)
        self.run.define_metric(f"layer{layer}/*", step_metric=f"layer{layer}/step")
        return LayerLogger(self.run, layer)

    def layer_finished(self, layer: int, record: Mapping[str, Any], pictures: Mapping[str, np.ndarray]) -> None:
        """Record a finished layer: its row of accuracy against depth, its summary, its pictures (H, W, 3)."""
        if self.run is None:
            return
        self.run.log({"summary/depth": layer, "summary/accuracy": record["val_accuracy"]})
        for name in ("val_accuracy", "atoms", "seconds", "output_shape"):
            self.run.summary[f"layer{layer}/{name}"] = record[name]
        self.pictures({f"layer{layer}/{name}": picture for name, picture in pictures.items()})

    def stack_finished(self, summary: Mapping[str, Any], pictures: Mapping[str, np.ndarray]) -> None:
        """Record the test accuracy and the pictures of the whole stack."""
        if self.run is None:
            return
        self.run.summary["test_accuracy"] = summary["test_accuracy"]
        self.run.summary["depth"] = summary["depth"]
        self.pictures(pictures)

    def pictures(self, pictures: Mapping[str, np.ndarray]) -> None:
        """Record pictures (H, W, 3)."""
        if self.run is None:
            return
        import wandb

        self.run.log({name: wandb.Image(picture) for name, picture in pictures.items()})

    def close(self, exit_code: int = 0) -> None:
        """End the run, whatever happened."""
        if self.run is not None:
            self.run.finish(exit_code=exit_code)


class LayerLogger(WandbLogger):
    """Writes `train_loss` as `layer3/train_loss`, with `layer3/step` beside it in every call.

    W&B's own step is never given: it counts all layers together, and would drop what comes out of order.
    """

    def __init__(self, run: Any, layer: int) -> None:
        super().__init__(experiment=run)
        self.layer = layer

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log metrics at the layer's own step, which counts from its start."""
        named = {f"layer{self.layer}/{name}": value for name, value in metrics.items()}
        self.experiment.log(named | {f"layer{self.layer}/step": step})


def _open(config: WandbConfig, run_dir: Path, values: dict[str, Any]) -> tuple[Any, str]:
    if config.mode == "disabled":
        return None, "disabled"
    try:
        import wandb
    except ImportError:
        print("W&B: the package wandb is not installed, so nothing is tracked; pip install wandb")
        return None, "not installed"
    mode: str = config.mode
    if mode == "auto":
        mode = "online" if _has_key(wandb) else "offline"
    identity = run_dir / "wandb" / "run-id"
    identity.parent.mkdir(exist_ok=True)
    if not identity.exists():
        commit(identity, lambda path: path.write_text(secrets.token_hex(4)))

    def start(mode: str) -> Any:
        return wandb.init(
            id=identity.read_text().strip(),
            resume="allow",
            mode=mode,  # type: ignore[arg-type]
            dir=run_dir,
            project=config.project,
            entity=config.entity,
            name=config.name or run_dir.name,
            tags=config.tags,
            group=config.group,
            config=values,
            settings=wandb.Settings(silent=True, init_timeout=30),
        )

    try:
        run = start(mode)
    except Exception as error:  # wandb raises many kinds, none of which is worth a training
        if mode != "online":
            print(f"W&B: could not start ({_line(error)}), so nothing is tracked")
            return None, "failed to start"
        print(f"W&B: could not go online ({_line(error)}), tracking offline")
        run, mode = start("offline"), "offline"
    if mode == "offline":
        folder = Path(run.dir).parent
        print(f"W&B: tracking offline; to upload: wandb sync {folder}")
        return run, f"offline, {folder}"
    return run, str(run.url)


def _has_key(wandb: Any) -> bool:
    try:
        return bool(wandb.login(prompt=False))
    except Exception:  # an unreachable server or a malformed key is the same to us as no key
        return False


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
