"""The algorithm: learn a dictionary, train a layer on it, freeze the layer, go on with its output."""

import time
from collections.abc import Callable

import torch

from layerwise.config.layer import LayerConfig
from layerwise.config.run import Config
from layerwise.console import progress
from layerwise.data.batches import fold_seed
from layerwise.data.splits import DataSet
from layerwise.data.views import ViewStore
from layerwise.nn.dictionary import PatchDictionary
from layerwise.nn.layer import FrozenStack, ProbedLayer
from layerwise.run.directory import RunDir, settings_of
from layerwise.run.records import LayerRecord, load_layer, save_dictionary, save_layer, saved_dictionary, saved_record
from layerwise.run.tracker import Tracker
from layerwise.training.depth import no_gain, no_room
from layerwise.training.fit import train_layer
from layerwise.training.inputs import LayerData, sample_inputs
from layerwise.training.module import LayerModule, TrainingFailed


def train_stack(
    config: Config,
    data: DataSet,
    run_dir: RunDir,
    tracker: Tracker,
    device: torch.device,
    finished: Callable[[FrozenStack, LayerRecord], None],
) -> tuple[FrozenStack, list[LayerRecord]]:
    """Train layer after layer up to `config.depth`, but for those that the run directory already holds.

    Args:
        config: a checked configuration.
        data: what to learn from.
        run_dir: a started run directory.
        tracker: the W&B run.
        device: where to compute.
        finished: called with the stack so far and its top layer's record, for each layer.

    Returns:
        The frozen stack and its layers' records.

    Raises:
        TrainingFailed: a loss is not finite.
        DamagedRun: a file of the run directory is not as it was written.
    """
    stack, records = FrozenStack([], len(data.classes)), list[LayerRecord]()
    shape = data.shape
    store = ViewStore(config.features, data, config.seed, device)
    for number in range(1, config.deepest + 1):
        if why := no_room(config, number, shape, len(data.train)):
            print(why)
            break
        record = saved_record(run_dir, number)
        if record is None:
            record = train_next(config, data, stack, store, run_dir, tracker)
        why = no_gain([*records, record], len(data.val)) if config.depth == "auto" else None
        run_dir.leave_out(number, why is not None)
        if why:
            print(why)
            break
        # what is stacked upon is what was saved, whether by this process or an earlier one
        layer = load_layer(run_dir, record)
        stack, shape = FrozenStack([*stack.layers, layer], len(data.classes)).to(device), layer.shape
        records.append(record)
        finished(stack, record)
    return stack, records


def train_next(
    config: Config, data: DataSet, stack: FrozenStack, store: ViewStore, run_dir: RunDir, tracker: Tracker
) -> LayerRecord:
    """Train the layer above `stack` and save it; a layer begun earlier goes on from its last epoch."""
    number = len(stack.layers) + 1
    own, seed = config.layer_config(number), fold_seed(config.seed, number)
    settings = settings_of(config, number, data.digest())
    shape = stack.layers[-1].shape if number > 1 else data.shape

    start = time.perf_counter()
    store.raise_to(stack)
    dictionary = saved_dictionary(run_dir, number)
    if dictionary is None:
        dictionary = learn_dictionary(own, stack, store, seed, number)
        save_dictionary(run_dir, number, dictionary, settings)
    prepared = time.perf_counter() - start

    torch.manual_seed(seed)  # for the first weights
    layer = ProbedLayer(dictionary, own, shape, len(data.classes))
    module = LayerModule(layer, number, len(data.classes), config.optimizer_config(number))
    inputs = LayerData(data, stack, store, config.optimizer.batch_size, seed)
    best = train_layer(module, inputs, config, run_dir.layer(number), tracker.logger(number))

    layer.load_state_dict(best.weights)
    record = LayerRecord(
        layer=number,
        atoms=own.atoms,
        val_accuracy=best.best["val_accuracy"],
        epochs=best.epochs,
        input_shape=list(shape),
        output_shape=list(layer.shape),
        classes=data.classes,
        seconds=round(prepared + best.seconds, 3),
        settings=settings,
    )
    save_layer(run_dir, layer, record)
    return record


def learn_dictionary(
    config: LayerConfig, stack: FrozenStack, store: ViewStore, seed: int, number: int
) -> PatchDictionary:
    """Sample patches of a layer's input, whiten them, choose atoms."""
    generator = torch.Generator().manual_seed(seed)
    patches = sample_inputs(stack, store, config, generator, f"layer {number}: sampling patches")
    try:
        return PatchDictionary.fit(
            patches, config, generator, lambda steps: progress(steps, f"layer {number}: dictionary")
        )
    except ValueError as error:  # nothing to whiten
        raise TrainingFailed(f"layer {number}: {error}") from error
