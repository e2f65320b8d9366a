"""One layer's training: a fresh Lightning Trainer, a checkpoint after every epoch, resume from it."""

import io
import math
import signal
import sys
import threading
import time
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import Logger
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.strategies import DDPStrategy
from torch import nn
from tqdm import tqdm

from layerwise import config, memory, processes
from layerwise.console import bar, silence_lightning
from layerwise.environment import OTHERS, hidden
from layerwise.errors import DamagedRun
from layerwise.ops import multiplied_with
from layerwise.run.files import commit
from layerwise.training.inputs import LayerData
from layerwise.training.listeners import Listener, tell
from layerwise.training.module import BestEpoch, LayerModule

PAUSE = 0.1
"""seconds from one state of the bar to the next, at least"""


class CommittedCheckpoints(TorchCheckpointIO):
    """Checkpoints that are written whole or not at all, whose every byte is checked when read, and whose training is.

    `identity` stands for all that the training depends on.
    """

    def __init__(self, identity: str) -> None:
        super().__init__()
        self.identity = identity

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write a checkpoint."""
        content = io.BytesIO()  # as torch.save itself does not say what a full disk is
        torch.save(checkpoint | {"identity": self.identity}, content)
        commit(Path(path), lambda temporary: temporary.write_bytes(content.getbuffer()))

    def load_checkpoint(self, path: str | Path, map_location: Any = None, weights_only: bool | None = True) -> Any:
        """Read a checkpoint, or raise DamagedRun; nothing in it can run code."""
        return processes.by_first(self._read, path, map_location)

    def _read(self, path: str | Path, map_location: Any) -> Any:
        try:
            with zipfile.ZipFile(path) as archive:
                if (damaged := archive.testzip()) is not None:  # torch.load by itself accepts a flipped bit
                    raise zipfile.BadZipFile(damaged)
            found = torch.load(path, map_location=map_location or "cpu", weights_only=True)
            if found["identity"] != self.identity:
                raise ValueError("it is of another training")
            return found
        except Exception as error:
            reason = " ".join(str(error).split())[:200]
            raise DamagedRun(f"{path} is damaged ({reason}); delete it to train the layer from its start") from error


class _Told(Logger):
    """Passes what Lightning logs on to the listeners."""

    name = version = None

    def __init__(self, layer: int, listeners: Sequence[Listener]) -> None:
        super().__init__()
        self.layer = layer
        self.listeners = listeners

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        tell(self.listeners, "logged", self.layer, step or 0, metrics)

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """The run's configuration holds them."""


class _Shown(Callback):
    """One bar for the layer, with the epoch and the time left for the whole stack; or a plain line an epoch."""

    def __init__(self, name: str, steps: int, above: int) -> None:
        self.name = name  # such as "layer 1/3"
        self.steps = steps
        self.above = above  # how many layers are still to come, each taken to last as long as this one
        self.accuracy: list[str] = []
        self.bar: tqdm[Any] | None = None

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        self.began, self.since, self.drawn = trainer.global_step, time.perf_counter(), -math.inf
        if sys.stderr.isatty():
            self.bar = bar(self.name, self.steps)
            self.bar.initial = self.bar.n = self.began

    def on_before_optimizer_step(self, trainer: Trainer, *args: Any) -> None:
        """Draw, a few times a second."""
        if self.bar is None or (now := time.perf_counter()) < self.drawn + PAUSE:
            return
        self.drawn, done = now, trainer.global_step
        per_step = (now - self.since) / max(1, done - self.began)
        left = per_step * (self.steps - done + self.above * self.steps)
        self.bar.set_description_str(f"{self.name}, epoch {trainer.current_epoch + 1}/{trainer.max_epochs}", False)
        whole = [f"stack {tqdm.format_interval(left)}"] if self.above else []
        self.bar.set_postfix_str(", ".join([*whole, *self.accuracy]), False)
        self.bar.update(done - self.bar.n)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        accuracy = float(trainer.callback_metrics["val_accuracy"])
        self.accuracy = [f"{accuracy:.1%} correct"]
        if self.bar is None:
            epoch = f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"
            print(f"{self.name}: {epoch}, validation accuracy {accuracy:.2%}", flush=True)


class _Signals(Callback):
    """Leaves signals to those who had them: of several processes Lightning's handler waits for what may never come."""

    def setup(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        self.before = signal.getsignal(signal.SIGTERM)

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self.before)


