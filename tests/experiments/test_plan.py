"""What a training is said to take, counted by hand."""

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import layerwise
from layerwise.data.splits import load_data
from layerwise.experiments.plan import plan
from layerwise.experiments.plan import planned as plan_of
from layerwise.parsing import parse
from tests.conftest import SMALL
from tests.test_processes import ended, in_two, launched, said

SHAPE = ["--layer.atoms=32", "--layer.neighbors=4", "--layer.channels=8", "--layer.patch_size=3", "--layer.pool=2"]
SHAPE += ["--layer.probe.pool=1", "--optimizer.batch_size=32", "--layer.sampling.patches=null"]
SOFT = ["--layer.gate.kind=soft"]


def test_plan__counts_shapes_parameters_and_room(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--config=plain_digits", "--depth=2", "--layer.atoms=16", "--layer.channels=8", "--layer.patch_size=3"]
    options += ["--layer.neighbors=4", "--layer.pool=1", "--optimizer.epochs=4", "--optimizer.batch_size=32"]
    options += ["--features.views=3", "--data.crop=1", "--data.flip=false", "--layer.probe.pool=1"]
    config = parse(options)[0]
    first, second = plan(config)
    assert (first.input_shape, first.output_shape) == ((1, 8, 8), (8, 6, 6))
    assert (second.input_shape, second.output_shape) == ((8, 6, 6), (8, 4, 4))
    assert [one.layer for one in (first, second)] == [1, 2] and (second.atoms, second.neighbors) == (16, 4)
    # maps and offsets, norm, projection, probe
    assert first.parameters == 16 * 9 + 16 + 2 * 16 + (16 * 8 + 8) + (8 * 36 * 10 + 10)
    assert second.parameters == 16 * 72 + 16 + 2 * 16 + (16 * 8 + 8) + (8 * 16 * 10 + 10)
    data = load_data(config.data, config.seed)
    train, held = len(data.train), len(data.val)
    assert f"for {train} training images" in capsys.readouterr().out
    # four epochs of 36 positions are more than the 64 that there are with borders; two bytes say which of 16 are near
    assert first.view_bytes == 0 and first.near_bytes == 2 * (64 * train + 36 * held)
    # the three views are crops of one of 8×8, whose logits are those of nine crops
    assert second.view_bytes == 8 * (2 * 64 * train + 4 * 36 * held) + 4 * 10 * (9 * train + held)
    # where layers are averaged, none is trained on what those below say
    averaged = plan(parse([*options, "--layer.probe.logits=averaged"])[0])[1]
    assert averaged.view_bytes == 8 * (2 * 64 * train + 4 * 36 * held) + 4 * 10 * held
    # four epochs of 16 positions are more than the 36 that it has
    assert second.near_bytes == 2 * (36 * train + 16 * held)
    assert second.sample_bytes == (4 * 72 + 48) * min(config.layer_at(2).sample, 16 * train)
    assert first.seconds > 0 and second.seconds > 0


def test_plan__of_a_mirrored_stack__counts_what_it_will_train(tmp_path: Path) -> None:
    options = ["--depth=4", "--layer.mirror=true", "--data.flip=true", "--layer.pool=1", "--layers.3.input=images"]
    config = parse([*SMALL, *options, "--layer.probe.logits=averaged"])[0]
    trained, layers = layerwise.train(config, tmp_path / "run").stack().layers, plan(config)
    assert [one.input_shape[0] for one in layers] == [1, 8, 1, 8] and [bool(one.view_bytes) for one in layers] == [
        False,
        True,
    ] * 2
    for one, layer in zip(layers, trained, strict=True):
        assert layer.mirrored and one.output_shape == layer.shape
        assert one.parameters == sum(value.numel() for value in dict(layer.named_parameters()).values())


@pytest.mark.parametrize("options, mapped, probed", [([], 4, 8), (["--layer.mirror=true"], 4, 4), (SOFT, 32, 8)])
def test_plan__counts_multiplications__of_images_that_are_no_squares(
    options: list[str], mapped: int, probed: int
) -> None:
    config = parse(["--config=plain_digits", *SHAPE, *options])[0]
    images, labels = np.random.default_rng(0).random((200, 40, 12)), ["a", "b"] * 100
    (one,), _ = plan_of(config, layerwise.dataset(images, labels, flip=True), torch.device("cpu"))
    # 38×10 positions of near atoms, forward and backward; 19×5 of the projection and the probe, which wants two more
    behind = 19 * 5 * 32 * 8 + 19 * 5 * probed * 2 + 2
    assert one.multiply_adds == 2 * 38 * 10 * mapped * 9 + 3 * behind


def planned(rank: int, port: int, folder: Path) -> None:
    """Leave what one of two processes says."""
    with launched(rank, 2, 1, port):
        (folder / str(rank)).write_bytes(pickle.dumps(plan(parse([*SMALL, "--depth=2", "--trainer.devices=2"])[0])))


def test_plan__rehearses_in_all_processes__by_one_measure(tmp_path: Path) -> None:
    in_two(planned, tmp_path)
    first, second = (pickle.loads((tmp_path / str(rank)).read_bytes()) for rank in (0, 1))
    assert first == second  # each by itself would have taken other times
    alone = plan(parse([*SMALL, "--depth=2"])[0])
    assert [replace(one, seconds=0.0, memory_bytes=0) for one in first] == [
        replace(one, seconds=0.0, memory_bytes=0) for one in alone
    ]


def test_plan__of_two_processes__is_said_once(tmp_path: Path) -> None:
    first, second = ended(tmp_path, *SMALL, verb="plan")
    assert (first.code, second.code) == (0, 0) and said(second) == ""
    assert said(first).count("all of it: ") == 1 and ", 2 processes, for 1294 training images" in said(first)


def test_plan__of_two_machines__rehearses_on_this_one(capsys: pytest.CaptureFixture[str]) -> None:
    (one,) = plan(parse([*SMALL, "--trainer.num_nodes=2"])[0])
    assert one.seconds > 0 and ", 2 processes, for 1294 training images" in capsys.readouterr().out
