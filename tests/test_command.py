"""train.py as a process: what it answers to bad input, and that it then writes nothing."""

import re
from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import ROOT, SMALL, Command, run_command

BAD = [
    (["--depth=0"], r"depth: 0 is too small; give a whole number of at least 1"),
    (["--depth=-3"], r"depth: -3 is too small"),
    (["--depth", "two"], r"depth: two is not a whole number"),
    (["--depth=1.5"], r"depth: 1\.5 is not a whole number"),
    (["--depth=2", "--layer.pool=5"], r"layer 2: patch_size 3 does not fit its 2×2 input; give a smaller"),
    (["--layer.neighbors=200"], r"layer\.neighbors: 200 neighbors of 128 atoms; give at most"),
    (["--depth=2", "--layers.2.neighbors=200"], r"layers\.2\.neighbors: 200 neighbors of 128 atoms"),
    (["--layer.patches=100"], r"layer\.patches: 100 sampled patches for 128 atoms; give at least"),
    (["--layer.atoms=90000"], r"layer 1: atoms 90000 are more than the 46584 patches"),
    (["--layer.atomz=3"], r"layer\.atomz: there is no such setting, did you mean layer\.atoms;"),
    (["--dept", "3"], r"dept: there is no such setting, did you mean depth;"),
    (["--layers.1.atomz=3"], r"layers: atomz: there is no such setting, did you mean atoms;"),
    (["--layers.1.atoms=x"], r"layers: atoms: x is not a whole number"),
    (["--layers.one.atoms=3"], r"layers: one is not the number of a layer"),
    (["--layers.3.atoms=64", "--depth=2"], r"layers\.3: there is no layer 3 at depth 2"),
    (["--layers.0.atoms=64"], r"layers\.0: there is no such layer"),
    (["--data.name=cifar11"], r"data\.name: cifar11 is not one of digits, fashion_mnist, cifar10"),
    (["--data.validation=1.5"], r"data\.validation: 1\.5 is not a share"),
    (["--data.crop=8"], r"data\.crop: 8 is not below the side"),
    (["--optimizer.learning_rate=0"], r"optimizer\.learning_rate: 0\.0; give a positive"),
    (["--layer.weight_decay=-1"], r"layer\.weight_decay: -1\.0; give 0 or a positive"),
    (["--optimizer.batch_size=5000"], r"optimizer\.batch_size: 5000 is more than the 1294"),
    (["--trainer.devices=2"], r"trainer\.devices: 2"),
    (["--config=nowhere.yaml"], r"config: nowhere\.yaml is not a file"),
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
    done = command(*arguments)
    assert done.returncode == 2, done.stderr
    assert re.fullmatch(rf"error: .*{message}.*\n", done.stderr), done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "content, message",
    [
        ("a: [b\n", r"config: s\.yaml is not YAML \(line 2\)"),
        ("- depth\n", r"config: s\.yaml is a list, not settings"),
        ("", r"config: s\.yaml is empty"),
        ("layr: {atoms: 9}\n", r"layr\.atoms: there is no such setting, did you mean layer\.atoms;"),
        ("depth: many\n", r"depth: many is not a whole number"),
        ("layers: {0: {atoms: 9}}\n", r"layers\.0: there is no such layer"),
    ],
)
def test_bad_settings_file(content: str, message: str, command: Command, tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(content)
    done = command("--config", "s.yaml")
    assert done.returncode == 2
    assert re.fullmatch(rf"error: .*{message}.*\n", done.stderr), done.stderr
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
        done = command(f"--run_dir={name}")
        assert done.returncode == 2
        assert re.fullmatch(rf"error: run_dir: {name} {message}.*\n", done.stderr), done.stderr
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["letter.txt"]


def test_help__names_every_setting__without_torch(command: Command, tmp_path: Path) -> None:
    done = command("--help")
    assert done.returncode == 0
    for name in ("--depth", "--layer.atoms", "--layers", "--optimizer.epochs", "--data.root", "--wandb.mode"):
        assert name in done.stdout
    assert "size N of the dictionary" in done.stdout
    imported = run_command(tmp_path, "-X", "importtime", str(ROOT / "train.py"), "--help").stderr
    assert "jsonargparse" in imported
    assert not re.search(r"\| +(torch|numpy|lightning|wandb)$", imported, re.MULTILINE)


def test_print_config__can_be_used_as_a_settings_file(command: Command, tmp_path: Path) -> None:
    printed = command("--depth=2", "--layers.2.atoms=64", "--print_config")
    assert printed.returncode == 0
    (tmp_path / "s.yaml").write_text(printed.stdout)
    again = command("--config=s.yaml", "--print_config")
    assert again.stdout == printed.stdout
    assert "atoms: 64" in printed.stdout


def test_a_loss_that_is_not_finite__names_layer_and_step__keeps_no_broken_layer(
    command: Command, tmp_path: Path
) -> None:
    done = command(*SMALL, "--optimizer.learning_rate=1e30", "--run_dir=r", "--wandb.mode=disabled")
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert re.fullmatch(r"error: layer 1: the loss is not finite at step \d+; the last good epoch is kept: .*", last), (
        last
    )
    assert not (tmp_path / "r" / "layer-1" / "layer.json").exists()


def test_image_folder__trains_from_start_to_end(command: Command, folder: Path, tmp_path: Path) -> None:
    done = command(
        "--data.name=image_folder", f"--data.root={folder}", "--run_dir=r", "--depth=2", *SMALL[:3],
        "--optimizer.epochs=3", "--optimizer.batch_size=16", "--layer.patch_size=3", "--wandb.mode=disabled",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "test accuracy at depth 2: 100.00%" in done.stdout
    assert Image.open(tmp_path / "r" / "layer-1-atoms.png").size[0] > 200
