"""layer.json: what a finished layer is, and how well it does."""

from dataclasses import dataclass, field
from typing import Any, cast

from layerwise.config import SingleLayer
from layerwise.config.run import restore

TOO_WELL = 0.05
"""by how much accuracy on training images may exceed that on validation images"""


@dataclass(frozen=True)
class LayerRecord:
    """What a finished layer is, and how well it does."""

    layer: int
    """its number, from 1"""
    atoms: int
    val_accuracy: float
    """of the stack up to this layer, in [0, 1]; that of the best epoch, whose weights are the layer's"""
    epochs: list[dict[str, float]]
    """validation accuracy and loss of each epoch, and the accuracy on training images while it trained on them; of a
    layer whose logits are averaged with those below, which trains alone, the validation accuracy alone, too"""
    input_shape: list[int]
    """(C, H, W)"""
    output_shape: list[int]
    """(D, h', w')"""
    classes: list[str]
    seconds: float
    """of sampling, clustering and every finished epoch, but not of a dictionary that was learned before a resume"""
    settings: dict[str, Any]
    """all that the weights depend on"""
    val_images: int = 0
    """validation images"""
    statistics: list[list[float]] = field(default_factory=list)
    """mean and deviation of each channel that the probe reads, over some training images and all positions"""
    dimmest: int = 0
    """a pixel value from 0 to 255: of 99 in 100 training images, the brightest pixel is at least so bright"""

    @property
    def best(self) -> dict[str, float]:
        """The epoch whose weights are the layer's."""
        return best_epoch(self.epochs)

    @property
    def error(self) -> float:
        """The standard error of the validation accuracy p on n images, sqrt(p (1 - p) / n)."""
        return float((self.val_accuracy * (1 - self.val_accuracy) / max(1, self.val_images)) ** 0.5)

    def helps(self, below: "LayerRecord") -> bool:
        """Whether the layer raises the validation accuracy by more than its standard error."""
        return self.val_accuracy - below.val_accuracy > self.error

    @property
    def advice(self) -> str:
        """What would likely raise the validation accuracy: "" where accuracy on training images does not tell.

        A layer that does no better on training images, which it sees augmented, is not done with them, or too small for
        them; one that does better by more than `TOO_WELL` knows them by heart, against which dropout may help, too. One
        that is averaged with others is compared alone, as it is trained.
        """
        if (train := self.best.get("train_accuracy")) is None:
            return ""
        ahead = train - self.best.get("val_alone", self.val_accuracy)
        return "more epochs or atoms" if ahead < self.error else "more decay or images" if ahead > TOO_WELL else ""

    @property
    def config(self) -> SingleLayer:
        """The layer's own settings."""
        return cast(SingleLayer, restore(SingleLayer, self.settings[f"layer {self.layer}"]))

    @property
    def sees_images(self) -> bool:
        """Whether its input is the images."""
        return self.config.sees_images(self.layer)


def best_epoch(epochs: list[dict[str, float]]) -> dict[str, float]:
    """The epoch of the highest validation accuracy, of equal ones that of the lowest loss."""
    return max(epochs, key=lambda epoch: (epoch["val_accuracy"], -epoch["val_loss"]))
