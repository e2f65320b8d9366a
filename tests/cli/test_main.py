"""The command: its verbs, its help, its version."""

import re
from pathlib import Path

import pytest

from layerwise import __version__
from layerwise.cli import VERBS
from tests.conftest import ROOT, Command
from tests.test_memory import at_most, little_more


def test_help__names_every_verb_and_what_it_does(command: Command) -> None:
    done = command("--help")
    assert done.returncode == 0
    assert command().stdout == command("-h").stdout == done.stdout
    for verb in VERBS:
        assert re.search(rf"^  {verb} +\w.{{10}}", done.stdout, re.MULTILINE), verb


@pytest.mark.parametrize("verb", VERBS)
def test_help__of_a_verb(verb: str, command: Command, tmp_path: Path) -> None:
    done = command(verb, "--help")
    assert done.returncode == 0
    assert done.stdout.startswith(f"usage: layerwise {verb} ")
    assert list(tmp_path.iterdir()) == []


def test_version(command: Command) -> None:
    done = command("--version")
    assert (done.returncode, done.stdout) == (0, f"layerwise {__version__}\n")
    assert re.match(r"\d+\.\d+", __version__)


@pytest.mark.parametrize("given, meant", [("trane", "train"), ("eval", "evaluate")])
def test_unknown_verb__names_the_nearest(given: str, meant: str, command: Command, tmp_path: Path) -> None:
    done = command(given, "--depth=2")
    assert done.returncode == 2
    assert done.stderr == f"error: {given}: there is no such verb, did you mean {meant}; see layerwise --help\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["evaluate"], "the following arguments are required: RUN; see layerwise evaluate --help"),
        (["evaluate", "r", "--mirrored"], "--mirrored: there is no such option; see layerwise evaluate --help"),
        (["paper", "table9"], "argument table: invalid choice: 'table9'"),
        (["benchmark", "--quik"], "--quik: there is no such option; see layerwise benchmark --help"),
    ],
)
def test_a_verb_s_own_options__are_checked(arguments: list[str], message: str, command: Command) -> None:
    done = command(*arguments)
    assert done.returncode == 2
    assert re.fullmatch(rf"error: {message}.*\n", done.stderr), done.stderr


def test_process__train_py_is_the_verb_train__without_torch(process: Command) -> None:
    script = process("-X", "importtime", str(ROOT / "train.py"), "--help")
    module = process("-m", "layerwise", "train", "--help")
    assert script.returncode == module.returncode == 0
    assert script.stdout == module.stdout
    assert "--layer.atoms" in script.stdout
    assert "jsonargparse" in script.stderr
    assert not re.search(r"\| +(torch|numpy|lightning|wandb)$", script.stderr, re.MULTILINE)


def test_too_little_memory__anywhere_is_one_line(command: Command) -> None:
    import layerwise.api  # noqa: F401  (the libraries take more than what is left below)

    with at_most(little_more()):
        done = command("train", "--config=teacher", "--data.teacher.images=2000000000")
    assert done.returncode == 1
    told = "there is too little memory; give fewer or smaller images, or run it where there is more"
    assert done.stderr == f"error: {told}\n", done.stderr
