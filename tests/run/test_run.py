"""A run's directory: its files, what is refused, what is found to be damaged."""

import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn

import layerwise
from layerwise.config import Data
from layerwise.data.splits import load_data
from layerwise.errors import DamagedRun, SettingError
from layerwise.parsing import parse
from layerwise.run.files import commit, read_record, write_record
from layerwise.run.record import LayerRecord
from layerwise.run.run import Run
from layerwise.training.fit import CommittedCheckpoints
from tests.conftest import QUIET, SMALL, Command


def hashes(run: Path, pattern: str = "layer-*/*") -> dict[str, str]:
    """SHA-256 of the files of a run."""
    return {str(path.relative_to(run)): hashlib.sha256(path.read_bytes()).hexdigest() for path in run.glob(pattern)}


def test_run__leaves_the_files_it_should(trained: Path) -> None:
    names = {path.name for path in trained.iterdir()}
    assert {"config.yaml", "summary.json", "report.html", "layer-1", "layer-2", "accuracy.png"} <= names
    for layer in ("layer-1", "layer-2"):
        files = {path.name for path in (trained / layer).iterdir()}
        assert files == {"dictionary.safetensors", "layer.safetensors", "layer.json"}
    summary = json.loads((trained / "summary.json").read_text())
    own = {"depth", "test_accuracy", "layers", "seconds", "stopped", "images", "made"}
    assert set(summary) == own and summary["stopped"] is None
    assert {name: len(counts) for name, counts in summary["images"].items()} == {"train": 10, "val": 10, "test": 10}
    assert summary["depth"] == 2 and 0 < summary["test_accuracy"] <= 1
    assert [set(layer) for layer in summary["layers"]] == [
        {"layer", "atoms", "output_shape", "train_accuracy", "val_accuracy", "test_accuracy", "seconds", "advice"}
    ] * 2
    record = json.loads((trained / "layer-2" / "layer.json").read_text())
    assert record["output_shape"] == [8, 4, 4]
    assert record["val_accuracy"] == max(epoch["val_accuracy"] for epoch in record["epochs"])
    for name, digest in record["files"].items():
        assert hashlib.sha256((trained / "layer-2" / name).read_bytes()).hexdigest() == digest


def test_run__config_yaml_is_the_whole_configuration(trained: Path) -> None:
    assert Run(trained).config == parse(["--depth=2", *QUIET])[0]
    assert list(yaml.safe_load((trained / "config.yaml").read_text())) == list(vars(layerwise.Config()))


def test_run__config_yaml_keeps_letters_and_order(tmp_path: Path) -> None:
    config = parse(["--wandb.tags=[größe]", *QUIET])[0]
    run = Run(tmp_path / "deep" / "r")
    run.start(config, load_data(config.data, 0))
    run.release()
    text = (tmp_path / "deep" / "r" / "config.yaml").read_text(encoding="utf-8")
    assert "größe" in text and text.startswith("depth: 1\nseed: 0\n") and run.config == config


def test_check__refuses_a_folder_below_a_program(tmp_path: Path) -> None:
    (tmp_path / "program").touch(0o755)
    with pytest.raises(SettingError, match="^run_dir: .*program/r cannot be written to; give a folder that can"):
        Run(tmp_path / "program" / "r").check(parse(QUIET)[0], load_data(Data(), 0))


def test_start__refuses_changed_settings__and_leaves_what_is_written(finished: Path) -> None:
    run, before = Run(finished), (finished / "config.yaml").read_bytes()
    data = load_data(run.config.data, 0)
    with pytest.raises(SettingError, match=r"^layer\.atoms: 20, but layer 1 was trained with 16"):
        run.start(parse(["--depth=2", *QUIET, "--layer.atoms=20"])[0], data)
    run.release()
    assert (finished / "config.yaml").read_bytes() == before
    run.start(run.config, data)
    run.release()


def test_a_finished_run__is_not_trained_again(finished: Path, command: Command) -> None:
    before = hashes(finished)
    done = command("train", "--depth=2", *QUIET)
    assert done.returncode == 0
    assert ": epoch" not in done.stdout and "test accuracy" in done.stdout
    assert hashes(finished) == before


