"""What all widgets share: plotly's settings, and tables as HTML."""

from __future__ import annotations

import html
from typing import Any

import pandas as pd

FONT = {"size": 13, "family": "sans-serif", "color": "black"}


def layout(title: str, height: int, **more: Any) -> dict[str, Any]:
    """plotly's layout settings of all widgets, and ``more`` of them; ``height`` in pixels."""
    margin = {"l": 60, "r": 20, "t": 50, "b": 50}
    return {
        "title": title,
        "height": height,
        "template": "simple_white",
        "font": FONT,
        "margin": margin,
        "modebar": {"orientation": "v"},  # beside the title, not over it
        **more,
    }


def html_table(table: pd.DataFrame, bold_row: int | None = None) -> str:
    """A table as HTML with escaped text; ``bold_row`` is set in bold."""
    head = "".join(f"<th style='text-align:left;padding:2px 10px'>{html.escape(str(c))}</th>" for c in table)
    body = []
    for i, row in enumerate(table.itertuples(index=False)):
        weight = "bold" if i == bold_row else "normal"
        cells = "".join(f"<td style='padding:2px 10px'>{html.escape(str(v))}</td>" for v in row)
        body.append(f"<tr style='font-weight:{weight}'>{cells}</tr>")
    return f"<table style='font-size:13px;line-height:1.5'><tr>{head}</tr>{''.join(body)}</table>"
