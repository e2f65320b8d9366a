"""layerwise train: what it answers to bad input, and that it then writes nothing; help; from start to end."""

import re
from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import QUIET, SMALL, Command

BAD = [
    (["--depth=0"], r"depth: 0 is too small; give a whole number of at least 1"),
    (["--depth=-3"], r"depth: -3 is too small"),
    (["--depth", "two"], r"depth: two is not a whole number"),
    (["--depth=1.5"], r"depth: 1\.5 is not a whole number"),
    (["--depth=null"], r"depth: null is not a whole number"),
    (["--depth=2", "--layer.pool=5"], r"layer\.patch_size: 3 does not fit the 2×2 input of layer 2; give a smaller"),
    (
        ["--depth=2", "--layers.2.patch_size=7"],
        r"layers\.2\.patch_size: 7 does not fit the 6×6 input of layer 2; give a smaller",
    ),
    (["--layer.neighbors=200"], r"layer\.neighbors: 200 of 128 atoms; give at most as many neighbors as atoms"),
    (["--depth=2", "--layers.2.neighbors=200"], r"layers\.2\.neighbors: 200 of 128 atoms; give at most"),
    (["--layer.sampling.patches=100"], r"layer\.sampling\.patches: 100 sampled patches for 128 atoms; give at least"),
    (["--layer.atoms=90000"], r"layer\.atoms: 90000 are more than the 46584 patches that .* have at layer 1; give"),
    (["--layers.1.atoms=90000"], r"layers\.1\.atoms: 90000 are more than the 46584 patches"),
    (["--layer.atomz=3"], r"layer\.atomz: there is no such setting, did you mean layer\.atoms;"),
    (["--dept", "3"], r"dept: there is no such setting, did you mean depth;"),
    (["--layers.1.atomz=3"], r"layers\.1\.atomz: there is no such setting, did you mean layers\.1\.atoms;"),
    (["--layers.1.atoms=x"], r"layers\.1\.atoms: x is not a whole number"),
    (["--layers.one.atoms=3"], r"layers: one is not the number of a layer"),
    (["--layers.3.atoms=64", "--depth=2"], r"layers\.3: there is no layer 3 at depth 2"),
    (["--layers.0.atoms=64"], r"layers\.0: there is no such layer"),
    (["--data.name=cifar11"], r"data\.name: cifar11 is not one of arrays, cifar10, .*; did you mean cifar10\?"),
    (["--data.name=mine"], r"data\.name: mine is not one of .*, digits, .*"),
    (["--data.validation=1.5"], r"data\.validation: 1\.5 is out of range; give a number between 0 and 1, such as 0\.1"),
    (["--data.crop=8"], r"data\.crop: 8 is not below the side"),
    (["--optimizer.learning_rate=0"], r"optimizer\.learning_rate: 0\.0 is out of range; give a positive"),
    (["--optimizer.weight_decay=-1"], r"optimizer\.weight_decay: -1\.0 is out of range; give 0 or a positive"),
    (["--layers.1.optimizer.weight_decay=-1"], r"layers\.1\.optimizer\.weight_decay: -1\.0 is out of range; give 0 or"),
    (["--optimizer.batch_size=5000"], r"optimizer\.batch_size: 5000 is more than the 1294"),
    (["--layers.1.optimizer.batch_size=5000"], r"layers\.1\.optimizer\.batch_size: 5000 is more than the 1294"),
    (["--trainer.devices=0"], r"trainer\.devices: 0 is too small"),
    (
        ["--trainer.devices=3"],
        r"optimizer\.batch_size: 64 images cannot be divided among 3 processes.* a multiple of 3",
    ),
    (["--config=nowhere.yaml"], r"config: nowhere\.yaml is not a file; .*digits"),
    (["--data.name=image_folder", "--data.root=nowhere"], r"data\.root: nowhere is not a folder"),
    (["--data.name=cifar10", "--data.download=false"], r"data\.root: data does not hold cifar10"),
    (["stray"], r"not a setting: stray"),
]


