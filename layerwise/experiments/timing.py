"""How long a layer's training step takes on this machine, measured in a few steps."""

import time
from dataclasses import replace
from statistics import median

import torch
import torch.nn.functional as F

from layerwise.config.layer import LayerConfig
from layerwise.config.run import OptimizerConfig
from layerwise.nn.dictionary import PatchDictionary
from layerwise.nn.layer import ProbedLayer
from layerwise.training.module import OPTIMIZERS

STEPS = 6


def seconds_a_step(
    config: LayerConfig,
    optimizer_config: OptimizerConfig,
    shape: tuple[int, int, int],
    classes: int,
    device: torch.device,
) -> float:
    """The median of a few training steps, on random numbers; the first does not count.

    Args:
        config: of the layer.
        optimizer_config: of its training.
        shape: (C, H, W) of its input.
        classes: number of classes.
        device: what computes.
    """
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(optimizer_config.batch_size, *shape, generator=generator).to(device)
    sample = torch.randn(max(config.atoms, 1000), shape[0] * config.patch_size**2, generator=generator).to(device)
    quick = replace(config, dictionary="sampled")  # which atoms they are does not matter
    layer = ProbedLayer(PatchDictionary.fit(sample, quick, generator), config, shape, classes).to(device)
    trained = [parameter for parameter in layer.parameters() if parameter.requires_grad]
    optimizer = OPTIMIZERS[optimizer_config.name]([{"params": trained}], optimizer_config)
    labels, below = torch.arange(len(x), device=device) % classes, x.new_zeros(len(x), classes)
    seconds = []
    for _ in range(STEPS):
        start = time.perf_counter()
        loss = F.cross_entropy(layer(x, below)[1], labels)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        loss.item()
        seconds.append(time.perf_counter() - start)
    return median(seconds[1:])
