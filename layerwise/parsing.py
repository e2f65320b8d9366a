"""From a recipe and a command line to a configuration, with errors of one line.

What is typed wins over what the recipe says, and what is said of a single layer over what is said of all: the recipe's
`layer`, then its `layers`, then --layer on the command line, then --layers. The order of options does not matter.
"""

import difflib
import re
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

import yaml
from jsonargparse import SUPPRESS, ArgumentParser, set_parsing_settings

from layerwise.config import Config, SettingError, SingleLayer
from layerwise.config.checks import KINDS, fields_of
from layerwise.config.choices import PACKAGE, Choices
from layerwise.config.identity import default_run_dir
from layerwise.config.run import plain
from layerwise.plain_yaml import plain_values, read_settings

set_parsing_settings(docstring_parse_attribute_docstrings=True)
RECIPES = next(path for path in (PACKAGE / "configs", PACKAGE.parent / "configs") if path.is_dir())
"""in an installed package, and in a checkout"""
DEFAULT_RECIPE = "digits"
OTHERS = "Single layers: --layers.2.atoms 512, or `layers: {2: {atoms: 512}}` in a recipe; of their own training, too: "
OTHERS += "--layers.2.optimizer.epochs 20."
TRAIN = "Train a deep patch-based network, one layer at a time."


class _Parser(ArgumentParser):
    """Says in one line what is wrong with a setting, and names it with `prefix` in front."""

    prefix = ""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        pattern = r"[Uu]nrecognized arguments: --([^\s=]+)|(?:does not accept (?:option|nested key)|Option) '([^']+)'"
        unknown, keys = re.search(pattern, message), re.findall(r'Parser key "([^"]+)"', message)
        value = re.search(r"Got value: (.*)|Given value: (.*)", message)
        said = " ".join(message.split()).replace("unrecognized arguments: ", "not a setting: ")
        if unknown:
            group = re.search(r"Group '([^']+)'", message)
            name = unknown[1] or (f"{group[1]}." if group else "") + unknown[2]
            meant = nearest(name, settings_of(self))
            said = f"{self.prefix}{name}: there is no such setting, did you mean {self.prefix}{meant}"
        elif keys and value:
            kinds = re.findall(r"Expected an? (?:<class ')?(.*?)(?:'>)?(?:\. Got|\n|$)", message)
            names = {kind.__name__: words for kind, words in KINDS.items()} | {"list": "a list, such as [a, b]"}
            for i, kind in enumerate(kinds):
                choices = re.search(r"Literal\[(.*)\]", kind)
                kinds[i] = "one of " + choices[1].replace("'", "") if choices else names.get(kind, kind)
            wanted = " or ".join(kind for kind in kinds if "NoneType" not in kind) or "valid"
            given = "null" if (value[1] or value[2]) == "None" else value[1] or value[2]
            said = f"{self.prefix}{'.'.join(keys)}: {given} is not {wanted}"
        raise SettingError(f"{said}; see --help")


def parse(
    arguments: Sequence[str], program: str = "layerwise train", purpose: str = TRAIN
) -> tuple[Config, str, int | None]:
    """The configuration of a command line and the recipe that it names, the directory for the run, and --restart_from.

    Raises:
        SettingError: something that was given is not right.
        SystemExit: after --help or --print_config.
    """
    if "--help" in arguments or "-h" in arguments:
        run_parser(program, purpose).print_help()
        raise SystemExit(0)
    typed = _nested([word for word in arguments if word != "--print_config"])
    asked, restart = typed.pop("config", DEFAULT_RECIPE), typed.pop("restart_from", None)
    path = Path(asked)
    if asked in recipes() and not path.is_file():
        path = RECIPES / f"{asked}.yaml"
    elif not path.is_file() and path.parent.name == "configs" and (RECIPES / path.name).is_file():
        path = RECIPES / path.name  # as the README writes it, from a folder that is no checkout
    recipe = _read(path)
    config = configure(recipe, typed)
    for number in _numbered(typed):
        if number > config.deepest:  # which a recipe may describe
            remedy = f"at depth {config.depth}; raise --depth or remove the setting"
            raise SettingError(f"layers.{number}: there is no layer {number} {remedy}")
    if restart is not None and not (restart.isdecimal() and 1 <= int(restart) <= config.deepest):
        raise SettingError(f"restart_from: {restart} is not a layer; give one of the layers 1 to {config.deepest}")
    if "--print_config" in arguments:
        yaml.safe_dump(plain(config), sys.stdout, sort_keys=False, allow_unicode=True)
        raise SystemExit(0)
    run_dir = config.run_dir or default_run_dir(config, configure(recipe), path.stem)
    return config, run_dir, restart and int(restart)


