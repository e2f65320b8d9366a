"""A short training of a few images, as a training goes: with the same loops, files, processes; what each part takes.

Shapes: C channels, H W side, h w positions.
"""

import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from layerwise import memory, processes
from layerwise.config import Config, SingleLayer
from layerwise.data.images import Augmentation, Images
from layerwise.data.splits import DataSet
from layerwise.data.views import ViewStore
from layerwise.experiments.benchmark.steps import training_step
from layerwise.nn.dictionary import PatchDictionary
from layerwise.nn.layer import ProbedLayer, build_layer, learn_for
from layerwise.nn.stack import FrozenStack
from layerwise.nn.whitening import fit_whitening
from layerwise.processes import by_first
from layerwise.training.depth import sample_bytes
from layerwise.training.fit import fit_layer
from layerwise.training.inputs import LayerData, sample_inputs

STEPS, VALIDATED = 8, 512
"""of an epoch of the rehearsal, and the images, at most, that it validates on"""
EPOCHS = 3
"""of it: the first asks which atoms are near, the others know"""
ROUNDS = 3
"""of k-means in it"""


@dataclass
class Pace:
    """What a layer took in the rehearsal, in seconds: of an image, those of all processes of this machine together."""

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
    """bytes that the first process, which learns dictionaries, had taken at most"""
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


def few_of(config: Config, data: DataSet) -> DataSet:
    """A few images of each split, which are not augmented: so each comes again just as it was."""
    largest = max(config.layer_at(number).optimizer.batch_size for number in range(1, config.deepest + 1))

    def some(images: Images, count: int) -> Images:
        return images.subset(torch.linspace(0, len(images) - 1, min(count, len(images))).long())

    train, val = some(data.train, STEPS * largest), some(data.val, VALIDATED)
    return replace(data, train=train, val=val, test=some(data.test, 1), augmentation=Augmentation(False, 0))


def rehearsed(
    config: Config, number: int, stack: FrozenStack, store: ViewStore, images: int
) -> tuple[ProbedLayer, Pace]:
    """Train a layer on a few images that stand for so many; what it took."""
    own, classes = config.layer_at(number), len(store.data.classes)
    shape, pace = stack.shape(store.data.shape), Pace()
    store.raise_to(stack)
    dictionary, pace.learning, pace.sampled = by_first(_learned, own, number, stack, store, shape, images)
    layer = build_layer(own, dictionary, shape, classes, number).to(store.device)
    # this machine's part of a batch
    ask, batch = layer.layer.embedding.ask, own.optimizer.batch_size // config.trainer.num_nodes
    inputs = LayerData(stack, store, batch, config.seed, ask, own.patch_size, EPOCHS, layer)
    pace.images = len(store.data.train) // batch * batch, len(store.data.val)
    x = torch.zeros(batch // processes.count(), *shape, device=store.device)
    for near in [None] if ask is None else [None, ask(x)]:  # first steps load what others use
        training_step(layer, x, classes, own.optimizer, near)()
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        optimizer, here = replace(own.optimizer, epochs=EPOCHS), replace(config.trainer, num_nodes=1)
        listeners = [pace] if processes.rank() == 0 else []
        fit_layer(layer, number, inputs, optimizer, here, Path(folder), listeners, number)
    store.known = inputs.known
    return layer, by_first(_measured, pace, time.perf_counter() - began)


def _measured(pace: Pace, seconds: float) -> Pace:
    """What is known once it is trained, in so many seconds."""
    (pace.computed, pace.shown), *later = [
        (training / pace.images[0], checking / pace.images[1]) for training, checking in pace.epochs
    ]
    pace.known, pace.shown_again = (min(seconds) for seconds in zip(*later, strict=True))
    pace.memory = memory.peak()
    pace.between = (seconds - sum(map(sum, pace.epochs))) / EPOCHS
    return pace


def _learned(
    own: SingleLayer, number: int, stack: FrozenStack, store: ViewStore, shape: tuple[int, int, int], images: int
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
        noise = torch.randn(more.shape, generator=generator).to(more)
        patches = torch.cat([patches, more + 0.01 * patches.std() * noise])
    h, w = (side - own.patch_size + 1 for side in shape[1:])
    share = min(own.sample, h * w * images) / len(patches)
    began = time.perf_counter()
    fit_whitening(patches, own.whitening.epsilon)
    whitening, began = time.perf_counter() - began, time.perf_counter()
    sampled, dictionary = sample_bytes(*patches.shape), learn_for(own, number, patches, generator, watched)
    took = time.perf_counter() - began
    a_round = (began + took - stamps[0]) / len(stamps) if stamps else 0.0
    beginning = max(0.0, took - whitening - a_round * len(stamps))
    return dictionary, share * (whitening + rounds * a_round) + beginning, sampled
