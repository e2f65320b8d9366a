"""What a training will take, layer by layer: computed from the settings, and from a short rehearsal on this machine.

A rehearsal trains every layer on a few images, for a few epochs, as a training does: with the same data, the same
loops, the same files, in as many processes on this machine. What it takes for an image, a sampled patch and an epoch is
multiplied by how many there will be. What several machines tell each other is left out.

Shapes: n training images, C channels, H W side, h w positions, S numbers that say which atoms are near a position.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from layerwise import ahead
from layerwise.api import device_of
from layerwise.config import Config, Features
from layerwise.console import in_words, print_table, progress, silenced
from layerwise.data.crops import Origin
from layerwise.data.known import KnownCrops
from layerwise.data.rows import is_held
from layerwise.data.splits import DataSet, load_data
from layerwise.data.views import ViewStore
from layerwise.experiments.rehearsal import Pace, few_of, rehearsed
from layerwise.launcher import together
from layerwise.nn.layer import ProbedLayer
from layerwise.nn.stack import FrozenStack
from layerwise.processes import agreed, in_turn
from layerwise.training.depth import check_data, no_room, sample_bytes, views_seen
from layerwise.training.stack import SOME


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
    """of a training step for one image, forward and backward, at most: for each near atom of a position, or each at
    all with another gate than nearest, and what is behind the embedding"""
    sample_bytes: int
    """of the patches that the dictionary is learned from, and of what is held beside them"""
    memory_bytes: int
    """that a process will have taken, at most, once the layer is trained; of a GPU's nothing is said"""
    view_bytes: int
    """of the stored views of its input"""
    near_bytes: int
    """of what is known of which atoms are near; 0 where that is found anew in every step"""
    seconds: float


def plan(config: Config) -> list[Planned]:
    """Read the data, rehearse each layer on a few images, and print what a training will take.

    The processes that would train on this machine are started for that. Raises SettingError where something does not
    fit.
    """
    imported, began = time.process_time(), time.perf_counter()  # importing is what this process has done so far
    with together(replace(config.trainer, num_nodes=1)):
        return _plan(config, imported - began)


def _plan(config: Config, since: float) -> list[Planned]:
    """Do what `plan` does, in each of the processes that there are; starting began `since`."""
    device = agreed(device_of, config.trainer)
    if device.type == "cpu":
        in_turn(ahead.finish)
    data = agreed(load_data, config.data, config.seed)
    starting = time.perf_counter() + since
    layers, shown = planned(config, data, device)
    _print(layers)
    ending = len(data.test) * config.trainer.devices * shown  # by the first process alone
    total = in_words(starting + sum(one.seconds for one in layers) + ending)
    total += f", {config.trainer.processes} processes" if config.trainer.processes > 1 else ""
    most = _gigabytes(max(one.memory_bytes for one in layers))
    print(f"\nall of it: {total}, for {len(data.train)} training images; up to {most} GB of memory a process")
    print("MFLOP: in a step, for one image; views: GB of stored inputs; gates: GB of which atoms are near to those")
    return layers


def planned(config: Config, data: DataSet, device: torch.device) -> tuple[list[Planned], float]:
    """What each layer will take, and the seconds in which this machine shows the whole stack one image.

    Rehearses in the processes that there are. Raises SettingError where something does not fit.
    """
    agreed(check_data, config, data)
    few, stack, layers, paces = few_of(config, data), FrozenStack(), list[Planned](), list[Pace]()
    store = ViewStore(Features(views=1), few, config.seed, device)
    features, mirrored = replace(config.features, views=views_seen(config)), config.layer_at(1).mirror
    whole = ViewStore(features, data, config.seed, device, mirrored)  # of which nothing is made
    for number in progress(range(1, config.deepest + 1), "rehearsing"):
        below = stack.under(config.layer_at(number))
        if no_room(config, number, below.shape(data.shape), len(data.train)):
            break  # which depth auto comes to
        with silenced():
            layer, pace = rehearsed(config, number, below, store, len(data.train))
            plan = whole.plans.of(below) if len(below.column) else []
        under = len(layers) - len(below.column)  # of other columns
        layers.append(
            _planned(config, number, layer, pace, layers[under:], paces[under:], whole, plan[-1] if plan else [])
        )
        stack, paces = stack.with_layer(layer.eval()).to(device), [*paces, pace]
    return layers, sum(pace.shown for pace in paces)


