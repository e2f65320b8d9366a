"""How long a training step takes on this machine, measured in a few steps."""

import time
from statistics import median

import torch
import torch.nn.functional as F
from torch import nn

from layerwise.config import Layer, Optimizer
from layerwise.config.choices import OPTIMIZERS
from layerwise.nn.dictionary import learn_dictionary
from layerwise.nn.layer import ProbedLayer, build_layer

STEPS = 6


def untrained_layer(settings: Layer, shape: tuple[int, int, int], classes: int) -> ProbedLayer:
    """A layer on a dictionary of random patches: which atoms they are does not matter for its speed.

    Args:
        settings: of the layer.
        shape: (C, H, W) of its input.
        classes: number of classes.
    """
    generator = torch.Generator().manual_seed(0)
    patches = torch.randn(max(settings.atoms, 1000), shape[0] * settings.patch_size**2, generator=generator)
    dictionary = learn_dictionary(patches, settings.atoms, generator, "sampled", settings.whitening)
    return build_layer(settings, dictionary, shape, classes)


def seconds_per_step(
    layer: nn.Module, optimizer: Optimizer, shape: tuple[int, int, int], classes: int, device: torch.device
) -> float:
    """The median of a few training steps, on random numbers; the first does not count.

    Args:
        layer: maps an input and the logits below to output and logits.
        optimizer: how it is trained.
        shape: (C, H, W) of its input.
        classes: number of classes.
        device: what computes.
    """
    x = torch.randn(optimizer.batch_size, *shape, generator=torch.Generator().manual_seed(0)).to(device)
    layer.to(device)
    trained = [parameter for parameter in layer.parameters() if parameter.requires_grad]
    stepping = OPTIMIZERS[optimizer.name]([{"params": trained}], optimizer)
    labels, below = torch.arange(len(x), device=device) % classes, x.new_zeros(len(x), classes)
    seconds = []
    for _ in range(STEPS):
        start = time.perf_counter()
        loss = F.cross_entropy(layer(x, below)[1], labels)
        stepping.zero_grad()
        torch.autograd.backward(loss)
        stepping.step()
        loss.item()
        seconds.append(time.perf_counter() - start)
    return median(seconds[1:])
