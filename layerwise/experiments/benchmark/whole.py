"""Layers of a recipe: what it brings to ask once which atoms are near, what threads do, and against a convolution."""

import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import nn

from layerwise.config import SingleLayer, Trainer
from layerwise.console import silenced
from layerwise.data.views import ViewStore
from layerwise.experiments.benchmark.steps import (
    CLASSES,
    alternate,
    natural_data,
    natural_inputs,
    training_step,
    untrained_layer,
)
from layerwise.nn.layer import ProbedLayer, build_layer
from layerwise.nn.stack import FrozenStack
from layerwise.parsing import RECIPES, read_config
from layerwise.training.fit import fit_layer
from layerwise.training.inputs import LayerData
from layerwise.training.stack import learn

SHAPES = {1: (3, 32, 32), 2: (64, 14, 14)}
"""of the inputs of the recipe's layers, (C, H, W)"""
QUICK = {1: SHAPES[1]}


def measure_known(quick: bool, device: torch.device) -> list[str]:
    """Train layers 1 and 2 of the recipe whole, once asking at first sight which atoms are near, once in every step.

    The seconds hold what finding out takes, and everything else that training does after the dictionary.
    """
    count, epochs = (64, 2) if quick else (2000, 10)
    config = read_config(RECIPES / "image_folder.yaml")
    data = natural_data(count)
    mirrored = config.layer_at(1).mirror
    store, stack, lines = ViewStore(config.features, data, config.seed, device, mirrored), FrozenStack(), []
    for number in QUICK if quick else SHAPES:
        own = config.layer_at(number)
        own = replace(own, optimizer=replace(own.optimizer, epochs=epochs))
        with silenced():
            store.raise_to(stack)
            dictionary = learn(own, number, stack, store, config.seed)
            seconds = {}
            for known in (False, True):
                torch.manual_seed(0)
                layer = build_layer(own, dictionary, stack.shape(data.shape), CLASSES, number).to(device)
                seconds[known] = _train(layer, number, stack, store, own, config.trainer, known)
        stack = stack.with_layer(layer).to(device)
        lines.append(
            f"layer {number} of image_folder, {epochs} epochs of {count:,} images, making included: "
            f"gates known {seconds[True]:.1f} s, computed {seconds[False]:.1f} s: "
            f"known ÷ computed {seconds[True] / seconds[False]:.2f}"
        )
    return lines


def _train(
    layer: ProbedLayer,
    number: int,
    stack: FrozenStack,
    store: ViewStore,
    own: SingleLayer,
    trainer: Trainer,
    known: bool,
) -> float:
    """Seconds of a layer's training."""
    start = time.perf_counter()
    ask = layer.layer.embedding.ask if known else None
    inputs = LayerData(stack, store, own.optimizer.batch_size, 0, ask, own.patch_size, own.optimizer.epochs)
    with tempfile.TemporaryDirectory() as folder:
        fit_layer(layer, number, inputs, own.optimizer, trainer, Path(folder))
    return time.perf_counter() - start


def measure_threads(quick: bool) -> list[str]:
    """A step of layers 1 and 2 of the recipe on known gates, with all of the CPU's threads and with one."""
    threads = torch.get_num_threads()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    lines, device = [], torch.device("cpu")
    for number, shape in (QUICK if quick else SHAPES).items():
        settings = read_config(RECIPES / "image_folder.yaml").layer_at(number)
        layer = untrained_layer(settings, shape, CLASSES, number)
        x = natural_inputs(16 if quick else 64, shape, torch.Generator().manual_seed(0))
        ask = layer.layer.embedding.ask
        assert ask is not None
        step = training_step(layer, x, CLASSES, settings.optimizer, ask(x))
        tasks = {str(count): partial(_with_threads, count, step) for count in {1, cores}}
        try:
            seconds = alternate(tasks, 1 if quick else 5, device)
        finally:
            torch.set_num_threads(threads)
        lines.append(
            f"layer {number} of image_folder, a step: {cores} threads ÷ 1: {seconds['1'] / seconds[str(cores)]:.2f}"
        )
    return lines


def _with_threads(count: int, task: Callable[[], object]) -> None:
    torch.set_num_threads(count)
    task()


def measure_convolution(quick: bool, device: torch.device) -> list[str]:
    """A step of layers 1 and 2 of the recipe on known gates, against a CNN's with as many kernels, by torch."""
    lines = []
    for number, shape in (QUICK if quick else SHAPES).items():
        # a CNN's kernels are not tied
        settings = replace(read_config(RECIPES / "image_folder.yaml").layer_at(number), mirror=False)
        layer = untrained_layer(settings, shape, CLASSES, number).to(device)
        x = natural_inputs(16 if quick else 64, shape, torch.Generator().manual_seed(0)).to(device)
        near = layer.layer.embedding.ask
        cnn = _Convolution(layer, shape[0], settings.patch_size, settings.atoms, settings.pool).to(device)
        ours = training_step(layer, x, CLASSES, settings.optimizer, None if near is None else near(x))
        theirs = training_step(cnn, x, CLASSES, settings.optimizer)
        seconds = alternate({"ours": ours, "theirs": theirs}, 1 if quick else 5, device)
        lines.append(
            f"layer {number} of image_folder, a step: ours on known gates ÷ convolution with ReLU by torch "
            f"{seconds['theirs'] / seconds['ours']:.2f} images a second"
        )
    return lines


class _Convolution(nn.Module):
    """A convolution with ReLU and what else a layer has: pooling, batch norm, projection, probe."""

    def __init__(self, layer: ProbedLayer, channels: int, size: int, kernels: int, pool: int) -> None:
        super().__init__()
        convolution = nn.Conv2d(channels, kernels, size)
        pooling = nn.AvgPool2d(pool, ceil_mode=True)
        self.layer = nn.Sequential(convolution, nn.ReLU(), pooling, layer.layer.norm, layer.layer.projection)
        self.probe = layer.probe

    def said(self, x: torch.Tensor, below: torch.Tensor, near: object = None) -> torch.Tensor:
        logits: torch.Tensor = self.probe(self.layer(x)) + below
        return logits
