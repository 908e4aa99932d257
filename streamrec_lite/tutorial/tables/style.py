"""What all tables share: short titles, ranked lists side by side, tables below each other."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from ...data.dataset import Dataset


def shorten(text: str, width: int = 40) -> str:
    """A title cut to ``width`` characters; an empty one becomes "(no title)"."""
    text = " ".join(str(text).split()) or "(no title)"
    return text if len(text) <= width else text[: width - 1].rstrip() + "…"


def titles(dataset: Dataset, items: Iterable, width: int = 40) -> list[str]:
    """Titles of item indices, cut to ``width`` characters; -1 (no item) becomes a dash."""
    column = dataset.items["title"]
    return [shorten(column.iloc[int(i)], width) if int(i) >= 0 else "-" for i in items]


def numbered(columns: dict[str, list]) -> pd.DataFrame:
    """Ranked lists side by side, numbered from 1."""
    table = pd.DataFrame(columns)
    table.index += 1
    return table


def stacked(tables: dict[str, pd.DataFrame] | list[pd.DataFrame], name: str) -> pd.DataFrame:
    """Tables one below another; the new column ``name`` holds a dict's keys, or 1, 2, ... for a list."""
    named: dict = tables if isinstance(tables, dict) else dict(enumerate(tables, start=1))
    return pd.concat(named, names=[name]).reset_index(level=0).reset_index(drop=True)
