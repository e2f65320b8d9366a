"""The LightningModule that trains one layer and its probe, and the best epoch of its training."""

import math
import time
from collections.abc import Iterable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim.lr_scheduler import ConstantLR, LRScheduler
from torchmetrics.classification import MulticlassAccuracy

from layerwise import processes
from layerwise.config import Optimizer
from layerwise.config.choices import OPTIMIZERS, SCHEDULES
from layerwise.data.batches import Batch
from layerwise.errors import TrainingFailed
from layerwise.nn.layer import ProbedLayer
from layerwise.run.record import best_epoch
from layerwise.seeds import fold_seed

FINITE = 1 << 62
"""stands for the step at which the loss was not finite, where it always was"""


class LayerModule(LightningModule):
    """Trains a layer's maps, norm, projection and probe by cross-entropy; its dictionary stays as it is.

    Lightning gives it several steps at a time, as it takes longer for one than a small layer's step does.
    """

    def __init__(
        self, layer: nn.Module, number: int, classes: int, config: Optimizer, steps: int, seed: int = 0
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.layer: Any = layer  # a `ProbedLayer`, or what maps an input by `said` as that does
        self.number = number
        self.config = config
        self.steps = steps  # an epoch
        self.seed = seed
        self.val_accuracy, self.val_alone = (MulticlassAccuracy(classes, average="micro") for _ in range(2))
        # kept on the device, so that no step waits for them
        self.failed_step = torch.tensor(-1)
        self.right, self.seen = torch.tensor(0), 0  # of this epoch's images: how many classified correctly, of how many

    def training_step(self, batches: Iterable[Batch], index: int) -> None:
        """Take a step on each of several batches."""
        optimizer, schedule = self.optimizers(), self.lr_schedulers()
        assert isinstance(optimizer, LightningOptimizer) and isinstance(schedule, LRScheduler)
        every = max(1, self.steps // 10)  # what is passed on costs as much as a step
        for step, batch in enumerate(batches, self.global_step):
            loss, rate = self.loss(batch, step), schedule.get_last_lr()[0]
            optimizer.zero_grad()
            with torch.autocast(loss.device.type, enabled=False):  # which Lightning puts around all of this
                self.manual_backward(loss)
                optimizer.step()
            schedule.step()
            if (step + 1) % every == 0:
                self.tell(step, {"train_loss": processes.averaged(loss.detach()), "learning_rate": rate})

    def loss(self, batch: Batch, step: int) -> Tensor:
        """Cross-entropy of a batch."""
        features, below, labels, near = batch
        logits = self.layer.said(features, below, near)
        loss = F.cross_entropy(logits, labels, label_smoothing=self.config.label_smoothing)
        with torch.no_grad():
            first = ~loss.isfinite() & (self.failed_step.to(loss.device) < 0)
            self.failed_step = torch.where(first, step, self.failed_step.to(loss.device))
            self.right = self.right.to(loss.device) + (logits.argmax(1) == labels).sum()
        self.seen += len(labels)
        return loss

    def tell(self, step: int, values: Mapping[str, Tensor | float]) -> None:
        """Pass on what is known of a step, which Lightning would number by what it gives at a time."""
        if self.logger is not None:
            epoch = {"epoch": float(self.current_epoch)}
            self.logger.log_metrics({name: float(value) for name, value in values.items()} | epoch, step)

    def on_train_epoch_start(self) -> None:
        """Count anew, and draw what is dropped by the epoch alone, so that a resumed training draws the same."""
        torch.manual_seed(fold_seed(self.seed, self.current_epoch, processes.rank()))
        self.right, self.seen = torch.zeros_like(self.right), 0

    def train_accuracy(self) -> float:
        """The share of this epoch's training images that were classified correctly when they came, in [0, 1]."""
        return float(processes.summed(self.right).float() / (self.seen * processes.count()))

    def validation_step(self, batch: Batch, index: int) -> None:
        """Loss and accuracy of a batch."""
        features, below, labels, near = batch
        logits = self.layer.said(features, below, near)
        self.val_accuracy(logits, labels)
        loss, count = F.cross_entropy(logits, labels), len(labels)
        self.log("val_loss", loss, batch_size=count, sync_dist=True, logger=False)
        self.log("val_accuracy", self.val_accuracy, batch_size=count, logger=False)
        if isinstance(self.layer, ProbedLayer) and self.layer.logits == "averaged" and below is not None:
            self.val_alone(self.layer.alone(logits, below), labels)
            self.log("val_alone", self.val_alone, batch_size=count, logger=False)

    def on_validation_start(self) -> None:
        """Stop before a broken state is measured or saved."""
        step = int(processes.lowest(torch.where(self.failed_step < 0, FINITE, self.failed_step)))
        if step < FINITE:
            raise self.failure(f"the loss is not finite at step {step}")

    def failure(self, what: str) -> TrainingFailed:
        """That the training cannot go on, in words: where, the likely cause, what is kept, what to do."""
        epoch, rate, decay = self.trainer.current_epoch, self.config.learning_rate, self.config.weight_decay
        name, cause = "learning_rate", f"a learning rate of {rate:g} is likely too high"
        if rate * decay > 2 and decay > rate:  # each step turns weights around, and makes them larger
            name, cause = "weight_decay", f"a decay of {decay:g} is too strong for a learning rate of {rate:g}"
        cause += ", or 16-mixed too narrow" * (self.trainer.precision == "16-mixed")
        kept = f"what epoch {epoch} left is kept" if epoch else "no epoch was finished"
        remedy = f"give a lower --layers.{self.number}.optimizer.{name} and --restart_from {self.number}; {kept}"
        return TrainingFailed(f"layer {self.number}, epoch {epoch + 1}: {what}; {cause}; {remedy}")

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The optimizer, with decay on weights alone, and the schedule of its learning rate."""
        trained = [p for p in self.layer.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in trained if p.ndim > 1], "weight_decay": self.config.weight_decay},
            {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
        ]
        optimizer = OPTIMIZERS[self.config.name](groups, self.config)
        steps = self.steps * self.config.epochs
        schedule: LRScheduler
        if steps > 1:
            schedule = SCHEDULES[self.config.schedule](optimizer, self.config, steps)
        else:  # of whose course a single step would see the lowest rate
            schedule = ConstantLR(optimizer, 1)
        return {"optimizer": optimizer, "lr_scheduler": schedule}


class BestEpoch(Callback):
    """Keeps the weights of the epoch with the highest validation accuracy, of equal ones that with the lowest loss.

    All of it is in the checkpoint, so that a resumed training knows its best epoch, too.
    """

    def __init__(self) -> None:
        self.epochs: list[dict[str, float]] = []  # validation accuracy and loss of each so far, and training accuracy
        self.weights: dict[str, Tensor] = {}  # the layer's state in the best one
        self.seconds = 0.0  # of training so far, those before a resume included

    @property
    def best(self) -> dict[str, float]:
        """Validation accuracy and loss of the best epoch so far."""
        return best_epoch(self.epochs)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._since = time.perf_counter()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compare this epoch with the best so far."""
        assert isinstance(pl_module, LayerModule)
        names = ("val_accuracy", "val_loss", "val_alone")
        epoch = {name: float(trainer.callback_metrics[name]) for name in names if name in trainer.callback_metrics}
        if not math.isfinite(epoch["val_loss"]):
            raise pl_module.failure("the validation loss is not finite")
        epoch["train_accuracy"] = pl_module.train_accuracy()
        self.epochs.append(epoch)
        if self.best is epoch:
            self.weights = {name: value.detach().cpu().clone() for name, value in pl_module.layer.state_dict().items()}
        now = time.perf_counter()
        self.seconds, self._since = self.seconds + now - self._since, now

    def state_dict(self) -> dict[str, Any]:
        """For Lightning's checkpoint."""
        return {"epochs": self.epochs, "weights": self.weights, "seconds": self.seconds}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """From Lightning's checkpoint."""
        self.epochs, self.weights = list(state_dict["epochs"]), dict(state_dict["weights"])
        self.seconds = state_dict["seconds"]
