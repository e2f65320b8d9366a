"""Convolutional networks that are trained end to end, as in the paper's Table 4: other models, by the same means.

Shapes: B batch, C channels, H W image side, s patch side, N kernels, D channels after each convolution.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from layerwise.api import device_of
from layerwise.config import Config, Layer, SettingError, SingleLayer
from layerwise.config.choices import NORMS
from layerwise.config.identity import fingerprint, settings_of
from layerwise.data.splits import load_data
from layerwise.data.views import ViewStore
from layerwise.nn.outline import output_shape
from layerwise.nn.probe import LinearProbe
from layerwise.nn.stack import FrozenStack
from layerwise.report.summary import summarize
from layerwise.report.tracking import Tracking, described
from layerwise.run.files import write_json, write_tensors
from layerwise.run.record import LayerRecord
from layerwise.run.run import Run
from layerwise.run.tracker import Tracker
from layerwise.seeds import fold_seed
from layerwise.training.evaluation import evaluate
from layerwise.training.fit import fit_layer
from layerwise.training.inputs import LayerData

WEIGHTS = "cnn.safetensors"


class EndToEnd(nn.Module):
    """For each layer a convolution with ReLU, pooling, norm and a 1×1 bottleneck, if any; the last one's probe.

    `layers` are the settings of layers of the same shape (s, N, D, pool, norm, probe); nothing is appended, whatever
    they say of `residual` and `output`. Raises SettingError where images
    of shape (C, H, W) have no room for so many.
    """

    def __init__(self, layers: Sequence[Layer], shape: tuple[int, int, int], classes: int) -> None:
        super().__init__()
        self.anew = False  # as of a layer
        parts, channels = list[nn.Module](), shape[0]
        for i, own in enumerate(layers, 1):
            if i > 1 and own.input == "images":
                raise SettingError(f"layers.{i}.input: images, but a CNN has no columns; give below")
            parts += [nn.Conv2d(channels, own.atoms, own.patch_size), nn.ReLU(), nn.AvgPool2d(own.pool, ceil_mode=True)]
            parts.append(NORMS[own.norm.kind](own.atoms, own.norm.eps))
            channels = own.channels or own.atoms
            parts.append(nn.Conv2d(own.atoms, channels, 1) if own.channels else nn.Identity())
        self.network = nn.Sequential(*parts)
        try:
            self.shape = output_shape(self.network, shape)
        except ValueError as error:
            raise SettingError(
                f"depth: {len(layers)} convolutions leave nothing of {shape[1]}×{shape[2]} images; give larger ones"
            ) from error
        self.probe = LinearProbe(self.shape, classes, layers[-1].probe, layers[-1].atoms)
        self.to(memory_format=torch.channels_last)  # in which convolutions take two thirds of the time on a CPU

    def forward(self, x: Tensor, below: object = None) -> tuple[Tensor, Tensor]:
        """Map (B, C, H, W) to output (B, D, h', w') and logits (B, classes), as a layer does."""
        out = self.network(x.contiguous(memory_format=torch.channels_last))
        return out, self.probe(out)

    def said(self, x: Tensor, below: object = None, near: object = None) -> Tensor:
        """The logits alone, as of a layer."""
        _, logits = self.forward(x)
        return logits


def layers_of(config: Config) -> list[SingleLayer]:
    """The settings of every layer."""
    return [config.layer_at(number) for number in range(1, config.deepest + 1)]


def train_end_to_end(config: Config, run: Run) -> tuple[float, float]:
    """Train the CNN of a stack's shape, from its last epoch if it was begun earlier; test accuracy in [0, 1], seconds.

    The first layer's optimizer is that of the whole. Raises RunInUse where another process is at it.
    """
    data, device, own = load_data(config.data, config.seed), device_of(config.trainer), config.layer_at(1)
    seed = fold_seed(config.seed, 1)
    settings = settings_of(config, config.deepest, data.digest)
    run.start(config, data)
    tracker = Tracker(config.wandb, run.path, described(config, data))
    listeners = [Tracking(tracker, run, data, device, 1)]
    try:
        torch.manual_seed(seed)
        model = EndToEnd(layers_of(config), data.shape, len(data.classes))
        images = ViewStore(config.features, data, config.seed, device)
        batches = LayerData(FrozenStack(), images, own.optimizer.batch_size, seed, layer=model)
        identity = fingerprint(settings)
        history = fit_layer(model, 1, batches, own.optimizer, config.trainer, run.path, listeners, identity=identity)
        model.load_state_dict(history.weights)
        write_tensors(run.path / WEIGHTS, history.weights)
        tested = evaluate(FrozenStack([model.to(device)]), data.test, device)
        best = history.best["val_accuracy"]
        shapes, seconds = (list(data.shape), list(model.shape)), round(history.seconds, 3)
        about = own.atoms, best, history.epochs, *shapes, data.classes, seconds, settings
        record = LayerRecord(1, *about, val_images=len(data.val))
        write_json(run.path / "summary.json", summarize([record], tested, data))
    except BaseException:
        tracker.close(1)
        raise
    finally:
        run.release()
    tracker.close()
    return tested.accuracies[0], seconds
