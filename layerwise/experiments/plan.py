"""What a training will take, layer by layer: computed from the settings, and from a short rehearsal on this machine.

A rehearsal trains every layer on a few images, for a few epochs, as a training does: with the same data, the same
loops, the same files. What it takes for an image, a sampled patch and an epoch is multiplied by how many there will be.

Shapes: n training images, C channels, H W side, h w positions, S numbers that say which atoms are near a position.
"""

import contextlib
import io
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from layerwise import ahead, memory, processes
from layerwise.api import device_of
from layerwise.config import Config, Features, SingleLayer
from layerwise.console import in_words, print_table, progress
from layerwise.data.images import Augmentation, Images
from layerwise.data.known import KnownCrops
from layerwise.data.rows import HELD
from layerwise.data.splits import DataSet, load_data
from layerwise.data.views import ViewStore
from layerwise.experiments.benchmark.steps import training_step
from layerwise.nn.dictionary import PatchDictionary, learn_dictionary
from layerwise.nn.layer import ProbedLayer, build_layer
from layerwise.nn.stack import FrozenStack
from layerwise.nn.whitening import fit_whitening
from layerwise.training.depth import check_fit, no_room, sample_bytes
from layerwise.training.fit import fit_layer
from layerwise.training.inputs import LayerData, sample_inputs
from layerwise.training.stack import SOME

STEPS, VALIDATED = 8, 512
"""of an epoch of the rehearsal, and the images, at most, that it validates on"""
EPOCHS = 3
"""of it: the first asks which atoms are near, the others know"""
ROUNDS = 3
"""of k-means in it"""


@dataclass(frozen=True)
class Planned:
    """One layer; bytes of what is stored, seconds of this machine."""

    layer: int
    input_shape: tuple[int, int, int]
    output_shape: tuple[int, int, int]
    atoms: int
    neighbors: int
    parameters: int
    """that are trained"""
    multiply_adds: int
    """of a training step for one image, forward and backward, at most: for each near atom of a position, and what is
    behind the embedding"""
    sample_bytes: int
    """of the patches that the dictionary is learned from, and of what is held beside them"""
    memory_bytes: int
    """that a process will have taken, at most, once the layer is trained; of a GPU's nothing is said"""
    view_bytes: int
    """of the stored views of its input"""
    near_bytes: int
    """of what is known of which atoms are near; 0 where that is found anew in every step"""
    seconds: float


@dataclass
class _Pace:
    """What a layer took in the rehearsal, in seconds."""

    learning: float = 0.0
    """of the whole dictionary, as it will be"""
    computed: float = 0.0
    """of a training step for an image, asking which atoms are near included"""
    known: float = 0.0
    """of one where that is known"""
    shown: float = 0.0
    """of a pass without training for an image, asking included"""
    shown_again: float = 0.0
    """of one where the answer is known"""
    between: float = 0.0
    """of an epoch, beside its steps: its checkpoint, and its share of what a training is set up with"""
    epochs: list[tuple[float, float]] = field(default_factory=list)
    """of each, the steps and the validation"""
    sampled: int = 0
    """bytes of the sample"""
    memory: int = 0
    """bytes that the process had taken at most"""
    images: tuple[int, int] = 1, 1
    """that are trained and validated on"""

    def logged(self, layer: int, step: int, metrics: Mapping[str, float]) -> None:
        """Note an epoch."""
        if "epoch_seconds" in metrics:
            training = self.images[0] / metrics["images_per_second"]
            self.epochs.append((training, metrics["epoch_seconds"] - training))

    def layer_finished(self, *what: Any) -> None:
        """Nothing is drawn."""

    stack_finished = layer_finished


def plan(config: Config) -> list[Planned]:
    """Read the data, rehearse each layer on a few images, and print what a training will take.

    Raises SettingError where something does not fit.
    """
    starting, began = time.process_time(), time.perf_counter()  # importing is what this process has done so far
    data, device = load_data(config.data, config.seed), device_of(config.trainer)
    starting += time.perf_counter() - began
    check_fit(config, data.shape, len(data.train))
    if device.type == "cpu":
        ahead.finish()
        processes.share_cores(config.trainer.devices)
    few, stack, layers, paces = _few(config, data), FrozenStack(), list[Planned](), list[_Pace]()
    store = ViewStore(Features(views=1), few, config.seed, device)
    for number in progress(range(1, config.deepest + 1), "rehearsing"):
        if no_room(config, number, stack.shape(data.shape), len(data.train)):
            break  # which depth auto comes to
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            layer, pace = _rehearsed(config, number, stack, store, len(data.train))
        layers.append(_planned(config, number, layer, pace, [*layers], paces, data))
        stack, paces = stack.with_layer(layer.eval()).to(device), [*paces, pace]
    _print(layers)
    ending = len(data.test) * sum(pace.shown for pace in paces)
    total = in_words(starting + sum(one.seconds for one in layers) + ending)
    total += f", {config.trainer.processes} processes" if config.trainer.processes > 1 else ""
    most = _gigabytes(max(one.memory_bytes for one in layers))
    print(f"\nall of it: {total}, for {len(data.train)} training images; up to {most} GB of memory a process")
    print("MFLOP: in a step, for one image; views: GB of stored inputs; gates: GB of which atoms are near to those")
    return layers