CHANGES = [
    (["--layer.atoms=20"], r"layer\.atoms: 20, but layer 1 was trained with 16"),
    (["--layer.neighbors=3"], r"layer\.neighbors: 3, but layer 1 was trained with null"),
    (["--layers.2.pool=2"], r"layers\.2\.pool: 2, but layer 2 was trained with 1"),
    (["--seed=1"], r"seed: 1, but the run was trained with 0"),
    (["--optimizer.epochs=9"], r"optimizer\.epochs: 9, but layer 1 was trained with 2"),
    (["--layers.2.optimizer.epochs=9"], r"layers\.2\.optimizer\.epochs: 9, but layer 2 was trained with 2"),
    (["--data.validation=0.2"], r"data\.validation: 0\.2, but the run was trained with 0\.1"),
    (["--features.views=3"], r"features\.views: 3, but the run was trained with 2"),
    (["--trainer.precision=bf16-mixed"], r"trainer\.precision: bf16-mixed, but the run was trained with 32-true"),
    (
        ["--layer.whitening.epsilon=1", "--layer.atoms=20", "--seed=1"],
        r"seed: 1, but the run was trained with 0; layer\.atoms: 20, but layer 1 was trained with 16; "
        r"layer\.whitening\.epsilon: 1\.0, but layer 1 was trained with 0\.03",
    ),
]


@pytest.mark.parametrize("changed, message", CHANGES, ids=[" ".join(changed) for changed, _ in CHANGES])
def test_a_changed_setting__is_refused_by_name(
    changed: list[str], message: str, finished: Path, command: Command
) -> None:
    before = hashes(finished, "**/*.*")
    done = command("train", "--depth=2", *QUIET, *changed)
    assert done.returncode == 2
    assert re.fullmatch(
        rf"error: {message} in r: give what it was trained with, another --run_dir, or --restart_from [12]\n",
        done.stderr,
    ), done.stderr
    assert hashes(finished, "**/*.*") == before


def test_changed_images__are_refused(command: Command, folder: Path) -> None:
    settings = ["train", "--data.name=image_folder", f"--data.root={folder}", "--run_dir=r", "--wandb.mode=disabled"]
    settings += [*SMALL[1:], "--layer.atoms=4", "--optimizer.epochs=1", "--optimizer.batch_size=16"]
    assert command(*settings).returncode == 0
    train = folder / "train"
    (train / "dark" / "00.png").unlink()
    (train / "dark" / "01.png").rename(train / "dark" / "new.png")  # one gone, one that is new
    shutil.copy(train / "bright" / "02.png", train / "bright" / "03.png")
    done = command(*settings)
    assert done.returncode == 2
    told = r"holds other images than those that were trained on \(1 added, 2 removed, 1 changed\) in r: give"
    assert re.fullmatch(rf"error: data\.root: {re.escape(str(folder))} {told} .*\n", done.stderr), done.stderr


def test_what_does_not_touch_the_weights__may_change(finished: Path, command: Command) -> None:
    same = ["--data.root=elsewhere", "--wandb.name=other", "--trainer.accelerator=cpu", "--layers.2.atoms=16"]
    before = hashes(finished)
    done = command("train", "--depth=2", *QUIET, *same)
    assert done.returncode == 0, done.stderr
    assert hashes(finished) == before


def flip(path: Path) -> None:
    """Flip a file's last bit."""
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("name", ["layer.safetensors", "dictionary.safetensors"])
def test_a_damaged_file__is_named(name: str, finished: Path, command: Command) -> None:
    flip(finished / "layer-1" / name)
    for arguments in (["train", "--depth=2", *QUIET], ["evaluate", "r"]):
        done = command(*arguments)
        assert done.returncode == 1
        assert re.search(rf"layer-1/{name} is missing or damaged.*; give --restart_from 1 to", done.stderr)
        assert done.stderr.count("\n") == 1
    with pytest.raises(DamagedRun, match=name):
        layerwise.load(finished)


@pytest.mark.parametrize(
    "name, change",
    [
        ("layer.safetensors", lambda path: path.unlink()),
        ("dictionary.safetensors", lambda path: path.unlink()),
        ("dictionary.safetensors", lambda path: path.write_bytes(path.read_bytes()[:100])),
        ("layer.json", lambda path: path.write_text(path.read_text()[:-20])),
        ("layer.json", lambda path: path.write_text("[]")),
        ("layer.json", lambda path: path.write_text(path.read_text().replace('"atoms": 16', '"atoms": 17', 2))),
    ],
)
def test_a_missing_or_changed_file__is_named(name: str, change: Any, finished: Path) -> None:
    change(finished / "layer-2" / name)
    with pytest.raises(DamagedRun, match=rf"layer-2/{name} is missing or damaged.*; give --restart_from 2 to train it"):
        layerwise.load(finished)


