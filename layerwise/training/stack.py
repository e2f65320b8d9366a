"""The algorithm: learn a dictionary, train a layer on it, freeze it, go on with its output (paper, section 3).

Or, where a layer begins another column, with the images anew.
"""

import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch

from layerwise import memory
from layerwise.config import Config, SingleLayer
from layerwise.config.identity import fingerprint, settings_of
from layerwise.console import progress
from layerwise.data.splits import DataSet
from layerwise.data.views import ViewStore
from layerwise.errors import TrainingFailed
from layerwise.nn.dictionary import PatchDictionary
from layerwise.nn.layer import build_layer, learn_for
from layerwise.nn.stack import FrozenStack
from layerwise.processes import by_first
from layerwise.run.record import LayerRecord
from layerwise.run.run import Run
from layerwise.seeds import fold_seed
from layerwise.training.depth import no_gain, no_room, views_seen
from layerwise.training.evaluation import statistics
from layerwise.training.fit import fit_layer
from layerwise.training.inputs import LayerData, sample_inputs
from layerwise.training.listeners import Listener, tell

SOME = 2048
"""images, at most, that statistics are taken of"""


def train_stack(
    config: Config, data: DataSet, run: Run, device: torch.device, listeners: Sequence[Listener] = ()
) -> tuple[FrozenStack, list[LayerRecord], str | None]:
    """Train layer after layer up to `config.depth`, but for those that the run, which is started, already holds.

    Returns the frozen stack, its layers' records, and with depth auto why it is no deeper. Raises TrainingFailed where
    a loss is not finite, DamagedRun where a file of the run is not as it was written.
    """
    stack, records = FrozenStack(), list[LayerRecord]()
    features, mirrored = replace(config.features, views=views_seen(config)), config.layer_at(1).mirror
    inputs = ViewStore(features, data, config.seed, device, mirrored)
    stop = None
    for number in range(1, config.deepest + 1):
        below = stack.under(config.layer_at(number))
        if stop := no_room(config, number, below.shape(data.shape), len(data.train)):
            break
        if record := by_first(run.record, number):
            print(f"layer {number}: already trained, validation accuracy {record.val_accuracy:.2%}", flush=True)
        else:
            record = train_layer(config, number, below, inputs, run, listeners)
        stop = no_gain([*records, record]) if config.depth == "auto" else None
        if stop:
            break
        # what is stacked upon is what was saved, whether by this process or an earlier one
        stack = stack.with_layer(by_first(run.layer(number).load, record)).to(device)
        records.append(record)
        tell(listeners, "layer_finished", stack, records)
    if stop:
        print(stop)
    return stack, records, stop


def train_layer(
    config: Config, number: int, stack: FrozenStack, inputs: ViewStore, run: Run, listeners: Sequence[Listener]
) -> LayerRecord:
    """Train layer `number` on top of a stack and save it; a layer begun earlier goes on from its last epoch."""
    own, folder, seed = config.layer_at(number), run.layer(number), fold_seed(config.seed, number)
    data, shape = inputs.data, stack.shape(inputs.data.shape)
    settings = settings_of(config, number, data.digest, by_first(run.layer(number - 1).identity))

    start = time.perf_counter()
    with memory.needed(f"layer {number}: features", f"give less than {inputs.config.views} for --features.views"):
        inputs.raise_to(stack)

    def dictionary_of_run() -> PatchDictionary:
        if (found := folder.dictionary()) is not None:
            return found
        sample = f"give less than {own.sample} for --{config.name_of(number, 'sampling.patches')}, or fewer atoms"
        with memory.needed(f"layer {number}: dictionary", sample):
            return folder.save_dictionary(learn(own, number, stack, inputs, seed), settings)

    dictionary = by_first(dictionary_of_run)  # so that it does not depend on the number of processes
    prepared = time.perf_counter() - start

    torch.manual_seed(fold_seed(config.seed, number, 0))  # for the first weights
    layer = build_layer(own, dictionary, shape, len(data.classes), number)
    ask, passes = layer.layer.embedding.ask, own.optimizer.epochs + inputs.plans.wanted * config.hands_on(number)
    batches = LayerData(stack, inputs, own.optimizer.batch_size, seed, ask, own.patch_size, passes, layer)
    depth = None if config.depth == "auto" else config.deepest
    batch = config.name_of(number, "optimizer.batch_size")
    with memory.needed(f"layer {number}: training", f"give less than {own.optimizer.batch_size} for --{batch}"):
        trainer, place, identity = config.trainer, folder.path, fingerprint(settings)
        history = fit_layer(layer, number, batches, own.optimizer, trainer, place, listeners, depth, identity)

    inputs.known = batches.known  # since the next layer's views are made from the same inputs
    layer.load_state_dict(history.weights)

    def saved() -> LayerRecord:
        some = torch.arange(len(data.train))[:: -(-len(data.train) // SOME)]
        record = LayerRecord(
            layer=number,
            atoms=own.atoms,
            val_accuracy=history.best["val_accuracy"],
            epochs=history.epochs,
            input_shape=list(shape),
            output_shape=list(layer.shape),
            classes=data.classes,
            seconds=round(prepared + history.seconds, 3),
            settings=settings,
            val_images=len(data.val),
            statistics=statistics(stack.column, layer.eval().to(inputs.device), data.train, some, inputs.device),
            dimmest=data.dimmest,
        )
        return folder.save(layer, record)

    return by_first(saved)


def learn(own: SingleLayer, number: int, stack: FrozenStack, inputs: ViewStore, seed: int) -> PatchDictionary:
    """Sample patches of a layer's input, whiten them, choose atoms."""
    generator = torch.Generator().manual_seed(seed)
    what = f"layer {number}: sampling patches"
    patches = sample_inputs(stack, inputs, own.patch_size, own.sample, generator, own.sampling.pixels, what)
    if not bool(torch.stack(patches.aminmax()).isfinite().all()):  # of the two, as that of all would take a copy
        source = f"the output of layer {number - 1} is not finite; train it again with --restart_from {number - 1}"
        raise TrainingFailed(f"layer {number}: {source}")
    shown = partial(progress, what=f"layer {number}: dictionary")
    try:
        return learn_for(own, number, patches, generator, shown)
    except ValueError as error:  # nothing to whiten
        raise TrainingFailed(f"layer {number}: {error}") from error
