"""Settings as dataclasses: what they refuse, and by what name."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from layerwise.config import (
    Config,
    Data,
    Features,
    Gate,
    Layer,
    Norm,
    Optimizer,
    Probe,
    Residual,
    Sampling,
    SettingError,
    SingleLayer,
    Teacher,
    Trainer,
    Wandb,
    Whitening,
)
from layerwise.config.identity import changes, settings_of
from layerwise.config.run import plain, restore

UNCONSTRAINED: dict[str, Any] = {"probe": Probe(kind="unconstrained"), "pool": 1, "norm": Norm(kind="none")}

RANGES = [
    ({"depth": 0}, "depth: 0 is too small; give a whole number of at least 1"),
    ({"layer": Layer(channels=10**20)}, "layer.channels: 1.* is too large; give a whole number of at most 2147483647"),
    ({"layer": Layer(pool=2**31)}, "layer.pool: 2147483648 is too large"),
    ({"seed": -1}, "seed: -1 is too small; give a whole number of at least 0"),
    ({"data": Data(name="mine")}, "data.name: mine is not one of "),
    ({"data": Data(name="svnh")}, "data.name: svnh is not one of .*; did you mean svhn?"),
    ({"data": Data(image_size=0)}, "data.image_size: 0 is too small"),
    ({"data": Data(validation=0)}, "data.validation: 0 is out of range; give a number between 0 and 1, such as 0.1"),
    ({"data": Data(validation=1)}, "data.validation: 1 is out of range"),
    ({"data": Data(test=-0.5)}, "data.test: -0.5 is out of range"),
    ({"data": Data(crop=-1)}, "data.crop: -1 is too small"),
    ({"data": Data(border="white")}, "data.border: white is not one of "),
    ({"data": Data(teacher=Teacher(images=19))}, "data.teacher.images: 19 is too small; .* 20"),
    ({"data": Data(teacher=Teacher(clusters=-1))}, "data.teacher.clusters: -1 is too small"),
    (
        {"data": Data(teacher=Teacher(radius=1))},
        "data.teacher.radius: 1 is out of range; give a number from 0 to below 1",
    ),
    ({"data": Data(teacher=Teacher(dimension=1))}, "data.teacher.dimension: 1 is too small"),
    ({"data": Data(teacher=Teacher(seed=2**63))}, f"data.teacher.seed: {2**63} is too large"),
    ({"depth": "2"}, "depth: '2' is not a whole number or auto; give that"),
    ({"depth": 2.5}, "depth: 2.5 is not a whole number or auto"),
    ({"depth": True}, "depth: True is not a whole number or auto"),
    ({"seed": "a"}, "seed: 'a' is not a whole number"),
    ({"layer": {"atoms": 8}}, "layer: {'atoms': 8} is not of Layer"),
    ({"layer": Layer(mirror=1)}, "layer.mirror: 1 is not true or false"),  # type: ignore[arg-type]
    ({"optimizer": Optimizer(batch_size=32.5)}, "optimizer.batch_size: 32.5 is not a whole number"),  # type: ignore[arg-type]
    ({"optimizer": Optimizer(learning_rate="1e-3")}, "optimizer.learning_rate: '1e-3' is not a number"),  # type: ignore[arg-type]
    ({"wandb": Wandb(tags="a")}, "wandb.tags: 'a' is not a list of text, such as [a, b]"),  # type: ignore[arg-type]
    ({"run_dir": 3}, "run_dir: 3 is not text"),
    ({"layers": [Layer()]}, "layers: [Layer(.*] is not of dict"),
    ({"layers": {"2": Layer()}}, "layers.2: there is no such layer"),
    ({"layers": {2: {"atoms": 8}}}, "layers.2: {'atoms': 8} is not settings of a layer"),
    ({"optimizer": Optimizer(name="adm")}, "optimizer.name: adm is not one of .*; did you mean adamw?"),
    ({"optimizer": Optimizer(schedule="x")}, "optimizer.schedule: x is not one of "),
    ({"optimizer": Optimizer(epochs=0)}, "optimizer.epochs: 0 is too small"),
    ({"optimizer": Optimizer(batch_size=1)}, "optimizer.batch_size: 1 is too small; give a whole number of at least 2"),
    ({"optimizer": Optimizer(learning_rate=0)}, "optimizer.learning_rate: 0 is out of range; give a positive number"),
    ({"optimizer": Optimizer(learning_rate=float("inf"))}, "optimizer.learning_rate: inf is out of range"),
    ({"optimizer": Optimizer(learning_rate=float("nan"))}, "optimizer.learning_rate: nan is out of range"),
    ({"optimizer": Optimizer(momentum=1)}, "optimizer.momentum: 1 is out of range; give a number from 0 to below 1"),
    (
        {"optimizer": Optimizer(weight_decay=-1)},
        "optimizer.weight_decay: -1 is out of range; give 0 or a positive number",
    ),
    ({"optimizer": Optimizer(weight_decay=float("nan"))}, "optimizer.weight_decay: nan is out of range"),
    ({"optimizer": Optimizer(label_smoothing=1)}, "optimizer.label_smoothing: 1 is out of range"),
    ({"optimizer": Optimizer(warmup=0)}, "optimizer.warmup: 0 is out of range; give a number between 0 and 1"),
    ({"features": Features(views=-1)}, "features.views: -1 is too small"),
    ({"features": Features(gigabytes=0)}, "features.gigabytes: 0 is out of range; give a positive number"),
    ({"trainer": Trainer(devices=0)}, "trainer.devices: 0 is too small"),
    ({"trainer": Trainer(num_nodes=0)}, "trainer.num_nodes: 0 is too small"),
    ({"trainer": Trainer(devices=3)}, "optimizer.batch_size: 64 images cannot be divided among 3 processes"),
    ({"layers": {0: SingleLayer()}}, "layers.0: there is no such layer; they are numbered from 1"),
]

OF_A_LAYER: list[tuple[dict[str, Any], str, str]] = [
    ({"patch_size": 0}, "patch_size", "0 is too small"),
    ({"atoms": 0}, "atoms", "0 is too small"),
    ({"neighbors": 0}, "neighbors", "0 is too small"),
    ({"channels": 0}, "channels", "0 is too small"),
    ({"pool": 0}, "pool", "0 is too small"),
    ({"embedding": "soft"}, "embedding", "soft is not one of full, hard"),
    ({"probe": Probe(logits="mean")}, "probe.logits", "mean is not one of summed, averaged, own; see --help"),  # type: ignore[arg-type]
    ({"output": "gate"}, "output", "gate is not one of channels, gates"),
    ({"output": "gates", "gate": Gate("soft")}, "output", "gates, which only the gate nearest has, not soft"),
    ({"output": "gates", "channels": None}, "output", "gates, of 256 atoms in null channels; give 1 to 256"),
    ({"output": "gates", "atoms": 60}, "output", "gates, of 60 atoms in 64 channels; give 1 to 60 channels"),
    ({"dictionary": "kmean"}, "dictionary", "kmean is not one of .*; did you mean kmeans?"),
    ({"whitening": Whitening(kind="x")}, "whitening.kind", "x is not one of "),
    (
        {"whitening": Whitening(epsilon=-1)},
        "whitening.epsilon",
        "-1 is out of range; give a number from 0 to below 1e+06, such as 0.03",
    ),
    ({"whitening": Whitening(formula="x")}, "whitening.formula", "x is not one of "),
    ({"sampling": Sampling(patches=0)}, "sampling.patches", "0 is too small"),
    ({"sampling": Sampling(pixels="x")}, "sampling.pixels", "x is not one of "),
    ({"gate": Gate(kind="x")}, "gate.kind", "x is not one of "),
    ({"gate": Gate(metric="x")}, "gate.metric", "x is not one of "),
    ({"norm": Norm(kind="x")}, "norm.kind", "x is not one of "),
    ({"norm": Norm(eps=0)}, "norm.eps", "0 is out of range; give a positive number"),
    ({"residual": Residual(kind="x")}, "residual.kind", "x is not one of "),
    ({"probe": Probe(kind="x")}, "probe.kind", "x is not one of "),
    ({"probe": Probe(pool=0)}, "probe.pool", "0 is too small"),
    ({"probe": Probe(init="x")}, "probe.init", "x is not one of "),
    # what does not go together
    ({"mirror": True, "gate": Gate("kth")}, "gate.kind", "kth, but of a pair that is equally near that is one"),
    (
        {"dictionary": "kmeans_gaussian", "gate": Gate(metric="cosine")},
        "dictionary",
        "kmeans_gaussian, but the patches that it draws have no unit norm, as cosine wants; give gaussian",
    ),
    ({"atoms": 8, "neighbors": 9}, "neighbors", "9 of 8 atoms; give at most as many neighbors as atoms"),
    (
        {"atoms": 8, "sampling": Sampling(patches=7)},
        "sampling.patches",
        "7 sampled patches for 8 atoms; give at least as many patches as atoms, or null",
    ),
    (
        {"gate": Gate(kind="soft", metric="cosine")},
        "gate.metric",
        "cosine goes with the gate nearest, not soft; change either",
    ),
    (
        {"gate": Gate(kind="relu"), "embedding": "hard"},
        "gate.kind",
        "relu is the sign of a map, but here there are no maps; change gate, embedding or probe",
    ),
    (
        {"output": "gates", "atoms": 8, "neighbors": 8, "channels": 4},
        "neighbors",
        "8 of 8 atoms, but where all are near, gates say nothing; give fewer neighbors, or channels as output",
    ),
    ({"mirror": True, "atoms": 65}, "atoms", "65, but with mirror they come in pairs; give an even number"),
    (
        {"mirror": True, "atoms": 8, "neighbors": 3},
        "neighbors",
        "3, but of a pair .* near .*; give an even number",
    ),
    ({"mirror": True, "channels": 15}, "channels", "15, but with mirror they come in pairs; give an even number"),
    (UNCONSTRAINED | {"channels": None, "pool": 3}, "pool", "3, but the unconstrained probe .*; give 1"),
    (UNCONSTRAINED | {"channels": None, "mirror": True}, "mirror", "true, but the unconstrained probe .*; give false"),
    (UNCONSTRAINED | {"channels": 32}, "channels", "32, but the unconstrained probe .*; give null"),
    (
        UNCONSTRAINED | {"channels": None, "residual": Residual("concatenate")},
        "residual.kind",
        "concatenate, but the unconstrained probe .*; give none",
    ),
    (
        UNCONSTRAINED | {"channels": None, "probe": Probe(kind="unconstrained", pool=2)},
        "probe.pool",
        "2, but the unconstrained probe .*; give 1",
    ),
]


def refusal(**settings: Any) -> str:
    """What Config says of settings that it refuses."""
    with pytest.raises(SettingError) as error:
        Config(**settings)
    return str(error.value)


def begins(message: str, expected: str) -> bool:
    """Whether a message begins as expected; .* stands for any text."""
    return re.match(re.escape(expected).replace(r"\.\*", ".*"), message) is not None


@pytest.mark.parametrize("settings, expected", RANGES, ids=[expected.split(" is ")[0] for _, expected in RANGES])
def test_config__refuses_what_is_out_of_range(settings: dict[str, Any], expected: str) -> None:
    message = refusal(**settings)
    assert begins(message, expected), message


@pytest.mark.parametrize("settings, name, expected", OF_A_LAYER, ids=[name for _, name, _ in OF_A_LAYER])
def test_config__names_a_layer_s_setting_where_it_was_given(settings: dict[str, Any], name: str, expected: str) -> None:
    message = refusal(layer=Layer(**settings))
    assert begins(message, f"layer.{name}: {expected}"), message
    message = refusal(depth=2, layers={2: SingleLayer(**settings)})
    assert begins(message, f"layers.2.{name}: {expected}"), message


def test_config__names_what_was_given_for_all_layers_by_that_name() -> None:
    few = SingleLayer(atoms=8, neighbors=16)
    assert begins(refusal(depth=2, layer=Layer(neighbors=16), layers={2: few}), "layer.neighbors: 16 of 8 atoms")
    normed = UNCONSTRAINED | {"channels": None, "norm": Norm()}
    expected = "layer.norm.kind: batch, but the unconstrained probe .*; give none"
    assert begins(refusal(layer=Layer(**normed)), expected)
    assert begins(refusal(layers={1: SingleLayer(**normed)}), expected)
    own = SingleLayer(optimizer=Optimizer(epochs=0))
    assert begins(refusal(layers={1: own}), "layers.1.optimizer.epochs: 0 is too small")
    assert begins(refusal(optimizer=Optimizer(epochs=0), layers={1: own}), "optimizer.epochs: 0 is too small")


def test_config__of_a_column_that_layer_3_begins() -> None:
    begun = SingleLayer(input="images")
    expected = "layer.probe.logits: summed, but layer 3 begins another column, which does not see the logits of others"
    assert begins(refusal(depth=4, layers={3: begun}), expected)
    whole = "layer.probe.logits: summed, but layer 2 begins another column"
    assert begins(refusal(depth=3, layer=Layer(input="images")), whole)
    own = replace(begun, probe=Probe(logits="averaged"))
    anew = replace(begun, probe=Probe(logits="own"))
    assert begins(refusal(depth=4, layers={3: anew}), expected)  # of layer 4
    averaged = Layer(probe=Probe(logits="averaged"))
    assert Config(depth=4, layer=averaged, layers={3: own}).layers[3].input == "images"
    mirrored = replace(averaged, mirror=True, residual=Residual("concatenate"))
    layers = {1: replace(mirrored, residual=Residual()), 3: replace(mirrored, input="images")}
    expected = (
        "layer.residual.kind: concatenate, but with mirror an image's channels are no pairs; give none to layer 3"
    )
    assert begins(refusal(depth=4, layer=mirrored, layers=layers), expected)


def test_sum__is_refused_above_layers_that_are_averaged() -> None:
    averaged, above = Layer(probe=Probe(logits="averaged")), {3: SingleLayer(probe=Probe(logits="summed"))}
    expected = "layers.3.probe.logits: summed, but layer 2 is averaged, which leaves no sum to correct; give averaged"
    assert begins(refusal(depth=3, layer=averaged, layers=above), expected)
    Config(depth=3, layer=averaged, layers={3: SingleLayer(probe=Probe(logits="own"))})
    Config(depth=2, layers={2: SingleLayer(probe=Probe(logits="averaged"))})


@pytest.mark.parametrize("kind", ["summed", "own"])
def test_mean__is_refused_above_what_is_no_mean_of_all_layers(kind: Any) -> None:
    averaged, other = Layer(probe=Probe(logits="averaged")), SingleLayer(probe=Probe(logits=kind))
    Config(depth=3, layer=averaged, layers={1: other})  # a first layer is the mean of itself
    expected = f"layer.probe.logits: averaged, but layer 2 is {kind}, so that there is no mean of all layers; give"
    layers = {1: other, 2: other}
    assert begins(refusal(depth=3, layer=averaged, layers=layers), expected)
    Config(depth=3, layer=Layer(probe=Probe(logits="own")), layers=layers)


def test_layer_for_all__with_an_optimizer_of_its_own__is_refused() -> None:
    base = Config()
    given = refusal(layer=base.layer_at(1), optimizer=Optimizer(epochs=3))
    assert begins(given, "layer: is a SingleLayer, with an optimizer of its own; give a Layer, or it in layers")


def test_conflict__of_what_all_layers_have_with_what_one_has__says_in_which() -> None:
    given = refusal(depth=2, layer=Layer(neighbors=16), layers={2: Layer(atoms=8, neighbors=16)})
    assert given.endswith("give at most as many neighbors as atoms (layer 2)")
    assert begins(given, "layer.neighbors: 16 of 8 atoms; ")


def test_mirror__wants_even_neighbors__also_where_they_are_a_quarter_of_the_atoms() -> None:
    expected = "layer.neighbors: 5 (a quarter of the atoms), but of a pair that is equally near"
    assert begins(refusal(layer=Layer(mirror=True, atoms=20)), expected)
    Config(layer=Layer(mirror=True, atoms=24))
    Config(layer=Layer(mirror=True, atoms=20, gate=Gate("soft")))


def test_changes__what_an_older_version_did_not_record__is_as_it_is_by_default() -> None:
    config = Config(depth=2, layer=Layer(probe=Probe(logits="averaged")))
    other = replace(config, layers={2: replace(config.layer_at(2), input="images")})
    old = settings_of(config, 2, "digest")
    del old["layer 2"]["input"]
    assert changes(old, settings_of(config, 2, "digest"), config, str) == []
    told = changes(old, settings_of(other, 2, "digest"), other, str)
    assert told == ["layers.2.input: images, but layer 2 was trained with below"]


def test_changes__what_a_newer_version_recorded__is_told_by_its_own_name() -> None:
    config = Config(depth=2, layers={2: SingleLayer(atoms=8)})
    new = settings_of(config, 2, "digest")
    old = settings_of(config, 2, "digest")
    old["layer 2"]["whitening"]["steps"] = 3
    assert changes(old, new, config, str) == ["layers.2.whitening.steps: null, but layer 2 was trained with 3"]


def test_config__checks_what_goes_together_in_the_layers_that_there_are() -> None:
    bad = SingleLayer(atoms=8, neighbors=9)
    assert begins(refusal(depth="auto", layers={3: bad}), "layers.3.neighbors: 9 of 8 atoms")
    assert Config(depth=2, layers={3: bad}).layers[3].neighbors == 9  # a recipe may describe deeper layers


@pytest.mark.parametrize("name", ["name", "epochs", "learning_rate", "warmup"])
def test_config__null_is_no_value(name: str) -> None:
    nothing: dict[str, Any] = {name: None}
    assert begins(refusal(optimizer=Optimizer(**nothing)), f"optimizer.{name}: null ")
    assert begins(refusal(layers={1: SingleLayer(optimizer=Optimizer(**nothing))}), f"layers.1.optimizer.{name}: null ")


def test_config__null_is_no_value__of_a_run_its_data_and_a_layer() -> None:
    nothing: dict[str, Any] = {"depth": None}
    assert begins(refusal(**nothing), "depth: null ")
    nothing = {"root": None}
    assert begins(refusal(data=Data(**nothing)), "data.root: null ")
    nothing = {"atoms": None}
    assert begins(refusal(layer=Layer(**nothing)), "layer.atoms: null ")
    assert Config(layer=Layer(neighbors=None, channels=None), data=Data(flip=None, crop=None)).run_dir is None


def test_layer__null_neighbors_are_a_quarter__null_patches_256_an_atom() -> None:
    assert [Layer(atoms=atoms).k for atoms in (1, 3, 8, 50)] == [1, 1, 2, 12]
    assert Layer(atoms=50, neighbors=7).k == 7
    assert (Layer(atoms=50).sample, Layer(atoms=50, sampling=Sampling(patches=60)).sample) == (12_800, 60)


def test_layer_at__is_the_single_layer_or_that_of_all() -> None:
    single = SingleLayer(atoms=50, pool=3, optimizer=Optimizer(epochs=4))
    config = Config(depth=2, layer=Layer(atoms=100, pool=3), layers={2: single}, optimizer=Optimizer(epochs=7))
    assert config.layer_at(1) == SingleLayer(atoms=100, pool=3, optimizer=Optimizer(epochs=7))
    assert config.layer_at(2) == single
    assert config.layer_at(2).k == 12  # a quarter of its own atoms


def test_config__takes_numpy_s_numbers_and_paths__as_python_s() -> None:
    given = Config(
        depth=np.int64(2),  # type: ignore[arg-type]
        seed=np.arange(3)[1],
        run_dir=Path("r"),  # type: ignore[arg-type]
        wandb=Wandb(tags=("a", "b")),  # type: ignore[arg-type]
        data=Data(crop=np.uint8(3)),  # type: ignore[arg-type]
        layer=Layer(mirror=np.bool_(True)),  # type: ignore[arg-type]
        optimizer=Optimizer(learning_rate=np.float32(0.5)),  # type: ignore[arg-type]
    )
    expected = Config(2, 1, "r", Data(crop=3), Layer(mirror=True), optimizer=Optimizer(learning_rate=0.5))
    expected = replace(expected, wandb=Wandb(tags=["a", "b"]))
    assert given == expected and yaml.safe_dump(plain(given)) == yaml.safe_dump(plain(expected))


def test_config__a_layer_among_single_ones_has_the_optimizer_of_all() -> None:
    config = Config(depth=2, layers={2: Layer(atoms=8)}, optimizer=Optimizer(epochs=7))  # type: ignore[dict-item]
    assert config.layer_at(2) == SingleLayer(atoms=8, optimizer=Optimizer(epochs=7))


def test_plain__says_of_single_layers_what_differs() -> None:
    single = SingleLayer(atoms=50, neighbors=None, whitening=Whitening(epsilon=3), optimizer=Optimizer(epochs=4))
    values = plain(Config(layer=Layer(atoms=50, neighbors=5), layers={2: single}))
    assert values["layers"] == {2: {"neighbors": None, "whitening": {"epsilon": 3}, "optimizer": {"epochs": 4}}}
    assert values["layer"]["neighbors"] == 5
    assert values["optimizer"] == vars(Optimizer())


def test_restore__is_the_opposite_of_plain() -> None:
    values = plain(Config(depth=3, seed=4, layer=Layer(atoms=9, whitening=Whitening(kind="zca")), data=Data(crop=1)))
    assert plain(restore(Config, values)) == values
    with pytest.raises(TypeError):
        restore(Layer, {"atomz": 3})


def test_config__mirror_is_for_the_whole_stack_and_for_images_that_may_be_mirrored() -> None:
    paired, beside = Layer(mirror=True), Residual("concatenate")
    Config(depth=3, layer=paired, layers={2: SingleLayer(mirror=True, residual=beside)})
    message = refusal(depth=2, layer=paired, layers={2: SingleLayer()})
    assert message == "layers.2.mirror: false, but layer 1 has true; give the same to all layers"
    message = refusal(layer=paired, data=Data(flip=False))
    assert (
        message
        == "layer.mirror: true, but data.flip is false; give true to that if images may be mirrored, or false to this"
    )
    message = refusal(layer=replace(paired, residual=beside))
    assert message.startswith(
        "layer.residual.kind: concatenate, but with mirror an image's channels are no pairs; give"
    )
