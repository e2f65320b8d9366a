"""How long a layer's training step takes; against the plain way of writing it and the matrix products it stands for.

All run in one process, in turns, so that a noisy machine is as noisy for each; figures are medians.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from layerwise import ops
from layerwise.config import Layer, Optimizer
from layerwise.experiments.benchmark.steps import (
    CLASSES,
    alternate,
    evaluation,
    natural_inputs,
    peak_memory,
    training_step,
)
from layerwise.nn.dictionary import PatchDictionary, learn_dictionary
from layerwise.nn.gates import Gate
from layerwise.nn.layer import build_layer
from layerwise.ops import extract_patches, reference, sample_patches
from layerwise.ops.bounded import NUMBERS

PATCH, POOL = 5, 4
ON_GPU = 1 << 28  # numbers of a product there, at most: a gigabyte
HUGE = 2048  # atoms above which only what keeps no whole maps is measured: a batch of them takes gigabytes, and minutes
CHECKED = 2  # images on which a backend is compared with the reference


@dataclass
class Row:
    """The training step of one layer by one backend."""

    atoms: int
    neighbors: int
    batch: int
    patch_size: int
    pool: int
    shape: tuple[int, int, int]
    """(C, H, W) of the input"""
    backend: str
    gates: str
    """computed in the step, or known before it: which atoms are near"""
    device: str
    images_per_second: float
    vs_plain: float | None
    """images a second divided by those of the plain step; None where that would not fit into memory"""
    vs_computed: float
    """the same against our own step where the gates are computed"""
    vs_floor: float
    """the same against three products of (positions × P) by (P × N), in float32: 1 is as fast as they alone"""
    vs_training: float
    """images a second of evaluating the layer, divided by those of its training step"""
    peak_bytes: int | None
    """in one step: of the process on a CPU, allocated on a GPU; None where the system does not tell"""
    agrees: bool
    """gates and gradient with those of the reference in float64"""


Embed = Callable[[Tensor, Tensor, Tensor, int, int, int], Tensor]
KNOWN = "known"
"""our own step on what is known already"""


def embed_plain(x: Tensor, scorer: Tensor, maps: Tensor, patch_size: int, neighbors: int, pool: int) -> Tensor:
    """The baseline: the embedding as it is usually written, and as the authors of the method do.

    Distances by a convolution, the k-th smallest over the channels, a mask, the maps by a second convolution. Of
    equally near atoms more than k may pass. For shapes see `layerwise.ops.embed`.
    """

    def convolve(weight: Tensor) -> Tensor:
        kernels = weight[:-1].T.reshape(-1, patch_size, patch_size, x.shape[1]).permute(0, 3, 1, 2).contiguous()
        return F.conv2d(x, kernels, weight[-1])

    distances = convolve(scorer)
    mask = distances <= distances.kthvalue(neighbors, dim=1, keepdim=True).values
    return F.avg_pool2d(mask * convolve(maps), pool, ceil_mode=True)


def embed_own(
    x: Tensor, scorer: Tensor, maps: Tensor, patch_size: int, neighbors: int, pool: int, near: Tensor | None = None
) -> Tensor:
    """Our own, as a layer has it: without the zeros where most are, which are put in here."""
    if not ops.gathers(x, scorer.shape[1], neighbors, pool):
        return ops.embed(x, scorer, maps, patch_size, neighbors, pool, near)
    values, which = ops.gather(x, scorer, maps, patch_size, neighbors, pool, near)
    dense = values.new_zeros(*values.shape[:3], scorer.shape[1]).scatter_add(3, which.long(), values)
    return dense.permute(0, 3, 1, 2)


class _Nearest(Gate):
    """The layer's gate, computed by a function of choice."""

    embed: Embed

    def pooled(self, x: Tensor, dictionary: PatchDictionary, maps: Tensor | None, window: int) -> Tensor:
        assert maps is not None
        return self.embed(x, dictionary.scorer, maps, self.patch_size, self.neighbors, window)


def first_layer(atoms: int, neighbors: int) -> Layer:
    """A layer of 5×5 patches and windows of 4×4."""
    return Layer(patch_size=PATCH, atoms=atoms, neighbors=neighbors, pool=POOL, channels=32)


