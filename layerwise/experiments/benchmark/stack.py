"""The cost of depth: training layer 4 of a stack, against the same layer on features that are stored already."""

import tempfile
import time
from pathlib import Path

import torch

from layerwise.config import Config, Layer, Optimizer, Probe, Sampling, SingleLayer
from layerwise.console import silenced
from layerwise.data.views import ViewStore
from layerwise.experiments.benchmark.steps import CLASSES, natural_data
from layerwise.nn.layer import ProbedLayer, build_layer
from layerwise.nn.stack import FrozenStack
from layerwise.training.fit import fit_layer
from layerwise.training.inputs import LayerData
from layerwise.training.stack import learn

DEPTH = 4


def measure_depth(quick: bool, device: torch.device) -> str:
    """Train a fourth layer on three that were not trained, which takes as long as on trained ones.

    In the stack the seconds hold all that the layer needs: pushing the views stored of layer 2 through layer 3,
    sampling patches, the dictionary, the epochs. Alone, the views are there already. Returns a line that tells both.
    """
    count, atoms, epochs, turns = (96, 16, 1, 1) if quick else (2000, 256, 10, 2)
    sampling = Sampling(patches=64 * atoms)
    layer = Layer(atoms=atoms, neighbors=atoms // 4, pool=1, probe=Probe(pool=4), sampling=sampling)
    optimizer = Optimizer(epochs=epochs, batch_size=32)
    first = SingleLayer(**vars(layer) | {"pool": 2}, optimizer=optimizer)
    config = Config(depth=DEPTH, layer=layer, layers={1: first}, optimizer=optimizer)
    data = natural_data(count)
    stack, seconds = FrozenStack(), {"stack": 0.0, "alone": 0.0}
    with silenced():
        for number in range(1, DEPTH):
            store = ViewStore(config.features, data, config.seed, device)  # is empty: patches come from the stack
            stack = stack.with_layer(_layer(config, stack, store, number)).to(device)
        for _ in range(turns):
            for where, stored in (("stack", DEPTH - 2), ("alone", DEPTH - 1)):
                store = ViewStore(config.features, data, config.seed, device)
                for below in range(1, stored + 1):
                    store.raise_to(stack.below(below + 1))
                seconds[where] += _train(config, stack, store) / turns
    return (
        f"layer {DEPTH} in a stack: {seconds['stack']:.1f} s, alone on stored features: {seconds['alone']:.1f} s: "
        f"in a stack ÷ alone {seconds['stack'] / seconds['alone']:.2f} "
        f"({config.features.views} views, {epochs} epochs, {count:,} images, {atoms} atoms)"
    )


def _layer(config: Config, stack: FrozenStack, store: ViewStore, number: int) -> ProbedLayer:
    """A layer on top of a stack, with a dictionary of its input."""
    own = config.layer_at(number)
    return build_layer(own, learn(own, number, stack, store, config.seed), stack.shape(store.data.shape), CLASSES)


def _train(config: Config, stack: FrozenStack, store: ViewStore) -> float:
    """Seconds of what a layer's training does from where its input is stored."""
    start = time.perf_counter()
    store.raise_to(stack)
    layer = _layer(config, stack, store, DEPTH)
    with tempfile.TemporaryDirectory() as folder:
        inputs = LayerData(stack, store, config.optimizer.batch_size, 0)
        fit_layer(layer, DEPTH, inputs, config.optimizer, config.trainer, Path(folder))
    return time.perf_counter() - start
