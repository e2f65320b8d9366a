"""The benchmark measures what it says."""

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from layerwise.data.images import to_input
from layerwise.experiments.benchmark import host
from layerwise.experiments.benchmark.layers import agrees, embed_plain
from layerwise.experiments.benchmark.steps import alternate, natural_images, peak_memory
from layerwise.ops import embed, reference
from tests.conftest import Command
from tests.training.worlds import Matrix

CPU = torch.device("cpu")
MOST = 4.0
"""times as long as in a bare loop a step of next to no arithmetic may take, of the processor's time"""
KEYS = {"atoms", "neighbors", "batch", "patch_size", "backend", "device"}
KEYS |= {"images_per_second", "vs_plain", "vs_floor", "peak_bytes", "agrees"}


def test_benchmark__prints_a_table_and_writes_its_rows(command: Command, tmp_path: Path) -> None:
    done = command("benchmark", "--quick", "--json", "rows.json")
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "rows.json").read_text())
    expected = [("plain", "computed"), ("reference", "computed")]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    expected += [(device, "computed"), (device, "known")]
    assert [(row["backend"], row["gates"]) for row in rows] == expected
    for row in rows:
        assert set(row) >= KEYS
        assert row["agrees"] and row["images_per_second"] > 0 and row["vs_floor"] > 0
    assert rows[0]["vs_plain"] == rows[2]["vs_computed"] == 1
    told = "known ÷ computed", "threads ÷ 1", "convolution with ReLU", "layer 4 in a stack", "dictionary: ", "a step: "
    assert all(what in done.stdout for what in told)


def test_benchmark__refuses_a_file_it_could_not_write__before_it_measures(command: Command) -> None:
    done = command("benchmark", "--json", "nowhere/rows.json")
    assert done.returncode == 2
    assert (
        done.stderr
        == "error: --json: nowhere/rows.json cannot be written, since its folder is not there; create it first\n"
    )


def test_a_step__takes_little_longer_as_layers_are_trained__than_in_a_bare_loop() -> None:
    data, layer = host.few_images(800), Matrix(36, 3)
    optimizer = torch.optim.AdamW(layer.parameters(), fused=True)
    x, labels = to_input(data.train.pixels[:2]), data.train.labels[:2]

    def step() -> None:
        optimizer.zero_grad()
        torch.autograd.backward(F.cross_entropy(layer.said(x), labels))
        optimizer.step()

    ratios = [host.seconds_of_fitting(layer, data) / host.seconds_of(step, 400) for _ in range(3)]
    assert min(ratios) < MOST


@pytest.mark.parametrize("pool", [1, 3, 4])
def test_embed_plain__is_the_embedding(pool: int, generator: torch.Generator) -> None:
    x = torch.randn(2, 3, 9, 8, generator=generator, dtype=torch.float64)
    scorer, maps = torch.randn(2, 28, 11, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(embed_plain(x, scorer, maps, 3, 4, pool), reference.embed(x, scorer, maps, 3, 4, pool))


def test_agrees__tells_a_wrong_gate_and_a_wrong_gradient(generator: torch.Generator) -> None:
    x = natural_images(2, generator)
    scorer = torch.randn(76, 20, generator=generator)

    def one_more(x: Tensor, scorer: Tensor, maps: Tensor, size: int, k: int, pool: int) -> Tensor:
        return reference.embed(x, scorer, maps, size, k + 1, pool)

    def half_gradient(x: Tensor, scorer: Tensor, maps: Tensor, size: int, k: int, pool: int) -> Tensor:
        return reference.embed(x, scorer, maps * 0.5 + maps.detach() * 0.5, size, k, pool)

    assert agrees(embed, x, scorer, 5, 5, 4)
    assert not agrees(one_more, x, scorer, 5, 5, 4)
    assert not agrees(half_gradient, x, scorer, 5, 5, 4)


def test_peak_memory__holds_what_was_allocated_and_freed() -> None:
    before, peak = peak_memory(lambda: None, CPU), peak_memory(lambda: torch.ones(50_000_000), CPU)
    if before is None or peak is None:
        pytest.skip("this system does not tell")
    assert 190e6 < peak - before < 260e6


def test_alternate__gives_the_median_of_each(generator: torch.Generator) -> None:
    calls: list[str] = []
    seconds = alternate({"a": lambda: calls.append("a"), "b": lambda: sum(range(200_000))}, 2, CPU)
    assert 0 <= seconds["a"] < seconds["b"]
    assert len(calls) == 2 + 2 * 10  # warm-ups, then ten a turn, since it is so short
