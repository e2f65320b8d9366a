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
from torchmetrics.classification import MulticlassAccuracy

from layerwise.config import OptimizerConfig
from layerwise.layer import ProbedLayer


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
        loss = F.cross_entropy(logits, labels)
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
        """AdamW, with decay on weights alone, and one cycle of the learning rate."""
        trained = [p for p in self.layer.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(
            [
                {"params": [p for p in trained if p.ndim > 1], "weight_decay": self.config.weight_decay},
                {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
            ],
            lr=self.config.learning_rate,
        )
        steps = int(self.trainer.estimated_stepping_batches)
        # OneCycleLR divides by warmup * steps - 1
        warmup = self.config.warmup if abs(self.config.warmup * steps - 1) > 1e-6 else 1.5 / steps
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, self.config.learning_rate, total_steps=steps, pct_start=warmup
        )
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
