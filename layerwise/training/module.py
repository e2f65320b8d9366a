"""The LightningModule that trains one layer and its probe."""

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torchmetrics.classification import MulticlassAccuracy

from layerwise.config import Optimizer
from layerwise.config.choices import OPTIMIZERS, SCHEDULES
from layerwise.data.batches import Batch
from layerwise.errors import TrainingFailed


class LayerModule(LightningModule):
    """Trains a layer's maps, norm, projection and probe by cross-entropy; its dictionary stays as it is.

    Args:
        layer: what is trained, such as a `ProbedLayer`: maps an input and the logits below to output and logits.
        number: its number, for messages.
        classes: number of classes.
        config: how it is trained.
    """

    def __init__(self, layer: nn.Module, number: int, classes: int, config: Optimizer) -> None:
        super().__init__()
        self.layer = layer
        self.number = number
        self.config = config
        self.train_accuracy = MulticlassAccuracy(classes, average="micro")
        self.val_accuracy = MulticlassAccuracy(classes, average="micro")
        self.failed_step = torch.tensor(-1)

    def training_step(self, batch: Batch, index: int) -> Tensor:
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

    def validation_step(self, batch: Batch, index: int) -> None:
        """Loss and accuracy of a batch."""
        features, below, labels = batch
        _, logits = self.layer(features, below)
        self.val_accuracy(logits, labels)
        self.log("val_loss", F.cross_entropy(logits, labels), batch_size=len(labels))
        self.log("val_accuracy", self.val_accuracy, batch_size=len(labels))

    def on_validation_start(self) -> None:
        """Stop before a broken state is measured or saved."""
        step = int(self.failed_step)
        if step >= 0:
            raise TrainingFailed(
                f"layer {self.number}: the loss is not finite at step {step}; the last good epoch is kept: "
                "give a smaller --optimizer.learning_rate and another --run_dir"
            )

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The optimizer, with decay on weights alone, and the schedule of its learning rate."""
        trained = [p for p in self.layer.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in trained if p.ndim > 1], "weight_decay": self.config.weight_decay},
            {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
        ]
        optimizer = OPTIMIZERS[self.config.name](groups, self.config)
        schedule = SCHEDULES[self.config.schedule](optimizer, self.config, int(self.trainer.estimated_stepping_batches))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
