"""What a value may be, said beside its field, and the error that names a setting."""

import dataclasses
import difflib
import math
from collections.abc import Callable, Iterator
from typing import Any, Literal, get_args, get_origin

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


def within(least: int, most: int) -> Rule:
    """A whole number from `least` to `most`."""
    too_large = f"is too large; give a whole number of at most {most}"
    return lambda value: at_least(least)(value) or (None if value <= most else too_large)


def number(example: float, *, below: float = math.inf, zero: bool = False) -> Rule:
    """A finite number above 0, or 0, too, where asked, and below another."""
    wanted = "0 or a positive number" if zero else "a positive number"
    if below < math.inf:
        wanted = f"a number from 0 to below {below:g}" if zero else f"a number between 0 and {below:g}"
    complaint = f"is out of range; give {wanted}, such as {example:g}"
    return lambda value: None if 0 < value < below or (zero and value == 0) else complaint


def check_ranges(config: Any, name: Callable[[str], str]) -> None:
    """Refuse a value that its field's rule does not allow, in a dataclass and those within it.

    `name` turns a field's name within `config` into the setting's whole name, for the SettingError.
    """
    for own, value, field in fields_of(config):
        rule = field.metadata.get("rule")
        if value is None:
            if type(None) not in get_args(field.type):
                raise SettingError(f"{name(own)}: null is not allowed; give a value, or omit the setting")
        elif named := _named(rule, field.type):
            if value not in named:
                near = difflib.get_close_matches(str(value), named, 1)
                remedy = f"did you mean {near[0]}?" if near else "see --help"
                raise SettingError(f"{name(own)}: {value} is not one of {', '.join(named)}; {remedy}")
        elif rule and (complaint := rule(value)):
            raise SettingError(f"{name(own)}: {value} {complaint}")


def _named(rule: Rule | Choices | None, kind: Any) -> list[str]:
    """The names that a field chooses among; none where it holds something else."""
    return list(rule) if isinstance(rule, Choices) else list(get_args(kind)) if get_origin(kind) is Literal else []


def fields_of(config: Any, prefix: str = "") -> Iterator[tuple[str, Any, dataclasses.Field[Any]]]:
    """The settings in a dataclass and those within it: name, value and field of each."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from fields_of(value, f"{prefix}{field.name}.")
        else:
            yield prefix + field.name, value, field
