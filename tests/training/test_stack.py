"""The algorithm: that layers have seeds of their own, and are left as they were at their best."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from layerwise.config import Config
from layerwise.data.images import Augmentation, to_input
from layerwise.data.splits import DataSet
from layerwise.data.views import ViewStore
from layerwise.nn.stack import FrozenStack
from layerwise.parsing import parse
from layerwise.run.run import Run
from layerwise.training import stack as algorithm
from layerwise.training.fit import fit_layer
from layerwise.training.stack import train_layer, train_stack
from tests.conftest import SMALL
from tests.training.worlds import AS_THEY_ARE, CPU, numbered


def two_kinds(swapped: bool = False) -> DataSet:
    """Dark images of class 0 and bright ones of class 1; in validation images the classes may be swapped."""

    def images(count: int, seed: int, other: bool = False) -> Any:
        labels = torch.arange(count) % 2
        noise = numbered(count, seed, labels)
        return replace(
            noise, pixels=noise.pixels[:] // 2 + 100 * labels[:, None, None, None].byte(), labels=labels ^ other
        )

    return DataSet(["dark", "bright"], images(64, 0), images(32, 1, swapped), images(32, 2), AS_THEY_ARE)


def settings(*more: str) -> Config:
    own = ["--layer.patch_size=2", "--layer.atoms=8", "--optimizer.batch_size=16", "--wandb.mode=disabled"]
    return parse([*SMALL, *own, *more])[0]


STILL = ["--optimizer.learning_rate=1e-60"]  # rounds to zero: every layer answers with one class


def test_averaged_layers__are_measured_alone_too__of_the_others_the_stack_only(tmp_path: Path) -> None:
    data = two_kinds()
    for logits in ("averaged", "summed"):
        run, config = Run(tmp_path / logits), settings("--depth=3", f"--layer.probe.logits={logits}")
        run.start(config, data)
        _, records, _ = train_stack(config, data, run, CPU)
        run.release()
        x, below = to_input(data.val.pixels[:]), torch.zeros(32, 2)
        for record, layer in zip(records, run.stack().layers, strict=True):
            own = layer.classified(layer.layer(x))
            right = float((own.argmax(1) == data.val.labels).double().mean())
            assert record.best.get("val_alone") == (
                pytest.approx(right) if logits == "averaged" and record.layer > 1 else None
            )
            x, below = layer(x, below)
            said = float((below.argmax(1) == data.val.labels).double().mean())
            assert record.val_accuracy == pytest.approx(said)


def test_columns__say_the_mean_of_all_layers__and_a_second_process_goes_on_with_the_same_bits(tmp_path: Path) -> None:
    data = two_kinds()
    begun = ["--layer.probe.logits=averaged", "--layer.pool=1", "--features.views=2"]
    begun += ["--layers.3.input=images", "--layers.3.patch_size=3", "--layers.5.input=images"]
    runs = []
    for name, depths in (("at once", [5]), ("stepwise", [2, 3, 5])):
        runs.append(run := Run(tmp_path / name))
        for depth in depths:
            config = replace(settings(*begun, "--depth=5"), depth=depth)
            run.start(config, data)
            _, records, _ = train_stack(config, data, run, CPU)
            run.release()
    for number in range(1, 6):
        at_once, stepwise = (load_file(run.path / f"layer-{number}" / "layer.safetensors") for run in runs)
        assert all(torch.equal(at_once[name], stepwise[name]) for name in at_once)
    stack, x = runs[0].stack(), to_input(data.val.pixels[:])
    first, second, third, fourth, fifth = stack.layers
    assert [record.input_shape for record in records] == [[1, 6, 6], [8, 5, 5], [1, 6, 6], [8, 4, 4], [1, 6, 6]]
    under, above = first.layer(x), third.layer(x)
    seen = [first.layer(x), second.layer(under), third.layer(x), fourth.layer(above), fifth.layer(x)]
    alone = torch.stack([layer.classified(one) for layer, one in zip(stack.layers, seen, strict=True)])
    for depth, (record, (_, said)) in enumerate(zip(records, stack.depths(x), strict=True), 1):
        torch.testing.assert_close(said, alone[:depth].mean(0))
        assert record.val_accuracy == pytest.approx(float((said.argmax(1) == data.val.labels).double().mean()))


def test_a_column_that_does_not_help__leaves_the_stack_as_it_was(tmp_path: Path) -> None:
    data, run = two_kinds(), Run(tmp_path / "r")
    config = settings("--depth=auto", "--layer.probe.logits=averaged", "--layers.2.input=images", *STILL)
    run.start(config, data)
    stack, records, stop = train_stack(config, data, run, CPU)
    run.release()
    assert stop is not None and "layer 2" in stop and len(records) == len(stack) == 1
    assert not stack.anew and stack.shape((1, 6, 6)) == stack.layers[0].shape


@pytest.mark.parametrize("output", ["gates", "channels"])
def test_output_gates__of_what_a_layer_learned_from_labels_nothing_reaches_the_next(
    output: str, tmp_path: Path
) -> None:
    data = two_kinds()
    other = replace(data, train=replace(data.train, labels=data.train.labels[torch.randperm(64)]))
    dictionaries = []
    for name, given in (("a", data), ("b", other)):
        run, config = Run(tmp_path / name), settings("--depth=2", f"--layer.output={output}", "--layer.channels=4")
        run.start(config, given)
        train_stack(config, given, run, CPU)
        run.release()
        dictionaries.append([load_file(run.path / f"layer-{n}" / "dictionary.safetensors") for n in (1, 2)])
    (below, above), (below_other, above_other) = dictionaries
    assert all(torch.equal(below[name], below_other[name]) for name in below)
    assert ("components" in below) == (output == "gates")
    assert torch.equal(above["atoms"], above_other["atoms"]) == (output == "gates")


def test_a_layer__is_left_as_it_was_in_its_best_epoch(tmp_path: Path) -> None:
    # what is learned of the training images is wrong of these validation images, the more so the later
    data, config = two_kinds(swapped=True), settings("--optimizer.epochs=4", "--optimizer.learning_rate=0.01")
    run = Run(tmp_path / "r")
    run.start(config, data)
    stack, (record,), _ = train_stack(config, data, run, CPU)
    run.release()
    losses = [epoch["val_loss"] for epoch in record.epochs]
    assert len(losses) == 4 and losses[0] == min(losses) and losses[3] > 2 * losses[0]
    for kept in (stack, Run(tmp_path / "r").stack()):
        _, logits = kept(to_input(data.val.pixels[:]))
        assert logits is not None
        assert float(F.cross_entropy(logits, data.val.labels)) == pytest.approx(losses[0], rel=1e-4)
        accuracy = float((logits.argmax(1) == data.val.labels).double().mean())
        assert record.val_accuracy == record.epochs[0]["val_accuracy"] == pytest.approx(accuracy)


def test_layers__have_dictionaries_first_weights_and_orders_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # both on the images themselves, with the same settings: what differs is the number of the layer
    data, config = two_kinds(), settings("--depth=2", "--optimizer.epochs=1", "--optimizer.learning_rate=1e-30")
    orders: list[list[int]] = []

    def noted(*given: Any) -> Any:
        found = fit_layer(*given)
        batches = given[2]
        batches.store.data.train.labels[:] = torch.arange(64)  # now a label is a position
        orders.append(torch.cat([labels for _, _, labels, _ in batches.epoch(batches.trainer.current_epoch)]).tolist())
        batches.store.data.train.labels[:] = torch.arange(64) % 2
        return found

    monkeypatch.setattr(algorithm, "fit_layer", noted)
    run = Run(tmp_path / "r")
    run.start(config, data)
    for number in (1, 2, 1):
        train_layer(config, number, FrozenStack(), ViewStore(config.features, data, config.seed, CPU), run, [])
    run.release()
    first, second = (tmp_path / "r" / f"layer-{number}" for number in (1, 2))

    def tensor(folder: Path, name: str) -> Tensor:
        return {**load_file(folder / "dictionary.safetensors"), **load_file(folder / "layer.safetensors")}[name]

    for name in ("atoms", "layer.embedding.maps.weight", "layer.projection.weight"):
        assert tensor(first, name).shape == tensor(second, name).shape
        assert not torch.allclose(tensor(first, name).sort(0).values, tensor(second, name).sort(0).values, atol=1e-3)
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(64))
    assert orders[0] == orders[2] != orders[1]


@pytest.mark.parametrize("moved", [False, True])
def test_what_is_known__changes_no_bit(moved: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = two_kinds()
    if moved:
        data = replace(data, augmentation=Augmentation(flip=True, crop=1))
    trained, said = [], []
    for gigabytes in (1.0, 1e-9):
        config = settings("--optimizer.epochs=6", f"--features.gigabytes={gigabytes}")
        run = Run(tmp_path / str(gigabytes))
        run.start(config, data)
        stack, _, _ = train_stack(config, data, run, CPU)
        run.release()
        trained.append(stack.layers[0].state_dict())
        said.append("finding them anew in every step" in capsys.readouterr().out)
    assert said == [False, True]
    assert all(torch.equal(value, trained[1][name]) for name, value in trained[0].items())
