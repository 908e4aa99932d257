"""Widgets of notebooks 02 and 03: the map of the items, and residual quantisation (ipywidgets, plotly).

Each widget keeps its numbers as plain tables, so that a test or a reader can move a slider in Python and
look at ``widget.table``. In a notebook that is run without a browser a widget is drawn only once; the
static figure and table in the next cells show the same numbers.
"""

from __future__ import annotations

import html

import ipywidgets as ipw
import numpy as np
import pandas as pd
import plotly.graph_objects as go

from ...data.dataset import Dataset
from ...tokenizer.semantic_ids import SemanticTokenizer
from ..figures.style import BLUE, CYCLE, GREY, ORANGE, PLOTLY_MARKERS
from ..tables.items import items_with_prefix, quantisation_table
from ..tables.style import shorten, titles
from .style import html_table, layout

MAX_LISTED = 8


class SemanticIdExplorer(ipw.VBox):
    """Follow one item down the codebooks: choose an item and a level.

    It shows the norm of the residual after each level, the code chosen there, the error of the
    reconstruction, and the items that share the codes so far. ``search`` selects items by words of their
    title. ``table`` is what is shown, a row for each level; ``peers`` are the items listed.
    """

    def __init__(self, tokenizer: SemanticTokenizer, dataset: Dataset, item: int = 0):
        self.tokenizer, self.dataset = tokenizer, dataset
        self.names = titles(dataset, range(dataset.n_items), 60)
        style = {"description_width": "60px"}
        self.search = ipw.Text(
            description="search",
            placeholder="words of a title, then Enter",
            continuous_update=False,
            style=style,
            layout={"width": "420px"},
        )
        self.item = ipw.Dropdown(description="item", style=style, layout={"width": "560px"})
        self.level = ipw.IntSlider(
            1, 1, tokenizer.m, description="level", style=style, layout={"width": "420px"}
        )
        self.figure = go.Figure(
            layout=layout("", 330, barmode="group", xaxis={"title": "level"}, showlegend=False)
        )
        self.text = ipw.HTML()
        self._list(item)
        self._draw()
        self.figure = go.FigureWidget(self.figure)  # only now: a browser does not draw traces without data
        self.search.observe(self._search, "value")
        self.item.observe(self._draw, "value")
        self.level.observe(self._draw, "value")
        super().__init__([ipw.HBox([self.search, self.level]), self.item, self.figure, self.text])

    def _list(self, item: int, among: list[int] | None = None, limit: int = 300) -> None:
        """Fill the dropdown with up to ``limit`` items (browsers cannot list a million); choose ``item``."""
        rows = list(range(self.dataset.n_items)) if among is None else among
        rows = rows[:limit] if item in rows[:limit] else [item, *rows[: limit - 1]]
        self.item.options = [(f"{self.dataset.item_ids[i]}: {self.names[i]}", i) for i in rows]
        self.item.value = item

    def _search(self, _change: object = None) -> None:
        words = self.search.value.lower().split()
        found = [i for i, t in enumerate(self.dataset.items["title"]) if all(w in t.lower() for w in words)]
        if found:
            self._list(found[0], found)
        else:
            self.text.value = f"<p>No title has all of: {html.escape(self.search.value)}</p>"

    def _draw(self, _change: object = None) -> None:
        item, level = self.item.value, self.level.value
        if item is None:  # while the list of items is being replaced
            return
        self.table = quantisation_table(self.tokenizer, item)
        self.peers = items_with_prefix(self.tokenizer, item, level)
        norms = np.r_[self.table["before"].iloc[0], self.table["after"]]
        errors = np.r_[1.0, self.table["error"]]
        done = np.arange(len(norms)) <= level
        colours = [ORANGE if i == level else BLUE if d else "white" for i, d in enumerate(done)]
        colours[0] = GREY
        labels = [f"{100 * e:.0f} %" if d else "" for e, d in zip(errors, done, strict=True)]
        ticks = [
            "start",
            *(f"{d}: code {c}" for d, c in zip(self.table["level"], self.table["code"], strict=True)),
        ]
        bars = {"color": colours, "line": {"color": "black", "width": 1}}
        with self.figure.batch_update():
            if not self.figure.data:
                self.figure.add_bar(textposition="outside", cliponaxis=False)
            trace = self.figure.data[0]
            trace.x, trace.y, trace.text, trace.marker = list(range(len(norms))), norms.tolist(), labels, bars
            self.figure.layout.xaxis.update(tickvals=list(range(len(norms))), ticktext=ticks)
            self.figure.layout.yaxis.update(title="residual norm", range=[0, 1.18 * float(norms.max())])
            self.figure.layout.title = f"Level {level}: {100 * errors[level]:.0f} % of the latent remains"
        self.text.value = self._describe(item, level)

    def _describe(self, item: int, level: int) -> str:
        """The text below the figure, as HTML."""
        shown = self.table.copy()
        for column in ("before", "after"):
            shown[column] = shown[column].map("{:.3f}".format)
        shown["error"] = shown["error"].map("{:.1%}".format)
        shown = shown.rename(
            columns={"before": "residual before", "after": "residual after", "error": "remaining"}
        )
        codes = " · ".join(str(c) for c in self.table["code"][:level])
        listed = [html.escape(self.names[i]) for i in self.peers[:MAX_LISTED]]
        more = len(self.peers) - len(listed)
        rest = f"<li>and {more} more</li>" if more > 0 else ""
        peers = (
            "".join(f"<li>{t}</li>" for t in listed) + rest or "<li>none: no other item has this prefix</li>"
        )
        return (
            f"{html_table(shown, level - 1)}<p style='font-size:13px'><b>{html.escape(self.names[item])}</b> "
            f"has the prefix <b>{codes}</b>. Other items with it ({len(self.peers)}):</p>"
            f"<ul style='font-size:13px;line-height:1.5'>{peers}</ul>"
        )


def interactive_item_map(points: np.ndarray, labels: list[str], names: list[str]) -> go.Figure:
    """The map of the items with their names under the mouse; a colour and a marker for each category.

    ``points`` (n, 2), ``labels`` n categories, ``names`` n titles.
    """
    figure = go.Figure(layout=layout("Items by the similarity of their text (point at one)", 520))
    frequent = pd.Series(labels).value_counts().index
    order = [n for n in frequent if n != "other"] + [n for n in frequent if n == "other"]
    categories, hover = np.asarray(labels), np.asarray(names)
    for name, colour, symbol in zip(order, CYCLE, PLOTLY_MARKERS, strict=False):
        rows = categories == name
        x, y = points[rows].round(3).T
        figure.add_scatter(
            x=x.tolist(),
            y=y.tolist(),
            mode="markers",
            name=shorten(name, 30),
            text=hover[rows].tolist(),
            hovertemplate="%{text}<extra>%{fullData.name}</extra>",
            marker={
                "size": 7,
                "color": GREY if name == "other" else colour,
                "symbol": symbol,
                "opacity": 0.8,
            },
        )
    figure.update_layout(xaxis_title="UMAP 1 (no unit)", yaxis_title="UMAP 2 (no unit)")
    return figure
