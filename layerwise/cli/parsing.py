"""The command line and the settings files, with errors of one line."""

import difflib
import re
from pathlib import Path
from typing import NoReturn

from jsonargparse import ArgumentParser, Namespace, set_parsing_settings

from layerwise.config.checks import check
from layerwise.config.run import Config, SettingError

set_parsing_settings(docstring_parse_attribute_docstrings=True)
CONFIGS = Path(__file__).parent.parent.parent / "configs"


class _Parser(ArgumentParser):
    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        raise SettingError(_explain(message, self._settings()))

    def _settings(self) -> list[str]:
        return [option[2:] for action in self._actions for option in action.option_strings if option[:2] == "--"]


def parse(arguments: list[str]) -> tuple[Config, str]:
    """Read the command line, and the settings file that it names.

    Returns:
        The checked configuration, and the directory for the run.

    Raises:
        SettingError: something that was given is not right.
        SystemExit: after --help or --print_config.
    """
    parser = _Parser(
        prog="train.py",
        allow_abbrev=False,
        description="Train a deep patch-based network, one layer at a time.",
        epilog="Single layers: --layers.2.atoms 512, or `layers: {2: {atoms: 512}}` in a settings file.",
    )
    parser.add_argument("--config", action="config", help="settings file in YAML; without one: configs/digits.yaml")
    parser.add_class_arguments(Config)
    chosen = _chosen_file(arguments)
    if chosen is None:
        chosen = CONFIGS / "digits.yaml"
        arguments = ["--config", str(chosen), *arguments]
    namespace: Namespace = parser.instantiate(parser.parse_args(arguments))
    values = {name: value for name, value in vars(namespace).items() if name != "config"}
    config = Config(**values)
    check(config)
    _check_depth(config, arguments)
    return config, config.run_dir or f"runs/{chosen.stem}-seed{config.seed}"


def _check_depth(config: Config, arguments: list[str]) -> None:
    """Refuse a layer above the stack on the command line; a settings file may be a recipe for deeper ones, too."""
    for argument in arguments:
        number = re.match(r"--layers\.(\d+)\.", argument)
        if number and int(number[1]) > config.deepest:
            raise SettingError(
                f"layers.{number[1]}: there is no layer {number[1]} at depth {config.depth}; "
                "raise --depth or remove the setting"
            )


def _chosen_file(arguments: list[str]) -> Path | None:
    """The settings file on the command line, if it is one that can be read as settings."""
    names = [b for a, b in zip(arguments, arguments[1:], strict=False) if a == "--config"]
    names += [a.removeprefix("--config=") for a in arguments if a.startswith("--config=")]
    if not names:
        return None
    import yaml

    path = Path(names[-1])
    if not path.is_file():
        raise SettingError(f"config: {path} is not a file; give a settings file, such as configs/digits.yaml")
    try:
        content = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" (line {mark.line + 1})" if mark else ""
        raise SettingError(f"config: {path} is not YAML{where}; compare it with configs/digits.yaml") from error
    if not isinstance(content, dict):
        kind = {list: "a list", type(None): "empty"}.get(type(content), "a single value")
        raise SettingError(f"config: {path} is {kind}, not settings; write lines such as `depth: 2`")
    return path


def _explain(message: str, settings: list[str]) -> str:
    """Turn jsonargparse's message into one line that names the setting, the value and the remedy."""
    nested = re.fullmatch(r'Parser key "layers":\s*(\S+: .*)[;?] [sS]ee --help', message.strip(), re.DOTALL)
    if nested:  # explained by the parser of a single layer's settings
        return f"layers: {nested[1]}; see --help"
    unknown = re.search(r"[Uu]nrecognized arguments: --([^\s=]+)|Option '([^']+)' is not accepted", message)
    keys = re.findall(r'Parser key "([^"]+)"', message)
    if unknown:
        name = unknown[1] or unknown[2]
        near = difflib.get_close_matches(name, settings, 1, 0)[0]
        return f"{name}: there is no such setting, did you mean {near}; see --help"
    number = re.search(r"invalid literal for int\(\) with base 10: '(.*)'", message)
    if number:
        return f"layers: {number[1]} is not the number of a layer; write --layers.2.atoms 512 for the second"
    value = re.search(r"Got value: (.*)|Given value: (.*)", message)
    if keys and value:
        kinds = re.findall(r"Expected an? (.*?)(?:\. Got|\n|$)", message)
        wanted = " or ".join(_plain_kind(kind) for kind in kinds if "NoneType" not in kind)
        return f"{'.'.join(keys)}: {value[1] or value[2]} is not {wanted or 'valid'}; see --help"
    return " ".join(message.split()).replace("unrecognized arguments: ", "not a setting: ") + "; see --help"


def _plain_kind(kind: str) -> str:
    choices = re.search(r"Literal\[(.*)\]", kind)
    if choices:
        return "one of " + choices[1].replace("'", "")
    names = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "a text"}
    name = kind.removeprefix("<class '").removesuffix("'>")
    return names.get(name, name)