def measure_layer(
    settings: Layer, shape: tuple[int, int, int], batch: int, device: torch.device, turns: int
) -> list[Row]:
    """The rows of one layer on inputs of a shape: the plain step, the reference, and the device's own backend."""
    generator = torch.Generator().manual_seed(0)
    size, atoms, neighbors = settings.patch_size, settings.atoms, settings.k
    x = natural_inputs(batch, shape, generator).to(device)
    sample = sample_patches([x], size, max(4096, 2 * atoms), batch, generator)
    dictionary = learn_dictionary(sample, atoms, generator, "sampled", settings.whitening)
    embeds: dict[str, Embed] = {"plain": embed_plain, "reference": reference.embed, device.type: embed_own}
    if atoms > HUGE:
        embeds = {device.type: embed_own}
    near = ops.near(x, dictionary.scorer, size, neighbors)
    embeds[KNOWN] = partial(embed_own, near=near[:CHECKED])
    peaks, tasks = {}, dict[str, Callable[[], object]](floor=_products(x, dictionary.scorer, size))
    for name, embed in embeds.items():
        layer = build_layer(settings, dictionary, shape, CLASSES)
        if name in ("plain", "reference"):
            layer.layer.embedding.gate = gate = _Nearest(size, neighbors)
            gate.embed = embed
        layer.to(device)
        known = near if name == KNOWN else None
        tasks[name] = training_step(layer, x, CLASSES, Optimizer(learning_rate=1e-5), known)
        tasks[f"{name}, evaluation"] = evaluation(layer, x, CLASSES, known)
        peaks[name] = peak_memory(tasks[name], device)
    seconds = alternate(tasks, turns, device)
    return [
        Row(
            *(atoms, neighbors, batch, size, settings.pool, shape, device.type if name == KNOWN else name),
            *("known" if name == KNOWN else "computed", device.type),
            images_per_second=batch / seconds[name],
            vs_plain=seconds["plain"] / seconds[name] if "plain" in seconds else None,
            vs_computed=seconds[device.type] / seconds[name],
            vs_floor=seconds["floor"] / seconds[name],
            vs_training=seconds[name] / seconds[f"{name}, evaluation"],
            peak_bytes=peaks[name],
            agrees=agrees(embed, x[:CHECKED], dictionary.scorer, size, neighbors, settings.pool),
        )
        for name, embed in embeds.items()
    ]


def _products(x: Tensor, scorer: Tensor, patch_size: int) -> Callable[[], None]:
    """The floor: distances, maps, and the maps' gradient as matrix products over rows that are cut already."""
    rows = extract_patches(x, patch_size).flatten(0, 2)
    weight, maps = scorer[:-1], torch.randn_like(scorer[:-1])
    step = max(1, (ON_GPU if x.is_cuda else NUMBERS) // scorer.shape[1])
    first, second = (torch.empty(min(step, len(rows)), scorer.shape[1], device=x.device) for _ in range(2))

    def multiply() -> None:
        gradient = torch.zeros_like(maps)
        for part in torch.split(rows, step):
            torch.mm(part, weight, out=first[: len(part)])
            torch.mm(part, maps, out=second[: len(part)])
            gradient.addmm_(part.T, second[: len(part)])

    return multiply


def agrees(embed: Embed, x: Tensor, scorer: Tensor, patch_size: int, neighbors: int, pool: int) -> bool:
    """Whether gates, output and gradient are the reference's in float64, but for a few near ties.

    Two atoms whose distances differ by less than float32 can tell may be gated either way: one gate in 100,000 may
    differ, and by it output and gradient by one part in 1,000.
    """
    generator = torch.Generator().manual_seed(1)
    maps = torch.randn(scorer.shape, generator=generator).to(x)
    ones = torch.zeros_like(maps)
    ones[-1] = 1  # as maps, at windows of one position, they show the gate

    def run(embed: Embed, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
        inputs, trained = (x.to(dtype), scorer.to(dtype)), maps.to(dtype).requires_grad_()
        out = embed(*inputs, trained, patch_size, neighbors, pool)
        (gradient,) = torch.autograd.grad(out.square().sum(), trained)
        return embed(*inputs, ones.to(dtype), patch_size, neighbors, 1), out.detach(), gradient

    gates, *values = run(embed, torch.float32)
    expected_gates, *expected = run(reference.embed, torch.float64)
    close = all(float((a - b).norm() / b.norm()) < 1e-3 for a, b in zip(values, expected, strict=True))
    return close and float((gates != expected_gates).double().mean()) <= 1e-5