def _few(config: Config, data: DataSet) -> DataSet:
    """A few images of each split, which are not augmented: so each comes again just as it was."""
    largest = max(config.layer_at(number).optimizer.batch_size for number in range(1, config.deepest + 1))

    def some(images: Images, count: int) -> Images:
        return images.subset(torch.linspace(0, len(images) - 1, min(count, len(images))).long())

    train, val = some(data.train, STEPS * largest), some(data.val, VALIDATED)
    return replace(data, train=train, val=val, test=some(data.test, 1), augmentation=Augmentation(False, 0))


def _rehearsed(
    config: Config, number: int, stack: FrozenStack, store: ViewStore, images: int
) -> tuple[ProbedLayer, _Pace]:
    """Train a layer on a few images that stand for so many; what it took."""
    own, classes = config.layer_at(number), len(store.data.classes)
    shape, pace = stack.shape(store.data.shape), _Pace()
    store.raise_to(stack)
    dictionary, pace.learning, pace.sampled = _learned(own, stack, store, shape, images)
    layer = build_layer(own, dictionary, shape, classes).to(store.device)
    # one process's part of a batch
    ask, batch = layer.layer.embedding.ask, own.optimizer.batch_size // config.trainer.processes
    inputs = LayerData(stack, store, batch, config.seed, ask, own.patch_size, EPOCHS, layer)
    pace.images = len(store.data.train) // batch * batch, len(store.data.val)
    x = torch.zeros(batch, *shape, device=store.device)
    for near in [None] if ask is None else [None, ask(x)]:  # first steps load what others use
        training_step(layer, x, classes, own.optimizer, near)()
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        optimizer, alone = replace(own.optimizer, epochs=EPOCHS), replace(config.trainer, devices=1, num_nodes=1)
        fit_layer(layer, number, inputs, optimizer, alone, Path(folder), [pace], number)
    store.known = inputs.known
    (pace.computed, pace.shown), *later = [
        (training / pace.images[0], checking / pace.images[1]) for training, checking in pace.epochs
    ]
    pace.known, pace.shown_again = (min(seconds) for seconds in zip(*later, strict=True))
    pace.memory = memory.peak()
    pace.between = (time.perf_counter() - began - sum(map(sum, pace.epochs))) / EPOCHS
    return layer, pace


def _learned(
    own: SingleLayer, stack: FrozenStack, store: ViewStore, shape: tuple[int, int, int], images: int
) -> tuple[PatchDictionary, float, int]:
    """A dictionary of a few patches, the seconds that one of as many as are wanted will take, and the few's bytes."""
    generator, stamps, rounds = torch.Generator().manual_seed(0), list[float](), 0

    def watched(numbers: Iterable[int]) -> Iterator[int]:
        nonlocal rounds
        rounds = len(list(numbers))
        for number in list(numbers)[:ROUNDS]:
            stamps.append(time.perf_counter())
            yield number

    patches = sample_inputs(stack, store, own.patch_size, own.sample, generator)
    if len(patches) < own.atoms:  # others like them
        more = patches[torch.randint(len(patches), (own.atoms - len(patches),), generator=generator)]
        patches = torch.cat([patches, more + 0.01 * patches.std() * torch.randn(more.shape, generator=generator)])
    h, w = (side - own.patch_size + 1 for side in shape[1:])
    share = min(own.sample, h * w * images) / len(patches)
    began = time.perf_counter()
    fit_whitening(patches, own.whitening.epsilon)
    whitening, began = time.perf_counter() - began, time.perf_counter()
    kind, sampled = own.dictionary, sample_bytes(*patches.shape)
    dictionary = learn_dictionary(patches, own.atoms, generator, kind, own.whitening, own.gate.metric, watched)
    took = time.perf_counter() - began
    a_round = (began + took - stamps[0]) / len(stamps) if stamps else 0.0
    beginning = max(0.0, took - whitening - a_round * len(stamps))
    return dictionary, share * (whitening + rounds * a_round) + beginning, sampled