class _Pace(Callback):
    """Logs of each epoch what came of it and what it costs."""

    def __init__(self, data: LayerData, best: BestEpoch, steps: int) -> None:
        self.data, self.best = data, best
        self.steps = steps  # an epoch

    def on_train_epoch_start(self, trainer: Trainer, pl_module: Any) -> None:
        self.began = time.perf_counter()

    def on_validation_start(self, trainer: Trainer, pl_module: Any) -> None:
        self.trained = time.perf_counter()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        images, on_gpu = self.steps * self.data.batch_size, self.data.device.type == "cuda"
        values = self.best.epochs[-1] | {
            "epoch_seconds": time.perf_counter() - self.began,
            "images_per_second": images / max(self.trained - self.began, 1e-9),
            "memory_gb": (torch.cuda.max_memory_allocated(self.data.device) if on_gpu else memory.peak()) / 1e9,
        }
        # by itself, Lightning logs an epoch's values after its checkpoint, and a kill between the two would lose them
        pl_module.tell(trainer.global_step - 1, values)


def rounding(precision: str, device: torch.device) -> str:
    """How products of float32 are multiplied where they decide no gate, as `torch.set_float32_matmul_precision` says.

    Half precision is asked for, then on a GPU the maps' products are TF32's, which has as many digits as float16.
    """
    return "highest" if precision == "32-true" or device.type != "cuda" else "high"


def fit_layer(
    layer: nn.Module,
    number: int,
    data: LayerData,
    optimizer: config.Optimizer,
    trainer: config.Trainer,
    folder: Path,
    listeners: Sequence[Listener] = (),
    depth: int | None = None,
    identity: str = "",
) -> BestEpoch:
    """Train a layer, from where `folder`/last.ckpt stands if it is there; what counts is the best epoch's weights.

    The layer maps an input and the logits below to logits, as `ProbedLayer.said`. `identity` stands for all that the
    training depends on; `depth` is the stack's, where it is known. Raises TrainingFailed where the loss is not finite,
    DamagedRun where last.ckpt is damaged, or of another training.
    """
    memory.keep_what_is_freed()
    best = BestEpoch()
    steps = len(data.store.data.train) // data.batch_size
    shown = _Shown(
        f"layer {number}" + (f"/{depth}" if depth else ""), steps * optimizer.epochs, (depth or number) - number
    )
    last = folder / "last.ckpt"
    resumed = processes.by_first(last.exists)
    # monitor=None and one file: after every epoch last.ckpt is replaced
    checkpoint = ModelCheckpoint(folder, "last", save_on_train_epoch_end=True, enable_version_counter=False)
    if resumed:
        print(f"layer {number}: resuming after its last finished epoch")
    silence_lightning()
    several, listening = processes.count() > 1, [_Pace(data, best, steps)] if listeners else []
    with hidden(OTHERS) if several else hidden():
        fitting = Trainer(
            accelerator="gpu" if data.device.type == "cuda" else "cpu",
            devices=trainer.devices if several else 1,
            num_nodes=trainer.num_nodes if several else 1,
            # what is frozen is no part of the module, and buffers are the same everywhere: nothing to send of them
            strategy=DDPStrategy(broadcast_buffers=False) if several else "auto",
            use_distributed_sampler=False,  # batches are divided already
            precision=trainer.precision,
            max_epochs=optimizer.epochs,
            reload_dataloaders_every_n_epochs=1,
            num_sanity_val_steps=0,
            log_every_n_steps=1,  # the module decides
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[
                best,
                checkpoint,
                *([shown] if processes.rank() == 0 else []),
                *listening,
                *([_Signals()] * several),
            ],
            logger=_Told(number, listeners) if listeners else False,
            plugins=[
                CommittedCheckpoints(identity),
                processes.cluster() or LightningEnvironment(),  # one process, whatever a scheduler started
            ],
            default_root_dir=folder,
        )
    module = LayerModule(layer, number, len(data.store.data.classes), optimizer, steps, data.seed)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*does not have many workers.*")
        warnings.filterwarnings("ignore", "(?s).*Checkpoint directory .* exists and is not empty")
        warnings.filterwarnings("ignore", "(?s)The dirpath has changed")  # as a run may be moved
        # as it counts what it gives at a time
        warnings.filterwarnings("ignore", ".*resuming from a checkpoint that ended before the epoch ended.*")
        warnings.filterwarnings("ignore", ".*treespec, LeafSpec.*")
        warnings.filterwarnings("ignore", ".*`broadcast_buffers` is deprecated.*")  # as torch 2.11 knows no other
        try:
            with multiplied_with(rounding(trainer.precision, data.device)):
                fitting.fit(module, datamodule=data, ckpt_path=last if resumed else None)
        finally:
            if shown.bar is not None:
                shown.bar.close()
    return best