def test_a_damaged_config__is_named__and_written_anew_by_the_command(finished: Path, command: Command) -> None:
    (finished / "config.yaml").write_text("depth: [")
    done = command("evaluate", "r")
    assert done.returncode == 1
    assert re.fullmatch(r"error: r/config\.yaml is damaged or was edited .*\n", done.stderr), done.stderr
    assert command("train", "--depth=2", *QUIET).returncode == 0
    assert command("evaluate", "r").returncode == 0


OLD = {"seed": 0, "optimizer": {"epochs": 2}, "layer 1": {"atoms": 16, "gate": "nearest", "norm": "batch"}}
"""settings as an older version named them"""


@pytest.mark.parametrize("metadata", [{"settings": json.dumps(OLD)}, None], ids=["settings", "nothing"])
@pytest.mark.parametrize("whole", [True, False], ids=["finished", "begun"])
def test_a_run_of_an_older_version__gives_one_clear_line(
    whole: bool, metadata: dict[str, str] | None, finished: Path, command: Command
) -> None:
    for folder in finished.glob("layer-?"):
        path = folder / "dictionary.safetensors"
        save_file(load_file(path), path, metadata)
        record = json.loads((folder / "layer.json").read_text())
        del record["format"]
        (folder / "layer.json").write_text(json.dumps(record))
        if not whole:
            (folder / "layer.json").unlink()
    (finished / "config.yaml").write_text("depth: 2\nlayer:\n  atoms: 16\n  gate: nearest\n  norm: batch\n")
    before = hashes(finished, "**/*.*")
    message = (
        r"r/layer-1 was written by another version of layerwise \(format 1, this one reads 4\); give another --run_dir"
    )
    done = command("train", "--depth=2", *QUIET)
    assert done.returncode == 1
    assert re.fullmatch(rf"error: {message} .*\n", done.stderr), done.stderr
    if whole:
        done = command("evaluate", "r")
        assert done.returncode == 1
        assert re.fullmatch(rf"error: {message} .*\n", done.stderr), done.stderr
        with pytest.raises(DamagedRun, match=message.removeprefix("r/")):
            layerwise.load(finished)
    assert hashes(finished, "**/*.*") == before


def test_save_dictionary__the_same_gives_the_same_bytes(trained: Path, tmp_path: Path) -> None:
    dictionary = Run(trained).layer(1).dictionary()
    assert dictionary is not None
    run = Run(tmp_path)
    written: set[str] = set()
    for _ in range(20):
        run.layer(1).save_dictionary(dictionary, OLD)
        written.update(hashes(tmp_path).values())
    assert len(written) == 1