def _planned(
    config: Config,
    number: int,
    layer: ProbedLayer,
    pace: _Pace,
    below: Sequence[Planned],
    paces: Sequence[_Pace],
    data: DataSet,
) -> Planned:
    """One layer, above those that are planned already, at their paces.

    Of several processes each has its part of a batch and of what its machine stores; the first learns the dictionary,
    and what they tell each other is left out.
    """
    own, epochs, n = config.layer_at(number), config.layer_at(number).optimizer.epochs, len(data.train)
    shape, changes = below[-1].output_shape if below else data.shape, data.augmentation.changes
    h, w = (side - own.patch_size + 1 for side in shape[1:])
    above = [config.layer_at(i).optimizer.epochs for i in range(2, config.deepest + 1)]
    wanted = min(config.features.views, max(above, default=0) if changes else 1)
    views, passes = wanted if below else 0, epochs + (wanted if number < config.deepest else 0)
    view = (2 * n * views + 4 * len(data.val)) * torch.Size(shape).numel() if views else 0
    ask = layer.layer.embedding.ask
    some = None if ask is None else ask(torch.zeros(1, *shape, device=next(layer.parameters()).device))
    size = 0 if some is None else some.numel() * some.itemsize
    crops = not below and changes
    pays = not crops or KnownCrops.pays(data.augmentation, data.shape, own.patch_size, passes)
    crop, sides = data.augmentation.crop, 1 + data.augmentation.flip
    again = max(0, min(views, passes - views)) if below else float(passes > 1)  # views that are asked for twice
    share = sides * (h + 2 * crop) * (w + 2 * crop) / (h * w) if crops else again
    recurs = not below or views > 0
    room = config.features.gigabytes * 1e9 - view
    needed = int(size * (share * n * recurs * pays + len(data.val)))
    fits = some is not None and needed <= room

    asking, through = pace.computed - pace.known, sum(one.shown for one in paces)
    if fits and recurs and pays:
        training = (share if crops else min(epochs, max(1, views))) * asking + epochs * pace.known
    else:
        training = epochs * (pace.computed + (0.0 if recurs else through))
    checking = pace.shown + (epochs - 1) * (pace.shown_again if fits else pace.shown)
    making = 0.0
    if views:
        remembered = below[-1].near_bytes and below[-1].near_bytes + view <= config.features.gigabytes * 1e9
        making = (views * n + len(data.val)) * (paces[-1].shown_again if remembered else paces[-1].shown)
    shared = (n * training + len(data.val) * checking) / config.trainer.processes + making / config.trainer.devices
    seconds = pace.learning + shared + epochs * pace.between
    seconds += min(n, SOME) * (through + pace.shown)

    trained = [parameter for parameter in layer.parameters() if parameter.requires_grad]
    behind = sum(p.numel() for name, p in layer.named_parameters() if "projection" in name) * layer.shape[1] ** 2
    behind += sum(p.numel() for p in layer.probe.parameters())
    count = min(own.sample, h * w * n)
    sample = sample_bytes(count, shape[0] * own.patch_size**2)
    stored, near = (size if size <= min(HELD, memory.total() // 4) else 0 for size in (view, needed if fits else 0))
    beside = stored + max(near, sample - pace.sampled if config.trainer.processes == 1 else 0)
    return Planned(
        *(number, shape, layer.shape, own.atoms, own.k),
        parameters=sum(parameter.numel() for parameter in trained),
        multiply_adds=2 * h * w * own.k * shape[0] * own.patch_size**2 + 3 * behind,
        sample_bytes=sample,
        memory_bytes=pace.memory + beside,
        view_bytes=view,
        near_bytes=needed if fits else 0,
        seconds=seconds,
    )


def _print(layers: Sequence[Planned]) -> None:
    table: list[tuple[str, ...]] = [
        ("layer", "input", "output", "atoms", "k", "parameters", "MFLOP", "views", "gates", "time")
    ]
    for one in layers:
        shapes = ("×".join(map(str, shape)) for shape in (one.input_shape, one.output_shape))
        room = (_gigabytes(size) for size in (one.view_bytes, one.near_bytes))
        sizes = str(one.atoms), str(one.neighbors), f"{one.parameters:,}", f"{2 * one.multiply_adds / 1e6:.1f}"
        table.append((str(one.layer), *shapes, *sizes, *room, in_words(one.seconds)))
    print_table(table)


def _gigabytes(size: int) -> str:
    return "-" if not size else f"{size / 1e9:.2g}"