def _planned(
    config: Config,
    number: int,
    layer: ProbedLayer,
    pace: Pace,
    below: Sequence[Planned],
    paces: Sequence[Pace],
    store: ViewStore,
    views: Sequence[Origin],
) -> Planned:
    """One layer, above those of its column that are planned already, at their paces, on such views of their output."""
    own, epochs, data, n = (
        config.layer_at(number),
        config.layer_at(number).optimizer.epochs,
        store.data,
        len(store.data.train),
    )
    shape, augmentation = below[-1].output_shape if below else data.shape, store.augmentation
    h, w = (side - own.patch_size + 1 for side in shape[1:])
    passes = epochs + max(1, len(views)) * config.hands_on(number)
    whole = sum((shape[1] + one.margin) * (shape[2] + one.margin) for one in views) / (shape[1] * shape[2])
    view = int((2 * n * whole + 4 * len(data.val)) * torch.Size(shape).numel()) if views else 0
    if views:
        told = store.plans.told(own.probe.logits, torch.float16)
        view += 4 * (n * told * sum(one.crops for one in views) + len(data.val) * len(data.classes))
    ask = layer.layer.embedding.ask
    some = None if ask is None else ask(torch.zeros(1, *shape, device=next(layer.parameters()).device))
    size = 0 if some is None else some.numel() * some.itemsize
    margins = [one.margin for one in views] if below else [2 * augmentation.crop] * (1 + augmentation.flip)
    crops = bool(margins and margins[0]) or (not below and augmentation.flip)
    times = passes // max(1, len(views)) if below else passes  # that one is shown
    pays = not crops or KnownCrops.pays(margins[0], len(margins) if not below else 1, shape, own.patch_size, times)
    again = max(0, min(len(views), passes - len(views))) if below else float(passes > 1)  # that are asked for twice
    share = sum((h + margin) * (w + margin) for margin in margins) / (h * w) if crops else again
    recurs = not below or len(views) > 0
    room = config.features.gigabytes * 1e9 - view
    needed = int(size * (share * n * recurs * pays + len(data.val)))
    fits = some is not None and needed <= room

    asking, through = pace.computed - pace.known, sum(one.shown for one in paces)
    if fits and recurs and pays:
        training = (share if crops else min(epochs, max(1, len(views)))) * asking + epochs * pace.known
    else:
        training = epochs * (pace.computed + (0.0 if recurs else through))
    checking = pace.shown + (epochs - 1) * (pace.shown_again if fits else pace.shown)
    making = 0.0
    if views:
        remembered = below[-1].near_bytes and below[-1].near_bytes + view <= config.features.gigabytes * 1e9
        making = (whole * n + len(data.val)) * (paces[-1].shown_again if remembered else paces[-1].shown)
    shared = (n * training + len(data.val) * checking) / config.trainer.num_nodes  # each makes all views for itself
    seconds = pace.learning + making + shared + epochs * pace.between
    seconds += min(n, SOME) * config.trainer.devices * (through + pace.shown)  # by the first alone

    trained = [parameter for parameter in layer.parameters() if parameter.requires_grad]
    mapped = own.k if own.gate.kind == "nearest" else own.atoms
    behind = own.atoms * (own.channels or 0) * math.prod(layer.shape[1:])
    behind += sum(p.numel() for p in layer.probe.parameters())
    count = min(own.sample, h * w * n)
    sample = sample_bytes(count, shape[0] * own.patch_size**2)
    stored, near = (size if is_held(size) else 0 for size in (view, needed if fits else 0))
    beside = stored + max(near, sample - pace.sampled)
    return Planned(
        *(number, shape, layer.shape, own.atoms, own.k),
        parameters=sum(parameter.numel() for parameter in trained),
        multiply_adds=2 * h * w * mapped * shape[0] * own.patch_size**2 + 3 * behind,
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
