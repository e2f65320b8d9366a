"""How deep a stack can be; depth auto: when a stack stops to grow, and that it says why."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

import layerwise
from layerwise.config import Config, Data, Features, Layer, Optimizer, Probe, SettingError, SingleLayer
from layerwise.data.splits import load_data
from layerwise.run.record import LayerRecord
from layerwise.training.depth import check_data, check_fit, lowered, next_shape, no_gain, no_room, views_seen
from tests.conftest import SMALL, Command

RECORD = LayerRecord(1, 16, 0.7, [], [1, 8, 8], [8, 6, 6], ["a", "b"], 1.0, {})


def records(*accuracies: float, images: int) -> list[LayerRecord]:
    return [replace(RECORD, layer=number, val_accuracy=p, val_images=images) for number, p in enumerate(accuracies, 1)]


def test_next_shape__rounds_up() -> None:
    config = Config(
        depth=2, layer=Layer(patch_size=5, pool=4, atoms=4), layers={2: SingleLayer(channels=None, atoms=9)}
    )
    assert next_shape(config, 1, (3, 32, 32), 10) == (64, 7, 7)
    assert next_shape(config, 2, (3, 9, 8), 10) == (9, 4, 3)  # patches of 3, windows of 2


def test_check_fit__of_depth_auto_needs_room_for_one_layer() -> None:
    config = Config(depth="auto", layer=Layer(patch_size=5, atoms=4))
    check_fit(config, (1, 6, 6), 100)
    with pytest.raises(SettingError, match=r"^layer\.patch_size: 5 does not fit the 4×4 input of layer 1;"):
        check_fit(config, (1, 4, 4), 100)
    with pytest.raises(SettingError, match=r"^layer\.patch_size: 5 does not fit the 1×1 input of layer 2;"):
        check_fit(replace(config, depth=2), (1, 6, 6), 100)


def test_check_fit__takes_what_just_fits() -> None:
    layer = Layer(patch_size=3, atoms=8, channels=4, pool=1)
    config = Config(depth=2, data=Data(crop=4), layer=layer, optimizer=Optimizer(batch_size=3))
    check_fit(config, (1, 5, 6), 8)  # the second layer's input is of 3×4 positions: 2 patches an image, 16 in all
    for shape, images, message in (
        ((1, 4, 6), 8, r"^data\.crop: 4 is not below the side of the 4×6 images"),
        ((1, 5, 6), 2, r"^optimizer\.batch_size: 3 is more than the 2 training images"),
        ((1, 5, 6), 3, r"^layer\.atoms: 8 are more than the 6 patches that the training images have at layer 2"),
    ):
        with pytest.raises(SettingError, match=message):
            check_fit(config, shape, images)
    own = replace(config, layers={2: SingleLayer(**vars(layer), optimizer=Optimizer(batch_size=9))})
    with pytest.raises(SettingError, match=r"^layers\.2\.optimizer\.batch_size: 9 is more than the 8 training"):
        check_fit(own, (1, 5, 6), 8)


def test_check_data__refuses_to_mirror_what_then_shows_another_class() -> None:
    layer = Layer(patch_size=3, atoms=8, channels=4, pool=1, mirror=True)
    config = Config(data=Data("digits"), layer=layer, optimizer=Optimizer(batch_size=3))
    data = load_data(config.data, 0)
    with pytest.raises(SettingError, match=r"^layer\.mirror: true, but a mirrored image of digits may show another"):
        check_data(config, data)
    check_data(config, replace(data, augmentation=replace(data.augmentation, flip=True)))
    check_data(replace(config, layer=replace(layer, mirror=False)), data)


def test_a_column__begins_with_the_shape_of_the_images() -> None:
    layer = Layer(patch_size=3, atoms=4, channels=2, pool=1, probe=Probe(logits="own"))
    own = vars(layer) | {"patch_size": 5, "input": "images", "optimizer": Optimizer(batch_size=3)}
    begun = SingleLayer(**own)
    config = Config(depth=4, layer=layer, layers={3: begun}, optimizer=Optimizer(batch_size=3))
    check_fit(config, (1, 7, 7), 8)  # of 3×3 positions below layer 3, of 3×3 above it
    with pytest.raises(SettingError, match=r"^layer\.patch_size: 3 does not fit the 2×3 input of layer 4"):
        check_fit(config, (1, 6, 7), 8)
    auto = replace(config, depth="auto", layers={3: replace(begun, patch_size=8)})
    with pytest.raises(
        SettingError, match=r"^layers\.3\.patch_size: 8 .* 7×7 input of layer 3; give a smaller patch_size$"
    ):
        check_fit(auto, (1, 7, 7), 8)
    small = lowered(config, (1, 4, 5), 100)
    assert [small.layer_at(i).patch_size for i in (1, 2, 3, 4)] == [3, 2, 4, 1]
    assert views_seen(replace(config, depth=3, features=Features(views=9))) == 9
    alone = replace(config, depth=2, layers={2: begun}, features=Features(views=9))
    assert views_seen(alone) == 0  # images are not stored


def test_no_gain__is_a_rise_of_no_more_than_a_standard_error() -> None:
    assert no_gain(records(0.1, images=100)) is None
    assert no_gain(records(0.70, 0.80, images=1600)) is None  # an error of 0.01
    assert no_gain(records(0.70, 0.7115, images=1600)) is None  # one of 0.0113
    why = no_gain(records(0.70, 0.711, images=1600))
    assert why is not None and "71.10%" in why and "70.00%" in why and "1.13%" in why and "1 deep" in why
    assert no_gain(records(0.70, 0.8, 0.6, images=1600)) is not None


def test_no_room__names_what_does_not_fit() -> None:
    config = Config(depth="auto", layer=Layer(patch_size=3, atoms=4))
    assert no_room(config, 3, (1, 3, 3), 100) is None
    why = no_room(config, 3, (1, 2, 2), 100)
    assert why is not None and why.startswith("layer.patch_size: 3 does not fit the 2×2 input") and "2 deep" in why


def test_depth_auto__excludes_what_does_not_help__says_why__and_takes_it_in_when_asked(
    command: Command, tmp_path: Path
) -> None:
    given = ["train", "--run_dir=run", "--wandb.mode=disabled", *SMALL, "--optimizer.epochs=1"]
    given += ["--optimizer.learning_rate=1e-60"]  # rounds to zero: every layer answers with one class
    first = command(*given, "--depth=auto")
    assert first.returncode == 0, first.stderr
    (why,) = [line for line in first.stdout.splitlines() if " deep" in line]
    assert "layer 2" in why and "the stack is 1 deep" in why
    assert json.loads((tmp_path / "run/summary.json").read_text())["depth"] == 1
    assert len(layerwise.load(tmp_path / "run").records) == 1

    again = command(*given, "--depth=auto")
    assert why in again.stdout and ": epoch" not in again.stdout

    deeper = command(*given, "--depth=2")
    assert deeper.returncode == 0 and ": epoch" not in deeper.stdout
    assert len(layerwise.load(tmp_path / "run").records) == 2


def test_next_shape__a_patch_fits_the_shorter_side() -> None:
    config = Config(layer=Layer(patch_size=5, atoms=4, pool=1, channels=None))
    assert next_shape(config, 1, (1, 5, 9), 10) == (4, 1, 5)
    for shape in ((1, 4, 9), (1, 9, 4)):
        with pytest.raises(SettingError, match=rf"^layer\.patch_size: 5 does not fit the {shape[1]}×{shape[2]} input"):
            next_shape(config, 1, shape, 10)


def test_next_shape__with_mirror_windows_part_a_row_evenly() -> None:
    config = Config(depth=1, layer=Layer(patch_size=3, pool=2, atoms=4, neighbors=2, mirror=True))
    assert next_shape(config, 1, (3, 9, 10), 10) == (64, 4, 4)  # of rows alone; columns are not mirrored
    with pytest.raises(SettingError, match=r"^layer\.pool: windows of 2 do not part the 7 positions of a row at layer"):
        next_shape(config, 1, (3, 10, 9), 10)


def test_lowered__hands_on_no_more_components_than_there_are_atoms() -> None:
    config = Config(layer=Layer(patch_size=3, atoms=64, channels=32, output="gates"))
    few = lowered(config, (1, 6, 6), 8).layer_at(1)
    assert few.atoms == few.channels == 8 * 16 // 8 and few.conflict() is None
    assert lowered(config, (1, 6, 6), 800) == config


def test_lowered__leaves_an_atom_that_is_not_near__where_gates_are_handed_on() -> None:
    config = Config(layer=Layer(patch_size=3, atoms=64, neighbors=32, channels=8, output="gates"))
    few = lowered(config, (1, 6, 6), 8).layer_at(1)
    assert (few.atoms, few.neighbors) == (16, 15) and few.conflict() is None
    fewest = lowered(config, (1, 3, 3), 2).layer_at(1)
    assert (fewest.atoms, fewest.neighbors) == (2, 1) and fewest.conflict() is None


@pytest.mark.parametrize("neighbors, expected", [(None, None), (18, 18), (62, 38)])
def test_lowered__leaves_atoms_in_pairs__and_near_ones_even(neighbors: int | None, expected: int | None) -> None:
    own = Layer(patch_size=3, pool=2, atoms=64, neighbors=neighbors, channels=8, mirror=True, output="gates")
    few = lowered(Config(layer=own), (3, 6, 6), 20).layer_at(1)  # of 320 patches, 8 an atom
    assert few.mirror and (few.atoms, few.neighbors, few.conflict()) == (40, expected, None)
    odd = lowered(Config(layer=own), (3, 6, 6), 21).layer_at(1)  # 42 atoms, a quarter is 10
    assert odd.mirror and odd.atoms == 42 and odd.k % 2 == 0 and odd.conflict() is None
    least = lowered(Config(layer=own), (3, 4, 4), 2).layer_at(1)
    assert least.mirror and (least.atoms, least.k, least.conflict()) == (4, 2, None)


def test_lowered__mirrors_nothing_where_windows_would_not_part_a_row() -> None:
    config = Config(
        depth=2,
        layer=Layer(patch_size=3, pool=2, atoms=4, neighbors=2, mirror=True),
        layers={2: SingleLayer(pool=1, neighbors=2, mirror=True)},
    )
    kept, changed = lowered(config, (3, 10, 10), 1000), lowered(config, (3, 10, 9), 1000)
    assert all(kept.layer_at(number).mirror for number in (1, 2))
    assert not any(changed.layer_at(number).mirror for number in (1, 2)) and not changed.layer.mirror
