"""Settings in YAML, of which only plain values are read."""

from pathlib import Path
from typing import Any

import yaml

from layerwise.errors import SettingError


class _Plain(yaml.SafeLoader):
    """Reads plain values: each name once, nothing that stands for what is elsewhere, no tags that make objects."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):  # a few of which can stand for more than memory holds
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.MarkedYAMLError(problem="an alias, write out what it stands for", problem_mark=mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        names = [key.value for key, _ in node.value]
        for key, _ in node.value:
            if names.count(key.value) > 1:
                raise yaml.MarkedYAMLError(problem=f"{key.value} stands here twice", problem_mark=key.start_mark)
        return super().construct_mapping(node, deep)


def plain_values(text: str) -> Any:
    """What a text of plain YAML holds; YAMLError or RecursionError where it is something else."""
    try:
        return yaml.load(text, _Plain)
    except (ValueError, TypeError, LookupError, AttributeError) as error:  # of a date, a number or a tag that is none
        raise yaml.MarkedYAMLError(problem=str(error)) from error


def read_settings(path: Path) -> dict[str, Any]:
    """The values of a settings file, by name; SettingError where it holds something else."""
    try:
        content = plain_values(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None) or type(error).__name__
        where = f"line {mark.line + 1}: {problem}" if mark else problem
        remedy = "compare it with configs/digits.yaml"
        raise SettingError(f"config: {path} is not plain YAML ({where}); {remedy}") from error
    if not isinstance(content, dict):
        kind = {list: "a list", type(None): "empty"}.get(type(content), "a single value")
        raise SettingError(f"config: {path} is {kind}, not settings; write lines such as `depth: 2`")
    for key in content:
        if not isinstance(key, str):
            raise SettingError(f"config: {path} has {key!r} where the name of a setting belongs; remove it")
    return content
