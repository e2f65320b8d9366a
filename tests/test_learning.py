"""That it learns: the recipe that README begins with, and the same whatever the number of threads."""

import json
from pathlib import Path

import torch
from torch import Tensor

from layerwise import ops
from layerwise.nn.kmeans import kmeans
from tests.conftest import Command


def test_digits__reach_what_readme_says__and_more_by_a_second_layer(command: Command, tmp_path: Path) -> None:
    # README: 75.6 to 77.4 % at depth 1, 93.3 to 94.5 % at depth 2; here the second layer has one epoch of five
    short = ["--layers.2.optimizer.epochs=1", "--features.views=1", "--wandb.mode=disabled", "--run_dir=r"]
    done = command("train", "--depth=2", *short)
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "r" / "summary.json").read_text())
    first, second = (layer["val_accuracy"] for layer in summary["layers"])
    assert 0.74 < first < 0.79
    assert second > 0.79 and summary["test_accuracy"] > 0.79


def test_one_thread_and_two__give_the_same() -> None:
    def computed(threads: int) -> list[Tensor]:
        torch.set_num_threads(threads)
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(16, 3, 20, 20, generator=generator)
        scorer, maps = torch.randn(2, 76, 80, generator=generator)
        maps.requires_grad_()
        out = ops.embed(x, scorer, maps, 5, 20, 4)
        (gradient,) = torch.autograd.grad(out.square().sum(), maps)
        centroids = kmeans(torch.randn(4000, 20, generator=generator), 30, 10, generator)
        return [out.detach(), gradient, ops.convolve(x, maps.detach(), 5, 3), centroids]

    before = torch.get_num_threads()
    try:
        for a, b in zip(computed(1), computed(2), strict=True):
            assert float((a - b).abs().max() / a.abs().max()) < 1e-5
    finally:
        torch.set_num_threads(before)
