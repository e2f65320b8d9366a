"""The cost of depth: training layer 4 of a stack, against the same layer on features that are stored already."""

import contextlib
import io
import tempfile
import time
from pathlib import Path

import torch

from layerwise.config.layer import LayerConfig, LayerOverrides
from layerwise.config.run import Config, OptimizerConfig
from layerwise.data.batches import Augmentation, Images
from layerwise.data.splits import DataSet
from layerwise.data.views import ViewStore
from layerwise.experiments.benchmark.layers import CLASSES, natural_images
from layerwise.nn.layer import FrozenStack, ProbedLayer
from layerwise.training.fit import train_layer
from layerwise.training.inputs import LayerData
from layerwise.training.module import LayerModule
from layerwise.training.stack import learn_dictionary

DEPTH = 4


def measure_depth(quick: bool, device: torch.device) -> str:
    """Train a fourth layer on three that were not trained, which takes as long as on trained ones.

    In the stack the seconds hold all that the layer needs: pushing the views stored of layer 2 through layer 3,
    sampling patches, the dictionary, the epochs. Alone, the views are there already.

    Returns:
        A line that says how long each took.
    """
    count, atoms, epochs, turns = (96, 16, 1, 1) if quick else (2000, 256, 10, 2)
    config = Config(
        depth=DEPTH,
        layer=LayerConfig(atoms=atoms, neighbors=atoms // 4, pool=1, probe_pool=4, patches=64 * atoms),
        layers={1: LayerOverrides(pool=2)},
        optimizer=OptimizerConfig(epochs=epochs, batch_size=32),
    )
    data = _data(count)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        stack = _stack(config, data, device)
        seconds = {"stack": 0.0, "alone": 0.0}
        for _ in range(turns):
            for where, stored in (("stack", DEPTH - 2), ("alone", DEPTH - 1)):
                store = ViewStore(config.features, data, config.seed, device)
                for below in range(1, stored + 1):
                    store.raise_to(FrozenStack(stack.layers[:below], CLASSES).to(device))
                seconds[where] += _train(config, data, stack, store) / turns
    return (
        f"layer {DEPTH} in a stack: {seconds['stack']:.1f} s, alone on stored features: {seconds['alone']:.1f} s: "
        f"in a stack ÷ alone {seconds['stack'] / seconds['alone']:.2f} "
        f"({config.features.views} views, {epochs} epochs, {count:,} images, {atoms} atoms)"
    )


def _data(count: int) -> DataSet:
    pixels = ((natural_images(count + 64, torch.Generator().manual_seed(0)) + 1) * 127.5).byte()
    images = Images(pixels, torch.arange(len(pixels)) % CLASSES)
    train, held = images.subset(torch.arange(count)), images.subset(torch.arange(count, count + 64))
    return DataSet([str(i) for i in range(CLASSES)], train, held, held, Augmentation(flip=True, crop=4))


def _stack(config: Config, data: DataSet, device: torch.device) -> FrozenStack:
    """Layers 1 to 3, with dictionaries of their inputs."""
    stack = FrozenStack([], CLASSES).to(device)
    for number in range(1, DEPTH):
        stack = FrozenStack([*stack.layers, _layer(config, data, stack, number, device)], CLASSES).to(device)
    return stack


def _layer(config: Config, data: DataSet, stack: FrozenStack, number: int, device: torch.device) -> ProbedLayer:
    store = ViewStore(config.features, data, config.seed, device)  # with nothing in it, patches come from the stack
    own = config.layer_config(number)
    shape = stack.layers[-1].shape if stack.layers else data.shape
    return ProbedLayer(learn_dictionary(own, stack, store, config.seed, number), own, shape, CLASSES)


def _train(config: Config, data: DataSet, stack: FrozenStack, store: ViewStore) -> float:
    """Seconds of what a layer's training does from where its input is stored."""
    start = time.perf_counter()
    store.raise_to(stack)
    own = config.layer_config(DEPTH)
    layer = ProbedLayer(learn_dictionary(own, stack, store, 0, DEPTH), own, stack.layers[-1].shape, CLASSES)
    module = LayerModule(layer, DEPTH, CLASSES, config.optimizer)
    with tempfile.TemporaryDirectory() as folder:
        inputs = LayerData(data, stack, store, config.optimizer.batch_size, 0)
        train_layer(module, inputs, config, Path(folder), None)
    return time.perf_counter() - start
