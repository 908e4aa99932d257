"""The settings as tables: ``python -m streamrec_lite.config.table > docs/settings.md``."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from .messages import bounds, fields_of
from .presets import preset
from .settings import Config

COMMAND = "python -m streamrec_lite.config.table > docs/settings.md"
COLUMNS = {  # of the table of presets: heading -> preset and data set
    "default": ("lite", "real"),
    "`lite`, playground": ("lite", "playground"),
    "`smoke`": ("smoke", "playground"),
    "`paper`, playground": ("paper", "playground"),
    "`paper`, real data": ("paper", "real"),
}


def leaves(config: Config) -> Iterator[tuple[str, object, FieldInfo]]:
    """(dotted name, value, field) of every setting."""
    for name, part in fields_of(Config).items():
        value = getattr(config, name)
        if not dataclasses.is_dataclass(value):
            yield name, value, part
            continue
        for key, field in fields_of(type(value)).items():
            yield f"{name}.{key}", getattr(value, key), field


def describe(config: Config) -> list[tuple[str, object, str]]:
    """(dotted name, value, help) of every setting, for tables."""
    return [(name, value, field.description or "") for name, value, field in leaves(config)]


def allowed(field: FieldInfo) -> str:
    """Which values a setting may have, in Markdown: its choices, its range or its type."""
    if get_origin(field.annotation) is Literal:
        return ", ".join(f"`{choice}`" for choice in get_args(field.annotation))
    if field.annotation in (int, float):
        low, high = (None if bound is None else f"{bound:,.10g}" for bound in bounds(field))
        kind = "integer" if field.annotation is int else "number"
        return f"{kind}, {low} to {high}" if high else f"{kind}, {low} or more"
    return "text" if field.annotation is str else "integers with commas"


def shown(value: object) -> str:
    """A value as it is written behind ``--set KEY=``, in Markdown."""
    return f"`{','.join(map(str, value)) if isinstance(value, tuple) else value}`"


def settings_table(config: Config) -> str:
    """All settings of ``config`` in Markdown: name, value, allowed values, help; a table for each section."""
    lines, section = [], ""
    for name, value, field in leaves(config):
        if "." not in name:
            continue  # preset and dataset are options of their own on the command line
        if name.partition(".")[0] != section:
            section = name.partition(".")[0]
            about = (type(getattr(config, section)).__doc__ or "").splitlines()[0]
            lines += ["", f"## `{section}`", "", about, ""]
            lines += ["| setting | default | allowed | what it does |", "|---|---|---|---|"]
        text = (field.description or "").replace("|", "\\|")
        lines.append(f"| `{name}` | {shown(value)} | {allowed(field)} | {text} |")
    return "\n".join(lines).strip() + "\n"


def presets_table() -> str:
    """What the presets change, in Markdown: a row for each setting that one of them sets."""
    values = [dict((n, v) for n, v, _ in leaves(preset(*which))) for which in COLUMNS.values()]
    lines = [f"| setting | {' | '.join(COLUMNS)} |", "|---" * (len(COLUMNS) + 1) + "|"]
    for name, default in values[0].items():
        cells = [column[name] for column in values]
        if "." in name and any(cell != default for cell in cells):
            lines.append(f"| `{name}` | {' | '.join(shown(cell) for cell in cells)} |")
    return "\n".join(lines) + "\n"


def settings_page() -> str:
    """The page docs/settings.md."""
    return f"""# Settings

Every setting is changed by its name: `streamrec reproduce --set tiger.lr=0.002` on the command line, the
text `tiger.lr=0.002` in the list `overrides` of a notebook. Equations and sections are numbered as in the
paper. The defaults are those of the preset `lite` on real data; [the last table](#presets) shows what other
presets change.

This page is made by `{COMMAND}`.

{settings_table(Config())}
## Presets

`--preset smoke` takes seconds (for tests), `lite` suits two CPU cores, `paper` has the paper's sizes and
wants a GPU. A setting that is not listed here is the same in all of them.

{presets_table()}"""


if __name__ == "__main__":
    print(settings_page(), end="")
