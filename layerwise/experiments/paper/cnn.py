"""The CNN of the paper's Table 4 that is trained end to end: another model, trained by the same means.

Shapes: B batch, C channels, H W image side, s patch side, N kernels, D channels after each convolution.
"""

import torch
from torch import Tensor, nn

from layerwise.api import device_of
from layerwise.config import Config, SettingError, SingleLayer
from layerwise.config.identity import fingerprint, settings_of
from layerwise.data.splits import load_data
from layerwise.data.views import ViewStore
from layerwise.nn.layer import output_shape
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
    """Convolutions with ReLU, each followed by a 1×1 bottleneck; pooling and batch norm after the first one alone.

    The settings are those of a first layer: s, N, D, pool, and the probe's. Later convolutions have 3×3 kernels. Raises
    SettingError where images of shape (C, H, W) have no room for so many.
    """

    def __init__(self, settings: SingleLayer, convolutions: int, shape: tuple[int, int, int], classes: int) -> None:
        super().__init__()
        atoms, channels = settings.atoms, settings.channels or settings.atoms
        parts: list[nn.Module] = [nn.Conv2d(shape[0], atoms, settings.patch_size), nn.ReLU()]
        parts += [nn.AvgPool2d(settings.pool, ceil_mode=True), nn.BatchNorm2d(atoms, eps=settings.norm.eps)]
        parts += [nn.Conv2d(atoms, channels, 1)]
        for _ in range(convolutions - 1):
            parts += [nn.Conv2d(channels, atoms, 3), nn.ReLU(), nn.Conv2d(atoms, channels, 1)]
        self.network = nn.Sequential(*parts)
        try:
            self.shape = output_shape(self.network, shape)
        except ValueError as error:
            raise SettingError(
                f"convolutions: {convolutions} leave nothing of {shape[1]}×{shape[2]} images; give larger ones"
            ) from error
        self.probe = LinearProbe(self.shape, classes, settings.probe, atoms)

    def forward(self, x: Tensor, below: object = None) -> tuple[Tensor, Tensor]:
        """Map (B, C, H, W) to output (B, D, h', w') and logits (B, classes), as a layer does."""
        out = self.network(x)
        return out, self.probe(out)


def train_end_to_end(config: Config, convolutions: int, run: Run) -> tuple[float, float]:
    """Train a CNN, from its last epoch if it was begun earlier; its test accuracy in [0, 1] and the seconds.

    Raises RunInUse where another process is at it.
    """
    data, device, own = load_data(config.data, config.seed), device_of(config.trainer), config.layer_at(1)
    seed = fold_seed(config.seed, 1)
    settings = settings_of(config, 1, data.digest)
    run.start(config, data)
    tracker = Tracker(config.wandb, run.path, described(config, data))
    listeners = [Tracking(tracker, run, data, device, 1)]
    try:
        torch.manual_seed(seed)
        model = EndToEnd(own, convolutions, data.shape, len(data.classes))
        images = ViewStore(config.features, data, config.seed, device)
        batches = LayerData(FrozenStack(), images, own.optimizer.batch_size, seed, layer=model)
        identity = fingerprint(settings)
        history = fit_layer(model, 1, batches, own.optimizer, config.trainer, run.path, listeners, identity=identity)
        model.load_state_dict(history.weights)
        write_tensors(run.path / WEIGHTS, history.weights)
        tested = evaluate(FrozenStack([model.to(device)]), data.test, device)
        best = history.best["val_accuracy"]
        shapes, seconds = (list(data.shape), list(model.shape)), round(history.seconds, 3)
        record = LayerRecord(1, own.atoms, best, history.epochs, *shapes, data.classes, seconds, settings)
        write_json(run.path / "summary.json", summarize([record], tested, data))
        (run.path / "last.ckpt").unlink(missing_ok=True)
    except BaseException:
        tracker.close(1)
        raise
    finally:
        run.release()
    tracker.close()
    return tested.accuracies[0], seconds
