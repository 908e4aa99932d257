"""How settings are declared, checked, parsed and rebuilt: what ``config`` states its settings with."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from dataclasses import field

from ..common.errors import BadInput, did_you_mean


def opt(default, text: str, low=None, high=None, among=None):
    """A field with its help text and its rule: an inclusive range, or a choice."""
    return field(default=default, metadata={"help": text, "low": low, "high": high, "among": among})


def leaves(node, prefix=""):
    """(dotted name, value, metadata) of every setting below ``node``."""
    for f in dataclasses.fields(node):
        value = getattr(node, f.name)
        if dataclasses.is_dataclass(value):
            yield from leaves(value, f"{prefix}{f.name}.")
        else:
            yield prefix + f.name, value, f.metadata


def types(node, prefix=""):
    """(dotted name, type as written) of every setting below ``node``."""
    for f in dataclasses.fields(node):
        value = getattr(node, f.name)
        if dataclasses.is_dataclass(value):
            yield from types(value, f"{prefix}{f.name}.")
        else:
            yield prefix + f.name, f.type


def check(name: str, value, meta) -> None:
    """``BadInput`` unless the value keeps its field's rule."""
    low, high, among = meta["low"], meta["high"], meta["among"]
    if among and value not in among:
        raise BadInput(f"{name}={value!r}", "not one of the choices", did_you_mean(str(value), among))
    if isinstance(value, float) and not math.isfinite(value):
        raise BadInput(f"{name}={value}", "the value must be finite", "give a number")
    if (low is not None and value < low) or (high is not None and value > high):
        top = "" if high is None else f" and at most {high}"
        raise BadInput(f"{name}={value}", f"the value must be at least {low}{top}", "give one in that range")
    if isinstance(value, tuple) and (not value or any(v < 1 for v in value)):
        raise BadInput(f"{name}={value}", "widths must be positive integers", "give e.g. 512,256,128")


def parse(name: str, raw: str, kind: str):
    """The text of ``--set NAME=raw`` as a value of the field's type."""
    try:
        if kind == "int":
            return int(raw)
        if kind == "float":
            return float(raw)
        if kind.startswith("tuple"):
            return [int(part) for part in raw.strip("()[]").split(",") if part.strip()]
    except ValueError:
        what = "integers with commas" if kind.startswith("tuple") else f"{kind} number"
        raise BadInput(f"{name}={raw}", f"the value must be an {what}", "correct the value") from None
    return raw


def build(cls, values: dict, prefix: str):
    """A settings class from plain nested values; unknown keys are ``BadInput``."""
    if not isinstance(values, dict):
        raise BadInput(
            f"{prefix or 'config'}={values!r}", "a section must be a mapping", "compare config.json"
        )
    fields = {f.name: f for f in dataclasses.fields(cls)}
    for key in values:
        if key not in fields:
            raise BadInput(f"setting {prefix}{key}", "no such setting", did_you_mean(key, fields))
    made = {}
    for key, value in values.items():
        default = fields[key].default_factory
        if default is not dataclasses.MISSING:
            made[key] = build(type(default()), value, f"{prefix}{key}.")
        else:
            made[key] = cast(f"{prefix}{key}", value, fields[key].type)
    return cls(**made)


def cast(name: str, value, kind: str):
    """A JSON value as the field's type; true is no integer, 3.0 is no integer."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if kind == "int" and number and isinstance(value, int):
        return value
    if kind == "float" and number:
        with contextlib.suppress(OverflowError):  # an int may be larger than any float
            return float(value)
    if kind == "str" and isinstance(value, str):
        return value
    listed = kind.startswith("tuple") and isinstance(value, (list, tuple))
    if listed and all(isinstance(v, int) and not isinstance(v, bool) for v in value):
        return tuple(value)
    raise BadInput(f"{name}={value!r}", f"the value must be of type {kind}", "correct the value")