def configure(recipe: dict[str, Any], given: Sequence[str] | dict[str, Any] = ()) -> Config:
    """A configuration from a recipe's values and those of a command line, which win; what is not right is refused."""
    typed = given if isinstance(given, dict) else _nested(given)
    parser = run_parser()
    run = {name: value for name, value in _merged(recipe, typed).items() if name != "layers"}
    values = vars(parser.instantiate(parser.parse_object(run)))
    layers, singles = {}, (_numbered(recipe), _numbered(typed))
    for number in sorted({*singles[0], *singles[1]}):
        own: dict[str, Any] = {}
        for source, numbered in zip((recipe, typed), singles, strict=True):
            of_all = source.get("layer", {}) | {"optimizer": source.get("optimizer", {})}
            own = _merged(_merged(own, of_all), numbered.get(number, {}))
        parser = layer_parser()
        parser.prefix = f"layers.{number}."
        layers[number] = SingleLayer(**vars(parser.instantiate(parser.parse_object(own))))
    return Config(**values, layers=layers)


def read_config(path: Path) -> Config:
    """Read a settings file, such as config.yaml of a run; SettingError if it holds something else."""
    return configure(_read(path))


def recipes() -> list[str]:
    """The names of the recipes that come with the package."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml") if path.stem != "sweep")  # which is W&B's


@cache
def run_parser(program: str | None = None, purpose: str = TRAIN) -> _Parser:
    """The parser of a whole run, but for its single layers; with `program` it is one to print help of."""
    what = f"{purpose} The defaults below are those without a recipe; "
    what += f"the recipe, {DEFAULT_RECIPE} if none is given, changes some: --print_config shows what is used."
    usage = f"{program} [--depth K] [--config NAME|FILE] [--SETTING VALUE …]"
    parser = _Parser(prog=program, usage=usage, allow_abbrev=False, description=what, epilog=OTHERS)
    if program is not None:
        names = f"recipe, by name ({', '.join(recipes())}) or file; {DEFAULT_RECIPE} if none is given"
        parser.add_argument("--config", metavar="NAME|FILE", help=names)
        parser.add_argument("--print_config", action="store_true", help="print all settings, and do nothing else")
        anew = "delete what the run holds of layer I and those above, and train them anew"
        parser.add_argument("--restart_from", metavar="I", help=anew)
    parser.add_class_arguments(Config, skip={"layers"})
    rules = {name: field.metadata.get("rule") for name, _, field in fields_of(Config())}
    for action in parser._actions:
        if isinstance(choices := rules.get(action.dest), Choices):
            meanings = (
                f"{name}: {text[:1].lower()}{text[1:].rstrip('.')}" for name, text in choices.meanings().items()
            )
            action.help = f"{action.help}. {'; '.join(meanings)}".replace("%", "%%")
        elif _names_group(action.dest, parser):
            action.help = SUPPRESS
    return parser


@cache
def layer_parser() -> _Parser:
    """The parser of a single layer's settings."""
    parser = _Parser(prog="layer", allow_abbrev=False)
    parser.add_class_arguments(SingleLayer)
    return parser


def settings_of(parser: ArgumentParser) -> list[str]:
    """The names of a parser's settings."""
    names = (option[2:] for action in parser._actions for option in action.option_strings if option[:2] == "--")
    return [name for name in names if name not in ("help", "print_shtab")]  # which are jsonargparse's


