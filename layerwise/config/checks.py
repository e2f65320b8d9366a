"""What a value may be, said beside its field, and the error that names a setting."""

import dataclasses
import difflib
import math
from collections.abc import Callable, Iterator
from typing import Any, get_args

from layerwise.config.choices import Choices
from layerwise.errors import SettingError

Rule = Callable[[Any], str | None]
"""gives what to say of a value that is not right, to follow its name, or None"""


def setting(default: Any, rule: Rule | Choices, **values: Any) -> Any:
    """A dataclass field with the rule that its values keep to; None is right wherever its type allows it."""
    return dataclasses.field(default=default, metadata={"rule": rule}, **values)


def at_least(least: int) -> Rule:
    """A whole number that is not below `least`."""
    return lambda value: None if value >= least else f"is too small; give a whole number of at least {least}"


def between(low: float, high: float, example: float, *, with_low: bool = False) -> Rule:
    """A number above `low` and below `high`; `low` itself, too, where asked."""

    def rule(value: float) -> str | None:
        if low < value < high or (with_low and value == low):
            return None
        ends = f"from {low:g} to below {high:g}" if with_low else f"between {low:g} and {high:g}"
        return f"is out of range; give a number {ends}, such as {example:g}"

    return rule


def positive(example: float) -> Rule:
    """A finite number above 0."""
    return lambda value: (
        None if 0 < value < math.inf else f"is out of range; give a positive number, such as {example:g}"
    )


def not_negative(example: float) -> Rule:
    """A finite number, 0 or above."""
    return lambda value: (
        None if 0 <= value < math.inf else f"is out of range; give 0 or a positive number, such as {example:g}"
    )


def one_of(choices: Choices) -> Rule:
    """One of the names of a choice."""

    def rule(value: str) -> str | None:
        if value in choices:
            return None
        near = difflib.get_close_matches(value, choices, 1)
        return f"is not one of {', '.join(choices)}" + (f"; did you mean {near[0]}?" if near else "; see --help")

    return rule


def check_ranges(config: Any, name: Callable[[str], str]) -> None:
    """Refuse a value that its field's rule does not allow, in a dataclass and those within it.

    Args:
        config: the dataclass.
        name: turns a field's name within `config` into the setting's whole name, for the message.

    Raises:
        SettingError: naming the first setting that is wrong.
    """
    for own, value, field in _fields(config, ""):
        if value is None:
            if type(None) not in get_args(field.type):
                raise SettingError(f"{name(own)}: null is not allowed; give a value, or omit the setting")
        elif rule := field.metadata.get("rule"):
            complaint = (one_of(rule) if isinstance(rule, Choices) else rule)(value)
            if complaint:
                raise SettingError(f"{name(own)}: {value} {complaint}")


def _fields(config: Any, prefix: str) -> Iterator[tuple[str, Any, dataclasses.Field[Any]]]:
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from _fields(value, f"{prefix}{field.name}.")
        else:
            yield prefix + field.name, value, field
