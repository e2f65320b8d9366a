"""The LightningModule that trains one layer and its probe."""

import math
import time
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, MultiStepLR, OneCycleLR
from torchmetrics.classification import MulticlassAccuracy

from layerwise.config.run import OptimizerConfig
from layerwise.nn.layer import ProbedLayer


def adamw(groups: list[dict[str, Any]], config: OptimizerConfig) -> Optimizer:
    """AdamW."""
    return torch.optim.AdamW(groups, lr=config.learning_rate)


def sgd(groups: list[dict[str, Any]], config: OptimizerConfig) -> Optimizer:
    """Stochastic gradient descent with momentum."""
    return torch.optim.SGD(groups, lr=config.learning_rate, momentum=config.momentum)


def cycle(optimizer: Optimizer, config: OptimizerConfig, steps: int) -> LRScheduler:
    """One cycle: up to the learning rate in the share `warmup` of the steps, then down to next to nothing."""
    # OneCycleLR divides by warmup * steps - 1
    warmup = config.warmup if abs(config.warmup * steps - 1) > 1e-6 else 1.5 / steps
    # a cycle of the momentum, too, is more than what is asked for
    return OneCycleLR(optimizer, config.learning_rate, total_steps=steps, pct_start=warmup, cycle_momentum=False)


def steps(optimizer: Optimizer, config: OptimizerConfig, steps: int) -> LRScheduler:
    """A tenth after half of the steps, a hundredth after three quarters: the authors' epochs 100 and 150 of 200."""
    return MultiStepLR(optimizer, [steps // 2, steps * 3 // 4], gamma=0.1)


OPTIMIZERS = {"adamw": adamw, "sgd": sgd}
SCHEDULES = {"cycle": cycle, "steps": steps}


class TrainingFailed(RuntimeError):
    """The training cannot go on; the message says where, why, and what to do."""


class LayerModule(LightningModule):
    """Trains a layer's maps, norm, 1×1 convolution and probe by cross-entropy; its dictionary stays as it is.

    A batch is (features (B, C, H, W), logits of the layers below (B, classes), labels (B,)).

    Args:
        layer: what is trained.
        number: its number, for messages.
        classes: number of classes.
        config: how it is trained.
    """

    def __init__(self, layer: ProbedLayer, number: int, classes: int, config: OptimizerConfig) -> None:
        super().__init__()
        self.layer = layer
        self.number = number
        self.config = config
        self.train_accuracy = MulticlassAccuracy(classes, average="micro")
        self.val_accuracy = MulticlassAccuracy(classes, average="micro")
        self.failed_step = torch.tensor(-1)

    def training_step(self, batch: tuple[Tensor, Tensor, Tensor], index: int) -> Tensor:
        """Cross-entropy of a batch."""
        features, below, labels = batch
        _, logits = self.layer(features, below)
        loss = F.cross_entropy(logits, labels, label_smoothing=self.config.label_smoothing)
        # kept on the device, so that no step waits for it
        first = ~loss.detach().isfinite() & (self.failed_step.to(loss.device) < 0)
        self.failed_step = torch.where(first, self.global_step, self.failed_step.to(loss.device))
        self.train_accuracy(logits, labels)
        self.log("train_loss", loss, on_step=True, on_epoch=False)
        self.log("train_accuracy", self.train_accuracy, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor, Tensor], index: int) -> None:
        """Loss and accuracy of a batch."""
        features, below, labels = batch
        _, logits = self.layer(features, below)
        self.val_accuracy(logits, labels)
        self.log("val_loss", F.cross_entropy(logits, labels), batch_size=len(labels))
        self.log("val_accuracy", self.val_accuracy, prog_bar=True, batch_size=len(labels))

    def on_validation_start(self) -> None:
        """Stop before a broken state is measured or saved."""
        step = int(self.failed_step)
        if step >= 0:
            raise TrainingFailed(
                f"layer {self.number}: the loss is not finite at step {step}; the last good epoch is kept: "
                "give a smaller --optimizer.learning_rate and another --run_dir"
            )

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The optimizer, with decay on weights alone, not on atoms, and the schedule of its learning rate."""
        trained = {name: p for name, p in self.layer.named_parameters() if p.requires_grad}
        weights = {name for name, p in trained.items() if p.ndim > 1 and not name.endswith("embedding.atoms")}
        groups = [
            {"params": [trained[n] for n in trained if n in weights], "weight_decay": self.config.weight_decay},
            {"params": [trained[n] for n in trained if n not in weights], "weight_decay": 0.0},
        ]
        optimizer = OPTIMIZERS[self.config.name](groups, self.config)
        schedule = SCHEDULES[self.config.schedule](optimizer, self.config, int(self.trainer.estimated_stepping_batches))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class BestEpoch(Callback):
    """Keeps the weights of the epoch with the highest validation accuracy, of equal ones that with the lowest loss.

    All of it is in the checkpoint, so that a resumed training knows its best epoch, too.

    Attributes:
        epochs: validation accuracy and loss of each epoch so far.
        weights: the best epoch's state of the layer.
        seconds: of training so far, those before a resume included.
    """

    def __init__(self) -> None:
        self.epochs: list[dict[str, float]] = []
        self.weights: dict[str, Tensor] = {}
        self.seconds = 0.0
        self._since = time.perf_counter()

    @property
    def best(self) -> dict[str, float]:
        """Validation accuracy and loss of the best epoch so far."""
        return max(self.epochs, key=lambda epoch: (epoch["val_accuracy"], -epoch["val_loss"]))

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._since = time.perf_counter()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compare this epoch with the best so far."""
        assert isinstance(pl_module, LayerModule)
        epoch = {name: float(trainer.callback_metrics[name]) for name in ("val_accuracy", "val_loss")}
        if not math.isfinite(epoch["val_loss"]):
            raise TrainingFailed(
                f"layer {pl_module.number}: the validation loss is not finite after epoch {trainer.current_epoch + 1}; "
                "the last good epoch is kept: give a smaller --optimizer.learning_rate and another --run_dir"
            )
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