def _nested(words: Sequence[str]) -> dict[str, Any]:
    """Options, --name=value or --name value, as nested values; a value may be a whole group, such as {atoms: 8}."""
    values: dict[str, Any] = {}
    waiting = list(words)[::-1]
    while waiting:
        word = waiting.pop()
        if not word.startswith("--"):
            raise SettingError(f"not a setting: {word}; settings are written --name value, see --help")
        name, _, value = word[2:].partition("=")
        parts = name.split(".")
        if "" in parts or (len(parts) > 1 and parts[0] in ("config", "restart_from")):
            raise SettingError(f"{name or word}: there is no such setting; see --help")
        if "=" not in word and waiting and not waiting[-1].startswith("--"):
            value = waiting.pop()
        elif "=" not in word or (name == "config" and not value):
            raise SettingError(f"{name}: no value is given; write, for example, --{name} VALUE; see --help")
        whole: Any = value
        if _names_group(name):
            try:
                whole = plain_values(value)
            except (yaml.YAMLError, RecursionError):
                whole = None
            if not isinstance(whole, dict):
                by_kind = f"{_for_all(name)}.kind" in settings_of(run_parser())
                example = f"write, for example, --{name}={{NAME: VALUE}}"
                remedy = f"did you mean --{name}.kind {value}" if by_kind else example
                raise SettingError(f"{name}: {value or 'nothing'} is not a group of settings; {remedy}")
        for part in parts[::-1]:
            whole = {part: whole}
        values = _merged(values, whole)
    _check_groups(values, "")
    return values


def _names_group(name: str, parser: ArgumentParser | None = None) -> bool:
    """Whether settings stand below a name, such as layer, layer.whitening and layers.2.optimizer."""
    within, settings = _for_all(name), settings_of(parser or run_parser())
    return within == "layers" or any(setting.startswith(f"{within}.") for setting in settings)


def _for_all(name: str) -> str:
    """The setting of all layers that one of a single layer stands for."""
    return re.sub(r"^layers\.[^.]+", "layer", name).replace("layer.optimizer", "optimizer")


def _read(path: Path) -> dict[str, Any]:
    """The values of a settings file."""
    if not path.is_file():
        names = ", ".join(recipes())
        raise SettingError(f"config: {path} is not a file; give a settings file, or the name of a recipe: {names}")
    content = read_settings(path)
    _check_groups(content, "")
    return content


def _check_groups(values: dict[Any, Any], above: str) -> None:
    """Refuse a group without settings, and names with dots, of which what is said of all layers would be lost."""
    for key, value in values.items():
        name = f"{above}{key}"
        if "." in str(key):
            raise SettingError(f"{name}: names with dots are for the command line; indent what follows the dot")
        if isinstance(value, dict):
            _check_groups(value, f"{name}.")
        elif _names_group(name):
            shown = "null" if value is None else value
            raise SettingError(f"{name}: {shown} is not a group of settings; indent them below it, or remove the line")


def _numbered(values: dict[str, Any]) -> dict[int, dict[str, Any]]:
    """The settings of single layers, by number."""
    found: dict[int, dict[str, Any]] = {}
    for given, own in values.get("layers", {}).items():
        if not str(given).isdecimal():
            remedy = "write --layers.2.atoms 512 for the second"
            raise SettingError(f"layers: {given} is not the number of a layer; {remedy}")
        if int(given) in found:
            raise SettingError(f"layers: {given} stands there twice, as another way to write {int(given)}; keep one")
        found[int(given)] = _merged(found.get(int(given), {}), own)
    return found


def _merged(values: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Nested values, with others over them."""
    merged = dict(values)
    for name, value in over.items():
        below = merged.get(name)
        merged[name] = _merged(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


def nearest(name: str, settings: list[str]) -> str:
    """The setting that was probably meant: of the same group where there is one, by its initials or its letters."""
    group, _, own = name.rpartition(".")
    within = [setting for setting in settings if group and setting.startswith(f"{group}.")]
    for setting in within or settings:
        if own == "".join(part[0] for part in setting.rpartition(".")[2].split("_")):
            return setting
    return difflib.get_close_matches(name, within or settings, 1, 0)[0]
