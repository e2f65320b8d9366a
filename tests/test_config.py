"""Settings files and the README stay true to the program."""

import dataclasses
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from layerwise.cli.parsing import parse
from layerwise.config.checks import check, check_fit
from layerwise.config.layer import LayerConfig, LayerOverrides
from layerwise.config.run import Config, SettingError
from tests.conftest import ROOT

CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_configs__parse_and_fit_their_data(path: Path, depth: int) -> None:
    if (path.stem, depth) == ("digits", 4):
        depth = 3  # 8×8 images have no room for more
    config, run_dir = parse(["--config", str(path), "--depth", str(depth)])
    assert config.depth == depth
    assert run_dir == f"runs/{path.stem}-seed0"
    side = {"digits": 8, "fashion_mnist": 28, "teacher": 4}.get(path.stem, 32)
    check_fit(config, 3, side, side, 10_000)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_configs__say_what_they_are_and_how_to_run_them(path: Path) -> None:
    header = "".join(line for line in path.read_text().splitlines(True) if line.startswith("#"))
    assert "python train.py" in header
    assert re.search(r"accuracy", header) and re.search(r"\d seconds|minutes|hours", header)


def commands() -> list[str]:
    blocks = re.findall(r"```\n(.*?)```", README, re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if "train.py" in line]


@pytest.mark.parametrize("line", commands())
def test_readme__commands_are_valid(line: str) -> None:
    words = shlex.split(line.split("train.py", 1)[1])
    config, _ = parse([str(ROOT / word) if word.startswith("configs/") else word for word in words])
    assert config.depth >= 1


def default_in_words(value: object) -> str:
    if value is None:
        return "unset"
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) or "none" if not isinstance(value, list | dict) else "none"


def settings(prefix: str, config: object) -> Iterator[tuple[str, object]]:
    for name, value in vars(config).items():
        if dataclasses.is_dataclass(value):
            yield from settings(f"{prefix}{name}.", value)
        else:
            yield prefix + name, value


def test_readme__has_every_setting_with_its_default() -> None:
    rows = dict(re.findall(r"^\| `([a-z_.]+)` \| (.*?) \|", README, re.MULTILINE))
    assert rows == {name: default_in_words(value) for name, value in settings("", Config())}


def test_layer_config__overrides_only_what_is_given() -> None:
    config = Config(depth=2, layer=LayerConfig(atoms=100, pool=3), layers={2: LayerOverrides(atoms=50)})
    assert config.layer_config(1) == LayerConfig(atoms=100, pool=3)
    assert config.layer_config(2) == LayerConfig(atoms=50, pool=3)
    assert config.layer_config(2).k == 12  # a quarter of its own atoms


def test_optimizer_config__a_layer_has_its_own_rate_and_decay() -> None:
    config = Config(depth=3, layers={2: LayerOverrides(learning_rate=0.5), 3: LayerOverrides(weight_decay=0.0)})
    trained = [config.optimizer_config(number) for number in (1, 2, 3)]
    assert [own.learning_rate for own in trained] == [0.003, 0.5, 0.003]
    assert [own.weight_decay for own in trained] == [0.05, 0.05, 0.0]


def test_output_side__rounds_up() -> None:
    assert LayerConfig(patch_size=5, pool=4).output_side(32) == 7
    assert LayerConfig(patch_size=3, pool=2).output_side(9) == 4


def test_check__names_the_setting_where_it_was_given() -> None:
    with pytest.raises(SettingError, match=r"^layers\.2\.atoms: 0 is too small"):
        check(Config(depth=2, layers={2: LayerOverrides(atoms=0)}))
    with pytest.raises(SettingError, match=r"^layer\.atoms: 0 is too small"):
        check(Config(layer=LayerConfig(atoms=0)))
