"""Steps of a layer: what they are timed on, and how.

Shapes: B batch, C channels, H W side.
"""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from layerwise import memory
from layerwise.config import Layer, Optimizer
from layerwise.config.choices import OPTIMIZERS
from layerwise.data.images import Augmentation, Images, to_input
from layerwise.data.splits import DataSet
from layerwise.nn.layer import ProbedLayer, build_layer, learn_for

SIDE, CLASSES, HELD = 32, 10, 64
"""of images, in pixels; that they are said to be of; how many are held out"""
SHORTEST = 1.0
"""seconds of a turn, so that most steps follow one of their own kind, as in training"""
TIMES = 6
"""that a step is made for an estimate"""


def natural_images(count: int, generator: torch.Generator) -> Tensor:
    """Smooth random images, (count, 3, 32, 32) in [-1, 1]: as in photographs, neighboring pixels are alike."""
    coarse = torch.rand(count, 3, SIDE // 4, SIDE // 4, generator=generator)
    smooth = F.interpolate(coarse, size=(SIDE, SIDE), mode="bicubic", align_corners=False)
    noise = 0.1 * torch.rand(smooth.shape, generator=generator)
    return to_input(((smooth + noise) * 230).clamp(0, 255).byte())


def natural_data(count: int) -> DataSet:
    """So many of them for training, and 64 that are held out, in classes that mean nothing."""
    pixels = ((natural_images(count + HELD, torch.Generator().manual_seed(0)) + 1) * 127.5).byte()
    images = Images(pixels, torch.arange(len(pixels)) % CLASSES)
    train, held = images.subset(torch.arange(count)), images.subset(torch.arange(count, count + HELD))
    return DataSet([str(i) for i in range(CLASSES)], train, held, held, Augmentation(flip=True, crop=4))


def natural_inputs(count: int, shape: tuple[int, int, int], generator: torch.Generator) -> Tensor:
    """Images, or smooth features of another shape (C, H, W): neighbors are alike there, too."""
    if shape == (3, SIDE, SIDE):
        return natural_images(count, generator)
    c, h, w = shape
    return 3 * F.avg_pool2d(torch.randn(count, c, h + 4, w + 4, generator=generator), 5, 1)


def untrained_layer(settings: Layer, shape: tuple[int, int, int], classes: int, number: int = 1) -> ProbedLayer:
    """Layer `number` for inputs (C, H, W), of random patches: which its atoms are does not matter for its speed."""
    generator = torch.Generator().manual_seed(0)
    patches = torch.randn(max(settings.atoms, 1000), shape[0] * settings.patch_size**2, generator=generator)
    dictionary = learn_for(settings, number, patches, generator, kind="sampled")
    return build_layer(settings, dictionary, shape, classes, number)


def training_step(
    layer: Any, x: Tensor, classes: int, settings: Optimizer, near: Tensor | None = None
) -> Callable[[], Tensor]:
    """A whole step on a batch `x` (B, C, H, W), where the layer is, too: forward, loss, backward, optimizer.

    `near`, where it is known, is what the embedding's `ask` says of x. A layer has `said`, as `ProbedLayer`.
    """
    trained = [parameter for parameter in layer.parameters() if parameter.requires_grad]
    optimizer = OPTIMIZERS[settings.name]([{"params": trained}], settings)
    labels, below = torch.arange(len(x), device=x.device) % classes, x.new_zeros(len(x), classes)

    def step() -> Tensor:
        layer.train()
        loss = F.cross_entropy(layer.said(x, below, near), labels)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        return loss

    return step


def evaluation(layer: Any, x: Tensor, classes: int, near: Tensor | None = None) -> Callable[[], object]:
    """A pass without gradients on a batch, as `training_step` says."""
    below = x.new_zeros(len(x), classes)
    return torch.no_grad()(lambda: layer.eval().said(x, below, near))


def alternate(tasks: Mapping[str, Callable[[], object]], turns: int, device: torch.device) -> dict[str, float]:
    """Time tasks in turns, after two warm-ups each, short ones several times a turn; gives median seconds."""

    def timed(task: Callable[[], object]) -> float:
        start = time.perf_counter()
        task()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - start

    memory.keep_what_is_freed()  # as training does
    warm = {name: max(timed(task) for _ in range(2)) for name, task in tasks.items()}
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    for _ in range(turns):
        for name, task in tasks.items():
            repeats = min(10, max(1, round(SHORTEST / warm[name])))
            seconds[name] += [timed(task) for _ in range(repeats)]
    return {name: median(values) for name, values in seconds.items()}


def peak_memory(task: Callable[[], object], device: torch.device) -> int | None:
    """Do a task and tell the most bytes held at once meanwhile: allocated on a GPU, on a CPU by the whole process.

    None where the system does not tell (anything but Linux).
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        task()
        return torch.cuda.max_memory_allocated(device)
    try:
        Path("/proc/self/clear_refs").write_text("5")
        told = True
    except OSError:
        told = False
    task()
    lines = Path("/proc/self/status").read_text().splitlines() if told else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), None)


def median_seconds(task: Callable[[], object], device: torch.device) -> float:
    """The median of a few times; the first does not count."""
    memory.keep_what_is_freed()  # as training does
    seconds = []
    for _ in range(TIMES):
        start = time.perf_counter()
        task()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - start)
    return median(seconds[1:])


def seconds_per_step(
    layer: nn.Module, optimizer: Optimizer, shape: tuple[int, int, int], classes: int, device: torch.device
) -> float:
    """The median of a few training steps, on random numbers of shape (C, H, W)."""
    x = torch.randn(optimizer.batch_size, *shape, generator=torch.Generator().manual_seed(0)).to(device)
    return median_seconds(training_step(layer.to(device), x, classes, optimizer), device)
