"""From a recipe and a command line to a configuration, with errors of one line.

What is typed wins over what the recipe says, and what is said of a single layer over what is said of all: the recipe's
`layer`, then its `layers`, then --layer on the command line, then --layers. The order of options does not matter.
"""

import dataclasses
import difflib
import hashlib
import json
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

import yaml
from jsonargparse import ArgumentParser, set_parsing_settings

from layerwise.config import Config, SettingError, SingleLayer
from layerwise.config.choices import Choices
from layerwise.config.run import plain

set_parsing_settings(docstring_parse_attribute_docstrings=True)
PACKAGE = Path(__file__).parent
RECIPES = next(path for path in (PACKAGE / "configs", PACKAGE.parent / "configs") if path.is_dir())
"""in an installed package, and in a checkout"""
DEFAULT_RECIPE = "digits"
OF_A_LAYER = re.compile(r"--layers\.([^.=]+)\.(.*)", re.DOTALL)
OTHERS = "Single layers: --layers.2.atoms 512, or `layers: {2: {atoms: 512}}` in a recipe; of their own training, too: "
OTHERS += "--layers.2.optimizer.epochs 20."


class _Parser(ArgumentParser):
    """Says in one line what is wrong with a setting, and names it with `prefix` in front."""

    prefix = ""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        raise SettingError(_explain(message, settings_of(self), self.prefix))


def parse(arguments: list[str], program: str = "layerwise train") -> tuple[Config, str]:
    """Read a command line, and the recipe that it names.

    Returns:
        The configuration, and the directory for the run.

    Raises:
        SettingError: something that was given is not right.
        SystemExit: after --help or --print_config.
    """
    if "--help" in arguments or "-h" in arguments:
        run_parser(program).print_help()
        raise SystemExit(0)
    typed = list(_normalized(arguments))
    name, recipe = _chosen([word.partition("=")[2] for word in typed if word.startswith("--config=")])
    print_only = "--print_config" in typed
    typed = [word for word in typed if word != "--print_config" and not word.startswith("--config=")]
    config = configure(recipe, typed)
    _refuse_layers_above(config, typed)
    if print_only:
        yaml.safe_dump(plain(config), sys.stdout, sort_keys=False, allow_unicode=True)
        raise SystemExit(0)
    return config, config.run_dir or default_run_dir(config, configure(recipe, []), name)


def read_config(path: Path) -> Config:
    """Read a settings file, such as config.yaml of a run.

    Raises:
        SettingError: it holds something else.
    """
    return configure(_read(path), [])


def configure(recipe: dict[str, Any], typed: list[str]) -> Config:
    """A configuration from a recipe's values and options, each written --name=value.

    Raises:
        SettingError: something that was given is not right.
    """
    recipe = dict(recipe)
    singles = dict(_numbered(recipe.pop("layers", {})))
    for_all = [word for word in typed if not word.startswith("--layers.")]
    parser = run_parser()
    read = parser.parse_args(for_all, namespace=parser.parse_object(recipe))
    own_words = [(_number(found[1]), f"--{found[2]}") for word in typed if (found := OF_A_LAYER.match(word))]
    layers = {}
    for number in sorted({*singles, *(number for number, _ in own_words)}):
        parser = layer_parser()
        parser.prefix = f"layers.{number}."
        groups = {name: recipe.get(name, {}) for name in ("layer", "optimizer")}
        own = _merged(groups["layer"] | {"optimizer": groups["optimizer"]}, singles.get(number, {}))
        words = [word.replace("--layer.", "--", 1) for word in for_all if word.startswith(("--layer.", "--optimizer."))]
        words += [word for of, word in own_words if of == number]
        values = parser.instantiate(parser.parse_args(words, namespace=parser.parse_object(own)))
        layers[number] = SingleLayer(**vars(values))
    return Config(**vars(run_parser().instantiate(read)), layers=layers)


@cache
def run_parser(program: str | None = None) -> _Parser:
    """The parser of a whole run, but for its single layers; with `program` it is one to print help of."""
    what = "Train a deep patch-based network, one layer at a time."
    parser = _Parser(prog=program, allow_abbrev=False, description=what, epilog=OTHERS)
    if program is not None:
        names = f"recipe, by name ({', '.join(recipes())}) or file; unset: {DEFAULT_RECIPE}"
        parser.add_argument("--config", metavar="NAME|FILE", help=names)
        parser.add_argument("--print_config", action="store_true", help="print all settings, and do nothing else")
    parser.add_class_arguments(Config, skip={"layers"})
    _explain_choices(parser, Config())
    return parser


@cache
def layer_parser() -> _Parser:
    """The parser of a single layer's settings."""
    parser = _Parser(prog="layer", allow_abbrev=False)
    parser.add_class_arguments(SingleLayer)
    return parser


