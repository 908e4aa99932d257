"""Turns what pydantic finds wrong with settings into ``BadInput``: value, rule and remedy in one line."""

from __future__ import annotations

from typing import Any, get_args

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from ..common.errors import BadInput, did_you_mean
from .renamed import new_name, new_value

WIDEST = 80  # characters of a value that a message quotes


def fields_of(section: type) -> dict[str, FieldInfo]:
    """The settings (and sub-sections) of a section by name, in the order they are declared."""
    return section.__pydantic_fields__  # type: ignore[attr-defined]


def bounds(field: FieldInfo) -> tuple[Any, Any]:
    """The least and the largest value of a setting; None where there is no such bound."""
    rules = field.metadata
    low = [rule.ge for rule in rules if hasattr(rule, "ge")]
    high = [rule.le for rule in rules if hasattr(rule, "le")]
    return (low or [None])[-1], (high or [None])[-1]


def type_name(field: FieldInfo) -> str:
    """The type of a setting as a word: int, float, str or tuple."""
    return getattr(field.annotation, "__name__", "value")


def quoted(value: object) -> str:
    """The value as it is shown in a message, cut if it is long."""
    text = repr(value)
    return text if len(text) <= WIDEST else text[: WIDEST - 3] + "..."


def bad_input(error: ValidationError, section: type, prefix: str = "") -> BadInput:
    """The first thing that is wrong, as ``BadInput``.

    Args:
        error: what pydantic raised.
        section: the dataclass that refused its values.
        prefix: what stands before the names of its settings in the message, e.g. "tiger.".
    """
    found = error.errors(include_url=False)[0]
    broken = found.get("ctx", {}).get("error")
    if isinstance(broken, BadInput):  # a rule of Config.__post_init__
        return broken
    path = [part for part in found["loc"] if isinstance(part, str)]  # without the place in a tuple
    name, value, kind = prefix + ".".join(path), found["input"], found["type"]
    owner, field = section, None
    for part in path:
        owner = owner if field is None else field.annotation or owner
        field = getattr(owner, "__pydantic_fields__", {}).get(part)
    if kind == "dataclass_type":
        rule = "a section must be a mapping"
        return BadInput(f"{name or 'config'}={quoted(value)}", rule, "compare config.json")
    if kind == "unexpected_keyword_argument":
        return unknown(name, path[-1], list(fields_of(owner)))
    if field is None:
        return BadInput(name or "config", found["msg"], "correct the value")
    return broken_rule(name, value, kind, field)


def unknown(name: str, key: str, known: list[str]) -> BadInput:
    """The setting ``name``, whose last part is ``key``, is none of its section's, the ``known``."""
    if renamed := new_name(name):
        return BadInput(f"setting {name}", "renamed", f"write {renamed}")
    return BadInput(f"setting {name}", "no such setting", did_you_mean(key, known))


def broken_rule(name: str, value: object, kind: str, field: FieldInfo) -> BadInput:
    """A value that is against the rule of its setting.

    Args:
        name: of the setting, with its section.
        value: the value.
        kind: pydantic's name of the error.
        field: the setting.
    """
    shown = f"{name}={quoted(value)}"
    if kind == "literal_error":
        if renamed := new_value(name, value):
            return BadInput(shown, "the value was renamed", f"write {name}={renamed}")
        return BadInput(shown, "not one of the choices", did_you_mean(str(value), get_args(field.annotation)))
    if kind == "finite_number":
        return BadInput(shown, "the value must be finite", "give a number")
    if type_name(field) == "tuple" and kind in ("too_short", "greater_than_equal"):
        return BadInput(shown, "widths must be positive integers", "give e.g. 512,256,128")
    if kind in ("greater_than_equal", "less_than_equal"):
        low, high = bounds(field)
        top = "" if high is None else f" and at most {high}"
        return BadInput(shown, f"the value must be at least {low}{top}", "give one in that range")
    what = "a list of integers (tuple)" if type_name(field) == "tuple" else f"of type {type_name(field)}"
    return BadInput(shown, f"the value must be {what}", "correct the value")