def test_a_run_directory_in_use__is_refused(finished: Path, command: Command) -> None:
    lock = os.open(finished / ".lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(lock, fcntl.LOCK_EX)
    done = command("train", "--depth=2", *QUIET)
    os.close(lock)
    assert done.returncode == 2
    assert "r is in use by another process" in done.stderr
    assert command("train", "--depth=2", *QUIET).returncode == 0
    assert command("train", "--depth=2", *QUIET).returncode == 0  # each has let go of it


def test_a_layer__is_not_put_on_another_than_it_was_trained_on(finished: Path, command: Command) -> None:
    retrained = ["train", "--depth=1", *QUIET, "--run_dir=other", "--seed=0"]
    assert command(*retrained, "--layers.1.dictionary=sampled").returncode == 0
    for name in ("dictionary.safetensors", "layer.safetensors", "layer.json"):
        shutil.copy(finished.parent / "other" / "layer-1" / name, finished / "layer-1" / name)
    with pytest.raises(
        DamagedRun, match=r"layer-2 was trained on another layer than .*layer-1 holds; give --restart_from 2 "
    ):
        layerwise.load(finished)
    done = command("train", "--depth=2", *QUIET, "--layers.1.dictionary=sampled")
    assert done.returncode in (1, 2) and "layer-2" in done.stderr and done.stderr.count("\n") == 1
    shutil.rmtree(finished / "layer-2")
    assert command("train", "--depth=2", *QUIET, "--layers.1.dictionary=sampled").returncode == 0


def test_any_image__that_changed_is_noticed(command: Command, folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "train", folder / "test")
    settings = ["train", "--config=plain_digits", "--data.name=image_folder", f"--data.root={folder}", "--run_dir=r"]
    settings += ["--wandb.mode=disabled", "--layer.atoms=4", "--optimizer.epochs=1", "--optimizer.batch_size=16"]
    assert command(*settings).returncode == 0
    path = folder / "test" / "dark" / "59.png"
    pixels = np.array(Image.open(path))
    pixels[7, 7, 2] ^= 1  # the last bit of one pixel of one test image
    Image.fromarray(pixels).save(path)
    done = command(*settings)
    assert done.returncode == 2 and "holds other images" in done.stderr


def test_a_record__that_does_not_say_how_training_images_did__is_shown_without(
    finished: Path, command: Command
) -> None:
    path = finished / "layer-2" / "layer.json"
    values = read_record(path)
    for epoch in values["epochs"]:
        del epoch["train_accuracy"]
    write_record(path, values)
    done = command("report", "r")
    assert done.returncode == 0, done.stderr
    assert "<td>–</td>" in (finished / "report.html").read_text()


def test_restart_from__deletes_that_layer_and_those_above__and_ends_as_before(finished: Path, command: Command) -> None:
    before, kept = hashes(finished), (finished / "layer-1" / "layer.json").stat().st_mtime_ns
    other = command("train", "--depth=2", *QUIET, "--restart_from=2", "--layers.2.atoms=8", "--optimizer.epochs=2")
    assert other.returncode == 0, other.stderr
    assert "layer 2: deleted, as --restart_from 2 says" in other.stdout and "layer 1: already trained" in other.stdout
    assert json.loads((finished / "layer-2" / "layer.json").read_text())["atoms"] == 8
    again = command("train", "--depth=2", *QUIET, "--restart_from", "2")
    assert again.returncode == 0, again.stderr
    assert hashes(finished, "*/*.safetensors") == {k: v for k, v in before.items() if k.endswith("safetensors")}
    assert (finished / "layer-1" / "layer.json").stat().st_mtime_ns == kept
    assert not list(finished.glob(".deleted*"))


@pytest.mark.parametrize("given", ["0", "3", "-1", "two", "1.5", "null"])
def test_restart_from__names_one_of_the_layers(given: str, finished: Path, command: Command) -> None:
    before = hashes(finished)
    done = command("train", "--depth=2", *QUIET, f"--restart_from={given}")
    assert done.returncode == 2
    assert done.stderr == f"error: restart_from: {given} is not a layer; give one of the layers 1 to 2\n"
    assert hashes(finished) == before


def test_restart_from__with_other_settings_below__is_refused_and_deletes_nothing(
    finished: Path, command: Command
) -> None:
    before = hashes(finished)
    done = command("train", "--depth=2", *QUIET, "--restart_from=2", "--layer.atoms=20")
    assert done.returncode == 2 and "layer.atoms: 20, but layer 1 was trained with 16" in done.stderr
    assert hashes(finished) == before


def test_a_smaller_depth__is_what_is_loaded__and_the_layers_above_are_kept(finished: Path, command: Command) -> None:
    before = hashes(finished)
    assert command("train", "--depth=1", *QUIET).returncode == 0
    assert json.loads((finished / "summary.json").read_text())["depth"] == 1
    assert len(layerwise.load(finished).stack) == 1
    done = command("train", "--depth=2", *QUIET)
    assert "layer 2: already trained" in done.stdout and len(layerwise.load(finished).stack) == 2
    assert hashes(finished) == before


def test_a_config_edited_by_hand__is_one_line_wherever_it_is_read(finished: Path, command: Command) -> None:
    path = finished / "config.yaml"
    path.write_text(path.read_text().replace("depth: 2", "depth: 1"))
    done = command("evaluate", "r")
    assert done.returncode == 1
    told = r"error: r/config\.yaml is damaged or was edited \(it is not as it was written\); the command that made .*\n"
    assert re.fullmatch(told, done.stderr), done.stderr
    with pytest.raises(DamagedRun, match="config.yaml is damaged or was edited"):
        layerwise.load(finished)


@pytest.mark.parametrize("left", ["last.ckpt", "layer.safetensors"])
def test_a_missing_dictionary__below_what_was_trained_on_it__is_named(
    left: str, finished: Path, command: Command
) -> None:
    for path in (finished / "layer-2").iterdir():
        path.unlink()
    (finished / "layer-2" / left).write_bytes(b"x")
    done = command("train", "--depth=2", *QUIET)
    assert done.returncode == 1
    expected = (
        rf"error: r/layer-2/dictionary\.safetensors is missing or damaged \(missing, though there is {left}\); .*\n"
    )
    assert re.fullmatch(expected, done.stderr), done.stderr


def test_a_dictionary_that_a_bit_was_flipped_in__before_its_layer_is_finished__is_named(
    finished: Path, command: Command
) -> None:
    for name in ("layer.json", "layer.safetensors"):
        (finished / "layer-2" / name).unlink()
    flip(finished / "layer-2" / "dictionary.safetensors")  # the last bit of the last number
    done = command("train", "--depth=2", *QUIET)
    assert done.returncode == 1
    assert "r/layer-2/dictionary.safetensors is missing or damaged (its content is not what was written)" in done.stderr
    assert command("train", "--depth=2", *QUIET, "--restart_from=2").returncode == 0


def test_a_record_with_another_accuracy__is_named(finished: Path) -> None:
    path = finished / "layer-2" / "layer.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps(values | {"val_accuracy": values["val_accuracy"] + 0.01}))
    with pytest.raises(DamagedRun, match=r"layer-2/layer.json is missing or damaged \(its content is not what was"):
        layerwise.load(finished)


def test_commit__leaves_the_old_file_where_the_new_one_cannot_be_written(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("old")

    def write(temporary: Path) -> None:
        temporary.write_text("half of it")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match=r"a could not be written: \[Errno 28\] No space left on device; make room"):
        commit(path, write)
    assert path.read_text() == "old" and [file.name for file in tmp_path.iterdir()] == ["a"]


def test_commit__does_not_follow_a_link_that_lies_there(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("old")
    (tmp_path / ".a.partial").symlink_to(tmp_path / "precious")
    commit(tmp_path / "a", lambda temporary: temporary.write_text("new"))
    assert (tmp_path / "precious").read_text() == "old" and (tmp_path / "a").read_text() == "new"
    assert not (tmp_path / "a").is_symlink()


def test_what_a_kill_left__is_gone_after_the_next_command(finished: Path, command: Command) -> None:
    before = {path.name for path in (finished / "layer-2").iterdir()}
    for name in (
        "last.ckpt",
        ".layer.json.partial",
    ):  # killed before the former was deleted, while the other was written
        (finished / "layer-2" / name).write_bytes(b"x")
    assert command("train", "--depth=2", *QUIET).returncode == 0
    assert {path.name for path in (finished / "layer-2").iterdir()} == before


def test_what_restart_from_was_killed_in__is_made_up_for_by_the_next_command(
    finished: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {str(path.relative_to(finished)) for path in finished.rglob("*")}
    again, stop = ("train", "--depth=2", *QUIET), KeyboardInterrupt
    for moment in ("layerwise.run.run.secrets.token_hex", "layerwise.run.run.shutil.rmtree"):
        with monkeypatch.context() as patch, pytest.raises(stop):
            patch.setattr(moment, partial(_raise, stop))
            command(*again, "--restart_from=2")
        left = {path.name for path in finished.iterdir()}
        told = ["summary.json", "report.html", "layer-2-atoms.png", "layer-2-usage.png", "layer-2-answers.png"]
        assert not left.intersection(told) and "layer-1-atoms.png" in left
        done = command(*again)
        assert done.returncode == 0, done.stderr
        assert {str(path.relative_to(finished)) for path in finished.rglob("*")} == before


def _raise(error: type[BaseException], *_: object) -> None:
    raise error


def test_a_figure_that_a_kill_came_before__is_drawn_by_the_next_command(
    finished: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures = sorted(finished.glob("layer-2-*.png"))
    for path in figures:
        path.unlink()
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("layerwise.report.pictures.answers_picture", partial(_raise, KeyboardInterrupt))
        command("train", "--depth=2", *QUIET)
    assert command("train", "--depth=2", *QUIET).returncode == 0
    assert sorted(finished.glob("layer-2-*.png")) == figures


def test_what_only_cannot_be_read__is_not_said_to_be_damaged(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(_: Path) -> None:
        raise OSError(errno.ESTALE, "Stale file handle")

    def lacking(_: Path) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    told = r"safetensors cannot be read \(Stale file handle\); let it be read, or give --restart_from 1"
    for read, expected, match in ((gone, DamagedRun, told), (lacking, RuntimeError, "^DefaultCPUAllocator")):
        with monkeypatch.context() as patch, pytest.raises(expected, match=match):
            patch.setattr("layerwise.run.folder.read_tensors", read)
            layerwise.load(finished)


def test_names_that_are_no_utf_8(
    finished: Path, command: Command, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, moved = os.fsdecode(b"caf\xe9"), os.fsdecode(b"moved\xe9")
    folder.rename(images)
    settings = [*SMALL[1:], "--layer.atoms=4", "--optimizer.epochs=1", "--optimizer.batch_size=16"]
    own = ["--data.name=image_folder", f"--data.root={images}", "--run_dir=own", "--wandb.mode=disabled"]
    monkeypatch.setattr("sys.argv", ["layerwise", "train", *own, *settings])
    done = command("train", *own, *settings)
    assert done.returncode == 0 and Path("own/report.html").exists(), done.stderr
    assert f"--data.root={images}" in json.loads(Path("own/summary.json").read_text())["made"]["command"]
    finished.rename(moved)
    for arguments in (["evaluate", moved], ["predict", moved, "own/accuracy.png"], ["report", moved]):
        done = command(*arguments)
        assert done.returncode == 2 and r"moved\udce9' is not UTF-8; give a name that is" in done.stderr


def test_a_checkpoint_of_another_training__is_refused(command: Command, tmp_path: Path) -> None:
    """Of the same shape: only what it was trained with tells it from the right one."""
    given = ["train", *QUIET, "--depth=1"]
    for name, seed in (("r", 0), ("other", 1)):
        done = command(*given, f"--seed={seed}", f"--run_dir={name}", "--optimizer.learning_rate=1e30")
        assert done.returncode == 1  # after the dictionary is written
    module = nn.Linear(1, 1)
    for name, identity in (("r", "mine"), ("other", "another's")):
        io = CommittedCheckpoints(identity)
        io.save_checkpoint({"state_dict": module.state_dict()}, tmp_path / name / "layer-1" / "last.ckpt")
    theirs = tmp_path / "other" / "layer-1" / "last.ckpt"
    assert CommittedCheckpoints("another's").load_checkpoint(theirs)["state_dict"]["bias"] == module.bias
    with pytest.raises(DamagedRun, match=r"last.ckpt is damaged \(it is of another training\); delete it"):
        CommittedCheckpoints("mine").load_checkpoint(theirs)
    shutil.copy(theirs, tmp_path / "r" / "layer-1" / "last.ckpt")
    done = command(*given, "--optimizer.learning_rate=1e30")
    assert done.returncode == 1 and "last.ckpt is damaged (it is of another training)" in done.stderr


@pytest.mark.parametrize("what", ["layer-1/layer.json", "layer-1"])
def test_a_missing_layer__below_one_that_stands_on_it__is_named(what: str, finished: Path, command: Command) -> None:
    (finished / what).rename(finished.parent / "kept")
    for arguments in (["train", "--depth=2", *QUIET], ["evaluate", "r"]):
        done = command(*arguments)
        assert done.returncode == 1
        told = (
            r"error: r/layer-1/layer.json is missing, though r/layer-2 was trained on that layer; put it back, or .*1\n"
        )
        assert re.fullmatch(told, done.stderr), done.stderr
    (finished.parent / "kept").rename(finished / what)
    assert command("evaluate", "r").returncode == 0


def test_the_configuration_of_another_run__is_named(finished: Path, command: Command) -> None:
    other = Run(finished.parent / "other")
    other.start(parse([*QUIET, "--seed=1"])[0], load_data(Data(), 1))
    other.release()
    shutil.copy(other.path / "config.yaml", finished / "config.yaml")
    done = command("evaluate", "r")
    assert done.returncode == 1
    told = r"error: r/config.yaml is of another run \(seed: 1, but the run was trained with 0\); give the command .*\n"
    assert re.fullmatch(told, done.stderr), done.stderr
    assert command("train", "--depth=2", *QUIET).returncode == 0 and command("evaluate", "r").returncode == 0


def test_a_missing_configuration__is_named__and_written_anew(finished: Path, command: Command) -> None:
    (finished / "config.yaml").unlink()
    done = command("evaluate", "r")
    assert done.stderr == "error: r/config.yaml is missing; the command that made the run writes it anew\n"
    assert command("train", "--depth=2", *QUIET).returncode == 0 and command("evaluate", "r").returncode == 0


def test_what_stands_where_a_file_should__is_named(finished: Path, command: Command) -> None:
    path = finished / "layer-2" / "layer.json"
    path.unlink()
    for make in (path.mkdir, partial(os.mkfifo, path)):
        make()
        done = command("train", "--depth=2", *QUIET)
        assert done.returncode == 1 and "r/layer-2/layer.json is missing or damaged (it is no file)" in done.stderr
        assert command("train", "--depth=2", *QUIET, "--restart_from=2").returncode == 0
        path.unlink()
    shutil.rmtree(finished / "layer-2")
    (finished / "layer-2").write_text("x")
    assert command("train", "--depth=2", *QUIET, "--restart_from=2").returncode == 0
    assert not list(finished.glob(".deleted*"))


def test_a_run_may_be_moved_halfway(finished: Path, command: Command, tmp_path: Path) -> None:
    given, whole = ["train", *QUIET, "--depth=2"], hashes(finished)
    again = command("train", *QUIET, "--run_dir=~/r")
    assert again.returncode in (0, 1) and not (tmp_path / "~").exists()
    shutil.move(finished, tmp_path / "moved")
    moved = command(*given, "--run_dir=moved")
    assert moved.returncode == 0 and moved.stderr == "" and hashes(tmp_path / "moved") == whole


@pytest.mark.parametrize("restart_from", [0, -1, 3, "1", 1.0])
def test_train__restarts_from_a_layer_alone(restart_from: Any, finished: Path) -> None:
    before = hashes(finished)
    config = parse(["--depth=2", *QUIET])[0]
    with pytest.raises(SettingError, match=rf"restart_from: {restart_from} is not one of the layers 1 to 2"):
        layerwise.train(config, finished, restart_from=restart_from)
    assert hashes(finished) == before


def test_train__whatever_is_set_around_it(finished: Path) -> None:
    config, before = parse(["--depth=2", *QUIET])[0], hashes(finished)
    torch.set_default_dtype(torch.float64)
    try:
        with torch.inference_mode():
            layerwise.train(config, finished, restart_from=np.int64(1))  # type: ignore[arg-type]
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    assert hashes(finished, "*/*.safetensors") == {k: v for k, v in before.items() if k.endswith("safetensors")}
    with pytest.raises(SettingError, match="config: dict is none; give a layerwise.Config"):
        layerwise.train({}, finished)  # type: ignore[arg-type]


def test_record__says_what_would_help__as_far_as_accuracies_tell() -> None:
    def advice(train: float | None, val: float, alone: float | None = None) -> str:
        told = {"val_accuracy": val, "val_loss": 1.0, "train_accuracy": train, "val_alone": alone}
        epochs = [{name: value for name, value in told.items() if value is not None}]
        return LayerRecord(1, 16, val, epochs, [1, 8, 8], [8, 6, 6], ["a", "b"], 1.0, {}, val_images=1600).advice

    # at 80% of 1,600 images the standard error is 1%
    assert advice(0.78, 0.80) == advice(0.805, 0.80) == "more epochs or atoms"
    assert advice(0.82, 0.80) == advice(0.845, 0.80) == ""
    assert advice(0.86, 0.80) == "more decay or images"
    # of one that is averaged with those below, and so better together, what it does alone is compared
    assert advice(0.76, 0.80, 0.74) == "" and advice(0.74, 0.80, 0.74) == "more epochs or atoms"
    assert advice(0.82, 0.80, 0.74) == "more decay or images"
    assert advice(None, 1.0) == advice(None, 0.5) == ""  # an older record, which does not say