def settings_of(parser: ArgumentParser) -> list[str]:
    """The names of a parser's settings."""
    own = ("help", "print_shtab")  # jsonargparse's
    names = (option[2:] for action in parser._actions for option in action.option_strings if option[:2] == "--")
    return [name for name in names if name not in own]


def recipes() -> list[str]:
    """The names of the recipes that come with the package."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def default_run_dir(config: Config, recipe: Config | None = None, name: str = "python") -> str:
    """runs/<recipe>-seed<seed>, and where anything else decides the weights, a suffix that stands for it.

    Two folders of images, or two settings, never meet in one directory; two depths of one stack do.
    """

    def deciding(config: Config) -> dict[str, Any]:
        values = plain(config)
        values["trainer"] = values["trainer"]["precision"]
        root = values["data"].pop("root")
        values["layers"] = {number: own for number, own in values["layers"].items() if own}
        own_images = config.data.name == "image_folder"
        values["data"] |= {"download": None, "root": str(Path(root).resolve()) if own_images else None}
        return {key: value for key, value in values.items() if key not in ("depth", "seed", "run_dir", "wandb")}

    base = f"runs/{name}-seed{config.seed}"
    own = deciding(config)
    if recipe is not None and own == deciding(recipe):
        return base
    folder = re.sub(r"\W+", "-", Path(config.data.root).resolve().name).strip("-")[:40]
    digest = hashlib.sha256(json.dumps(own, sort_keys=True).encode()).hexdigest()[:6]
    return "-".join([base, *([folder] if own["data"]["root"] and folder else []), digest])


def _normalized(arguments: list[str]) -> Iterator[str]:
    """Each option as --name=value; a group given as a whole, such as --layer={atoms: 8}, as the settings in it."""
    waiting = arguments[::-1]
    groups = {*_groups(run_parser()), "layers"}
    while waiting:
        word = waiting.pop()
        if word.startswith("--") and "=" not in word and waiting and not waiting[-1].startswith("--"):
            word = f"{word}={waiting.pop()}"
        name, _, value = word.partition("=")
        within = re.sub(r"^layers\.[^.]+", "layer", name[2:]).replace("layer.optimizer", "optimizer")
        if within in groups:
            waiting += [*_leaves(name, _mapping(name[2:], value))][::-1]  # some of which may name groups, too
        elif word in ("--config", "--config="):
            raise SettingError("config: nothing is given; give a settings file, or the name of a recipe")
        else:
            yield word


def _groups(parser: ArgumentParser) -> set[str]:
    """The names that settings stand below, such as layer and layer.whitening."""
    parts = [setting.split(".")[:-1] for setting in settings_of(parser)]
    return {".".join(names[:i]) for names in parts for i in range(1, len(names) + 1)}


def _mapping(name: str, text: str) -> dict[str, Any]:
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        value = None
    if not isinstance(value, dict):
        raise SettingError(f"{name}: {text or 'nothing'} is not settings; write such as --{name}={{atoms: 512}}")
    return value


def _leaves(name: str, values: dict[str, Any]) -> Iterator[str]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _leaves(f"{name}.{key}", value)
        else:
            yield f"{name}.{key}={'null' if value is None else value}"


def _chosen(given: list[str]) -> tuple[str, dict[str, Any]]:
    """Name and values of the recipe: the last one given, of the package or of a file."""
    asked = given[-1] if given else DEFAULT_RECIPE
    path = Path(asked)
    if asked in recipes() and not path.is_file():
        path = RECIPES / f"{asked}.yaml"
    elif not path.is_file() and path.parent.name == "configs" and (RECIPES / path.name).is_file():
        path = RECIPES / path.name  # as the README writes it, from a folder that is no checkout
    return path.stem, _read(path)


def _read(path: Path) -> dict[str, Any]:
    """The values of a settings file; a group with nothing after its colon is refused."""
    if not path.is_file():
        names = ", ".join(recipes())
        raise SettingError(f"config: {path} is not a file; give a settings file, or the name of a recipe: {names}")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" (line {mark.line + 1})" if mark else ""
        raise SettingError(f"config: {path} is not YAML{where}; compare it with configs/digits.yaml") from error
    if not isinstance(content, dict):
        kind = {list: "a list", type(None): "empty"}.get(type(content), "a single value")
        raise SettingError(f"config: {path} is {kind}, not settings; write lines such as `depth: 2`")
    _check_groups(content, {*_groups(run_parser()), "layers"}, "", path)
    for number, values in content.get("layers", {}).items():
        if isinstance(values, dict):
            _check_groups(values, _groups(layer_parser()), f"layers.{number}.", path)
    return content


def _check_groups(values: dict[Any, Any], groups: set[str], prefix: str, path: Path, above: str = "") -> None:
    """Refuse a group without settings, and names with dots, of which what is said of all layers would be lost."""
    for key, value in values.items():
        name = f"{above}{key}"
        if "." in str(key):
            raise SettingError(f"{prefix}{name}: names with dots are for the command line; indent what follows the dot")
        if name in groups and not isinstance(value, dict):
            shown = "null" if value is None else value
            raise SettingError(
                f"{prefix}{name}: {shown} in {path} is not settings; indent them below it, or remove the line"
            )
        if isinstance(value, dict) and name != "layers":
            _check_groups(value, groups, prefix, path, f"{name}.")


def _numbered(singles: dict[Any, Any]) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, values in singles.items():
        if not isinstance(values, dict):
            shown = "null" if values is None else values
            raise SettingError(f"layers.{number}: {shown} is not settings; write such as {{atoms: 512}}")
        yield _number(number), values


def _number(given: object) -> int:
    if isinstance(given, int) and not isinstance(given, bool):
        return given
    if not str(given).isdecimal():
        raise SettingError(f"layers: {given} is not the number of a layer; write --layers.2.atoms 512 for the second")
    return int(str(given))


def _merged(values: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Nested values, with others over them."""
    merged = dict(values)
    for name, value in over.items():
        below = merged.get(name)
        merged[name] = _merged(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


def _refuse_layers_above(config: Config, typed: list[str]) -> None:
    """Refuse a layer above the stack on the command line; a recipe may describe deeper ones, too."""
    for word in typed:
        number = re.match(r"--layers\.(\d+)\.", word)
        if number and int(number[1]) > config.deepest:
            raise SettingError(
                f"layers.{number[1]}: there is no layer {number[1]} at depth {config.depth}; "
                "raise --depth or remove the setting"
            )


def choices_of(config: Any, prefix: str = "") -> Iterator[tuple[str, Choices]]:
    """The settings that are choices, in a dataclass and those within it."""
    for field in dataclasses.fields(config):
        value, rule = getattr(config, field.name), field.metadata.get("rule")
        if isinstance(rule, Choices):
            yield prefix + field.name, rule
        elif dataclasses.is_dataclass(value):
            yield from choices_of(value, f"{prefix}{field.name}.")


def _explain_choices(parser: ArgumentParser, config: Config) -> None:
    choices = dict(choices_of(config))
    for action in parser._actions:
        if action.dest in choices:
            meanings = (f"{name}: {meaning.rstrip('.')}" for name, meaning in choices[action.dest].meanings().items())
            action.help = f"{action.help}. {'; '.join(meanings)}".replace("%", "%%")


def _explain(message: str, settings: list[str], prefix: str) -> str:
    """Turn jsonargparse's message into one line that names the setting, the value and the remedy."""
    unknown = re.search(
        r"[Uu]nrecognized arguments: --([^\s=]+)|(?:does not accept (?:option|nested key)|Option) '([^']+)'", message
    )
    group = re.search(r"Group '([^']+)'", message)
    keys = re.findall(r'Parser key "([^"]+)"', message)
    if unknown:
        name = unknown[1] or (f"{group[1]}." if group else "") + unknown[2]
        return f"{prefix}{name}: there is no such setting, did you mean {prefix}{nearest(name, settings)}; see --help"
    empty = re.search(r"argument --(\S+): expected one argument", message)
    if empty:
        return f"{prefix}{empty[1]}: nothing is given; write such as --{prefix}{empty[1]}=VALUE, see --help"
    value = re.search(r"Got value: (.*)|Given value: (.*)", message)
    if keys and value:
        kinds = re.findall(r"Expected an? (.*?)(?:\. Got|\n|$)", message)
        wanted = " or ".join(_plain_kind(kind) for kind in kinds if "NoneType" not in kind)
        given = "null" if (value[1] or value[2]) == "None" else value[1] or value[2]
        return f"{prefix}{'.'.join(keys)}: {given} is not {wanted or 'valid'}; see --help"
    return " ".join(message.split()).replace("unrecognized arguments: ", "not a setting: ") + "; see --help"


def nearest(name: str, settings: list[str]) -> str:
    """The setting that was probably meant: of the same group where there is one, by its initials or its letters."""
    group, _, own = name.rpartition(".")
    within = [setting for setting in settings if group and setting.startswith(f"{group}.")]
    for setting in within:
        if own == "".join(part[0] for part in setting.removeprefix(f"{group}.").split("_")):
            return setting
    return difflib.get_close_matches(name, within or settings, 1, 0)[0]


def _plain_kind(kind: str) -> str:
    choices = re.search(r"Literal\[(.*)\]", kind)
    if choices:
        return "one of " + choices[1].replace("'", "")
    names = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "a text"}
    name = kind.removeprefix("<class '").removesuffix("'>")
    return names.get(name, name)
