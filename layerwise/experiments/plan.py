"""What a training will take, layer by layer: computed from the settings, and from a few steps on this machine.

Shapes: n training images, C channels, H W side, h w positions, S numbers that say which atoms are near a position.
"""

import time
from dataclasses import dataclass

import torch

from layerwise import ahead
from layerwise.api import device_of
from layerwise.config import Config
from layerwise.console import in_words, print_table, progress
from layerwise.data.known import KnownCrops
from layerwise.data.splits import DataSet, load_data
from layerwise.experiments.benchmark.steps import evaluation, median_seconds, natural_inputs, training_step
from layerwise.nn.dictionary import learn_dictionary
from layerwise.nn.layer import build_layer
from layerwise.ops import sample_patches
from layerwise.training.depth import check_fit, next_shape, sample_bytes

SAMPLE = 1 << 15
"""patches, at most, that a dictionary is tried on"""


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
    view_bytes: int
    """of the stored views of its input"""
    near_bytes: int
    """of what is known of which atoms are near; 0 where that is found anew in every step"""
    seconds: float


def plan(config: Config) -> list[Planned]:
    """Read the data, try a few steps of each layer, and print what a training will take.

    Raises SettingError where something does not fit.
    """
    data, device = load_data(config.data, config.seed), device_of(config.trainer)
    check_fit(config, data.shape, len(data.train))
    if device.type == "cpu":
        ahead.finish()
    layers, shape, below = list[Planned](), data.shape, 0.0
    for number in progress(range(1, config.deepest + 1), "trying steps"):
        planned, below = _planned(config, number, shape, data, below, device)
        layers.append(planned)
        shape = next_shape(config, number, shape, len(data.train))
    table: list[tuple[str, ...]] = [
        ("layer", "input", "output", "atoms", "k", "parameters", "MFLOP", "views", "gates", "time")
    ]
    for one in layers:
        shapes = ("×".join(map(str, shape)) for shape in (one.input_shape, one.output_shape))
        room = (_gigabytes(size) for size in (one.view_bytes, one.near_bytes))
        sizes = str(one.atoms), str(one.neighbors), f"{one.parameters:,}", f"{2 * one.multiply_adds / 1e6:.1f}"
        table.append((str(one.layer), *shapes, *sizes, *room, in_words(one.seconds)))
    print_table(table)
    total = in_words(sum(one.seconds for one in layers))
    memory = _gigabytes(max(one.sample_bytes for one in layers))
    print(f"\nall of it: {total}, for {len(data.train)} training images; up to {memory} GB for sampled patches")
    print("MFLOP: in a step, for one image; views: GB of stored inputs; gates: GB of which atoms are near to those")
    return layers


def _planned(
    config: Config, number: int, shape: tuple[int, int, int], data: DataSet, below: float, device: torch.device
) -> tuple[Planned, float]:
    """One layer, where a batch of as many images takes `below` seconds to make its input; and with the layer's own."""
    own, optimizer, n = config.layer_at(number), config.layer_at(number).optimizer, len(data.train)
    batch, epochs, generator = optimizer.batch_size, optimizer.epochs, torch.Generator().manual_seed(0)
    x = natural_inputs(batch, shape, generator).to(device)
    h, w = (side - own.patch_size + 1 for side in shape[1:])
    count = min(own.sample, h * w * n)
    patches = sample_patches([x], own.patch_size, min(count, SAMPLE), batch, generator)
    start = time.perf_counter()
    dictionary = learn_dictionary(patches, own.atoms, generator, own.dictionary, own.whitening, own.gate.metric)
    learning = (time.perf_counter() - start) * count / len(patches)
    layer = build_layer(own, dictionary, shape, len(data.classes)).to(device)

    ask = layer.layer.embedding.ask
    near = None if ask is None else ask(x)
    steps = [training_step(layer, x, len(data.classes), optimizer, known) for known in (None, near)]
    passes = [evaluation(layer, x, len(data.classes), known) for known in (None, near)]
    computed, known, shown, shown_again = (median_seconds(task, device) for task in (*steps, *passes))

    changes = data.augmentation.changes
    views = min(config.features.views, epochs if changes else 1) if number > 1 else 0
    view = (2 * n * views + 4 * len(data.val)) * torch.Size(shape).numel() if views else 0
    size = 0 if near is None else near[0].numel() * near.itemsize
    crops = not views and number == 1 and changes
    pays = not crops or KnownCrops.pays(data.augmentation, data.shape, own.patch_size, epochs)
    crop, sides = data.augmentation.crop, 1 + data.augmentation.flip
    share = sides * (h + 2 * crop) * (w + 2 * crop) / (h * w) if crops else max(1, views)
    recurs = number == 1 or views > 0
    room = config.features.gigabytes * 1e9 - view
    needed = int(size * (share * n * recurs * pays + len(data.val)))
    fits = near is not None and needed <= room

    if fits and crops and pays:
        training = share * (computed - known) + epochs * known
    elif fits and recurs and pays:
        training = views * computed + max(0, epochs - views) * known if views else computed + (epochs - 1) * known
    else:
        training = epochs * (computed + (0.0 if recurs else below))
    checking = shown + (epochs - 1) * (shown_again if fits else shown)
    making = below * (views * n + len(data.val)) if views else 0.0
    seconds = learning + n / batch * training + (len(data.val) * checking + making) / batch

    trained = [parameter for parameter in layer.parameters() if parameter.requires_grad]
    behind = sum(p.numel() for name, p in layer.named_parameters() if "projection" in name) * layer.shape[1] ** 2
    behind += sum(p.numel() for p in layer.probe.parameters())
    planned = Planned(
        *(number, shape, layer.shape, own.atoms, own.k),
        parameters=sum(parameter.numel() for parameter in trained),
        multiply_adds=2 * h * w * own.k * shape[0] * own.patch_size**2 + 3 * behind,
        sample_bytes=sample_bytes(count, shape[0] * own.patch_size**2),
        view_bytes=view,
        near_bytes=needed if fits else 0,
        seconds=seconds,
    )
    return planned, shown + (0.0 if views else below)


def _gigabytes(size: int) -> str:
    return "-" if not size else f"{size / 1e9:.2g}"
