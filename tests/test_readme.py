"""The commands that README.md and the recipes write are right, and recipes say what they are."""

import contextlib
import io
import re
import shlex
from pathlib import Path

import pytest

from layerwise.parsing import parse, recipes
from tests.conftest import ROOT
from tests.settings_page import PAGE, page

CONFIGS = [ROOT / "configs" / f"{name}.yaml" for name in recipes()]
COMMAND = re.compile(r"(?:\btrain\.py|\blayerwise train)\b(?!`)(.*)")


def header(path: Path) -> str:
    """The comment at the top of a recipe."""
    lines = path.read_text().splitlines(True)
    return "".join(lines[: next(i for i, line in enumerate(lines) if not line.startswith("#"))])


def commands() -> list[str]:
    """What follows `train.py` or `layerwise train`, in the README's blocks and on lines of their own in recipes."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    lines += [line for path in CONFIGS for line in header(path).splitlines() if line.startswith("#   ")]
    return [found[1].strip() for line in lines if (found := COMMAND.search(line))]


def test_commands__are_found() -> None:
    assert len(commands()) >= len(CONFIGS) + 2


@pytest.mark.parametrize("words", commands())
def test_commands__are_valid_in_any_folder(words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = shlex.split(words, comments=True)
    shows = {"--help", "--print_config"} & {*arguments}
    with pytest.raises(SystemExit, match="^0$") if shows else contextlib.nullcontext():
        with contextlib.redirect_stdout(io.StringIO()):
            config = parse(arguments)[0]
        assert config.depth == "auto" or config.depth >= 1


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_recipes__say_what_they_are_and_how_to_run_them(path: Path) -> None:
    text = header(path)
    assert any(COMMAND.search(line) for line in text.splitlines() if line.startswith("#   "))
    assert path.stem == "digits" or path.stem in text  # the command names it
    assert re.search(r"accuracy", text) and re.search(r"\d seconds|minutes|hours", text)


def test_settings_page__is_what_the_program_says() -> None:
    assert PAGE.read_text(encoding="utf-8") == page()  # else: python -m tests.settings_page
