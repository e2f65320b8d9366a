"""What a value may be, said beside its field, and the error that names a setting."""

import dataclasses
import difflib
import math
import os
from collections.abc import Callable, Iterator
from typing import Any, Literal, get_args, get_origin

from layerwise.config.choices import Choices
from layerwise.errors import SettingError

KINDS: dict[type, str] = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
"""in words"""
Rule = Callable[[Any], str | None]
"""gives what to say of a value that is not right, to follow its name, or None"""


def setting(default: Any, rule: Rule | Choices, **values: Any) -> Any:
    """A dataclass field with the rule that its values keep to; None is right wherever its type allows it."""
    return dataclasses.field(default=default, metadata={"rule": rule}, **values)


def within(least: int, most: int) -> Rule:
    """A whole number from `least` to `most`."""
    too_small = f"is too small; give a whole number of at least {least}"
    too_large = f"is too large; give a whole number of at most {most}"
    return lambda value: too_small if value < least else too_large if value > most else None


def at_least(least: int) -> Rule:
    """A whole number that is not below `least`, of a size that counts and sides may have."""
    return within(least, 2**31 - 1)


def number(example: float, *, below: float = math.inf, zero: bool = False) -> Rule:
    """A finite number above 0, or 0, too, where asked, and below another."""
    wanted = "0 or a positive number" if zero else "a positive number"
    if below < math.inf:
        wanted = f"a number from 0 to below {below:g}" if zero else f"a number between 0 and {below:g}"
    complaint = f"is out of range; give {wanted}, such as {example:g}"
    return lambda value: None if 0 < value < below or (zero and value == 0) else complaint


def check_values(config: Any, name: Callable[[str], str]) -> None:
    """Refuse a value of another kind than its field's, or that its rule does not allow, also in dataclasses within.

    `name` turns a field's name within `config` into the setting's whole name, for the SettingError. NumPy's numbers
    and paths become Python's numbers and text, as files hold those.
    """
    _settle(config)
    for own, value, field in fields_of(config):
        rule = field.metadata.get("rule")
        named = _named(rule, field.type)
        if value is None:
            if type(None) not in get_args(field.type):
                raise SettingError(f"{name(own)}: null is not allowed; give a value, or omit the setting")
        elif not _is_kind(value, str if named else field.type):
            raise SettingError(f"{name(own)}: {value!r} is not {_in_words(field.type)}; give that")
        elif named:
            if value not in named:
                near = difflib.get_close_matches(str(value), named, 1)
                remedy = f"did you mean {near[0]}?" if near else "see --help"
                raise SettingError(f"{name(own)}: {value} is not one of {', '.join(named)}; {remedy}")
        elif rule and (complaint := rule(value)):
            raise SettingError(f"{name(own)}: {value} {complaint}")


def _settle(config: Any) -> None:
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            _settle(value)
        elif isinstance(value, tuple):
            object.__setattr__(config, field.name, list(value))
        elif isinstance(value, os.PathLike):
            object.__setattr__(config, field.name, os.fspath(value))
        elif getattr(value, "ndim", None) == 0:  # of an array
            object.__setattr__(config, field.name, value.item())


def _is_kind(value: Any, kind: Any) -> bool:
    """Whether a value is of the type of a field."""
    within = get_args(kind)
    if get_origin(kind) is Literal:
        return value in within
    if get_origin(kind) is list:
        return isinstance(value, list) and all(_is_kind(one, within[0]) for one in value)
    if within and get_origin(kind) is not dict:
        return any(_is_kind(value, one) for one in within)
    if isinstance(value, bool) or kind is bool:
        return isinstance(value, bool) and kind is bool
    return isinstance(value, (int, float) if kind is float else get_origin(kind) or kind)


def _in_words(kind: Any) -> str:
    """What values of a field are."""
    if get_origin(kind) is Literal:
        return " or ".join(get_args(kind))
    if get_origin(kind) is list:
        return f"a list of {_in_words(get_args(kind)[0])}, such as [a, b]"
    if get_args(kind) and get_origin(kind) is not dict:
        return " or ".join(_in_words(one) for one in get_args(kind) if one is not type(None))
    return KINDS.get(kind) or f"of {getattr(kind, '__name__', kind)}"


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
