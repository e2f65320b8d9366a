"""The best epoch of a layer's training."""

import math
import time
from collections.abc import Mapping
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from layerwise.errors import TrainingFailed
from layerwise.training.module import LayerModule


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