@pytest.mark.parametrize(
    "arguments, message", BAD, ids=lambda value: " ".join(value) if isinstance(value, list) else ""
)
def test_bad_input__one_line__exit_2__nothing_written(
    arguments: list[str], message: str, command: Command, tmp_path: Path
) -> None:
    done = command("train", "--config=plain_digits", *arguments)
    assert done.returncode == 2, done.stderr
    assert re.fullmatch(rf"error: {message}.*\n", done.stderr), done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "content, message",
    [
        ("a: [b\n", r"config: s\.yaml is not plain YAML \(line 2: .*\)"),
        ("- depth\n", r"config: s\.yaml is a list, not settings"),
        ("", r"config: s\.yaml is empty"),
        ("layr: {atoms: 9}\n", r"layr\.atoms: there is no such setting, did you mean layer\.atoms;"),
        ("epochs: 3\n", r"epochs: there is no such setting, did you mean optimizer\.epochs;"),
        ("depth: many\n", r"depth: many is not a whole number"),
        ("layers: {0: {atoms: 9}}\n", r"layers\.0: there is no such layer"),
        ("layers: {one: {atoms: 9}}\n", r"layers: one is not the number of a layer"),
        ("layers: {2: {atomz: 9}}\n", r"layers\.2\.atomz: there is no such setting, did you mean layers\.2\.atoms;"),
        ("layers: {2: 9}\n", r"layers\.2: 9 is not a group of settings"),
        ("layer: {atoms: 9, neighbors: 10}\n", r"layer\.neighbors: 10 of 9 atoms"),
    ],
)
def test_bad_settings_file(content: str, message: str, command: Command, tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(content)
    done = command("train", "--config", "s.yaml")
    assert done.returncode == 2
    assert re.fullmatch(rf"error: {message}.*\n", done.stderr), done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["s.yaml"]


def test_bad_run_directory(command: Command, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter.txt").write_text("x")
    for name, message in (
        ("file", "is a file"),
        ("other", "holds files but no run"),
        ("file/below", "cannot be written"),
    ):
        done = command("train", f"--run_dir={name}")
        assert done.returncode == 2
        assert re.fullmatch(rf"error: run_dir: {name} {message}.*\n", done.stderr), done.stderr
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["letter.txt"]


def test_help__names_every_setting(command: Command) -> None:
    done = command("train", "--help")
    assert done.returncode == 0
    for name in ("--depth", "--layer.atoms", "--layers", "--optimizer.epochs", "--data.root", "--wandb.mode"):
        assert name in done.stdout
    assert "size N of the dictionary" in done.stdout


def test_print_config__can_be_used_as_a_settings_file(command: Command, tmp_path: Path) -> None:
    printed = command("train", "--depth=2", "--layers.2.atoms=64", "--print_config")
    assert printed.returncode == 0
    (tmp_path / "s.yaml").write_text(printed.stdout)
    again = command("train", "--config=s.yaml", "--print_config")
    assert again.stdout == printed.stdout
    assert "atoms: 64" in printed.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["s.yaml"]


def test_a_loss_that_is_not_finite__names_layer_and_step__keeps_no_broken_layer(
    command: Command, tmp_path: Path
) -> None:
    done = command("train", *QUIET, "--optimizer.learning_rate=1e30")
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    told = (
        r"error: layer 1, epoch 1: the loss is not finite at step [12]; a learning rate of 1e\+30 is likely too high; "
    )
    assert re.fullmatch(rf"{told}give a lower --layers\.1\.optimizer\.learning_rate and .*", last), last
    assert not (tmp_path / "r" / "layer-1" / "layer.json").exists()
    decayed = command("train", *QUIET, "--restart_from=1", "--optimizer.weight_decay=1e30").stderr
    told = "a decay of 1e+30 is too strong for a learning rate of 0.003; give a lower --layers.1.optimizer.weight_decay"
    assert told in decayed


def test_image_folder__trains_from_start_to_end(command: Command, folder: Path, tmp_path: Path) -> None:
    done = command(
        "train", "--data.name=image_folder", f"--data.root={folder}", "--run_dir=r", "--depth=2", *SMALL[:3],
        "--optimizer.epochs=3", "--optimizer.batch_size=16", "--layer.patch_size=3", "--wandb.mode=disabled",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "test accuracy at depth 2: 100.00%" in done.stdout
    assert Image.open(tmp_path / "r" / "layer-1-atoms.png").size[0] > 200
