"""The interactive twins of some figures: ipywidgets around plotly, for JupyterLab and notebooks.

Each widget holds its numbers as plain tables, so a test (or a reader) can move a slider in Python
and look at ``widget.table``. In a notebook that is run without a front end they are only drawn
once; the static picture and table in the next cell then say the same.
"""

from __future__ import annotations

import html

import ipywidgets as ipw
import numpy as np
import pandas as pd
import plotly.graph_objects as go

from ..figures.style import BLUE, CYCLE, GREY, ORANGE, PLOTLY_MARKERS, RED
from ..tables import items as walkthrough

FONT = {"size": 13, "family": "sans-serif", "color": "black"}
MOST_LISTED = 8


def layout(title: str, height: int, **more) -> dict:
    """plotly's settings that all widgets share; ``height`` in pixels."""
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
    """A table as HTML with escaped text; one row may be set in bold."""
    head = "".join(f"<th style='text-align:left;padding:2px 10px'>{html.escape(str(c))}</th>" for c in table)
    body = []
    for i, row in enumerate(table.itertuples(index=False)):
        weight = "bold" if i == bold_row else "normal"
        cells = "".join(f"<td style='padding:2px 10px'>{html.escape(str(v))}</td>" for v in row)
        body.append(f"<tr style='font-weight:{weight}'>{cells}</tr>")
    return f"<table style='font-size:13px;line-height:1.5'><tr>{head}</tr>{''.join(body)}</table>"


class SemanticIdExplorer(ipw.VBox):
    """Follow one item down the codebooks: choose an item and a level.

    Shows the residual's norm before and after each level, the code chosen there, the error of the
    reconstruction, and the items that share the codes so far. ``search`` narrows the items down by
    words of the title. ``table`` is what is shown, a row a level; ``peers`` the items listed.
    """

    def __init__(self, tokenizer, dataset, item: int = 0):
        self.tokenizer, self.dataset = tokenizer, dataset
        self.names = walkthrough.titles(dataset, range(dataset.n_items), 60)
        wide = {"description_width": "60px"}
        self.search = ipw.Text(
            description="search",
            placeholder="words of a title, then Enter",
            continuous_update=False,
            style=wide,
            layout={"width": "420px"},
        )
        self.item = ipw.Dropdown(description="item", style=wide, layout={"width": "560px"})
        self.level = ipw.IntSlider(
            1, 1, tokenizer.m, description="level", style=wide, layout={"width": "420px"}
        )
        self.figure = go.FigureWidget(
            layout=layout("", 330, barmode="group", xaxis={"title": "level"}, showlegend=False)
        )
        self.text = ipw.HTML()
        self._list(item)
        self._draw()
        self.search.observe(self._search, "value")
        self.item.observe(self._draw, "value")
        self.level.observe(self._draw, "value")
        super().__init__([ipw.HBox([self.search, self.level]), self.item, self.figure, self.text])

    def _list(self, item: int, among: list[int] | None = None, most: int = 300) -> None:
        """Fill the dropdown with up to ``most`` items (a browser chokes on a million), ``item`` chosen."""
        rows = list(range(self.dataset.n_items)) if among is None else among
        rows = rows[:most] if item in rows[:most] else [item, *rows[: most - 1]]
        self.item.options = [(f"{self.dataset.item_ids[i]}: {self.names[i]}", i) for i in rows]
        self.item.value = item

    def _search(self, _change=None) -> None:
        words = self.search.value.lower().split()
        found = [i for i, t in enumerate(self.dataset.items["title"]) if all(w in t.lower() for w in words)]
        if found:
            self._list(found[0], found)
        else:
            self.text.value = f"<p>No title has all of: {html.escape(self.search.value)}</p>"

    def _draw(self, _change=None) -> None:
        item, level = self.item.value, self.level.value
        if item is None:  # for a moment, while the list of items is replaced
            return
        self.table = walkthrough.residual_walk(self.tokenizer, item)
        self.peers = walkthrough.prefix_peers(self.tokenizer, item, level)
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
            self.figure.layout.title = (
                f"Level {level}: {100 * errors[level]:.0f} % of the latent is left over"
            )
        self.text.value = self._words(item, level)

    def _words(self, item: int, level: int) -> str:
        shown = self.table.copy()
        for column in ("before", "after"):
            shown[column] = shown[column].map("{:.3f}".format)
        shown["error"] = shown["error"].map("{:.1%}".format)
        shown = shown.rename(
            columns={"before": "residual before", "after": "residual after", "error": "left over"}
        )
        codes = " · ".join(str(c) for c in self.table["code"][:level])
        listed = [html.escape(self.names[i]) for i in self.peers[:MOST_LISTED]]
        more = len(self.peers) - len(listed)
        rest = f"<li>and {more} more</li>" if more > 0 else ""
        titles = (
            "".join(f"<li>{t}</li>" for t in listed) + rest or "<li>none: this prefix is the item's own</li>"
        )
        return (
            f"{html_table(shown, level - 1)}<p style='font-size:13px'><b>{html.escape(self.names[item])}</b> "
            f"has the prefix <b>{codes}</b>. Other items with it ({len(self.peers)}):</p>"
            f"<ul style='font-size:13px;line-height:1.5'>{titles}</ul>"
        )


def semantic_id_explorer(tokenizer, dataset, item: int = 0) -> SemanticIdExplorer:
    """The widget of notebook 03; see ``SemanticIdExplorer``."""
    return SemanticIdExplorer(tokenizer, dataset, item)


class BeamStepper(ipw.VBox):
    """Step through a beam search: a slider for the code level, the best prefixes as bars.

    ``steps`` comes from ``slow_motion.beam_steps``; ``target`` (an item index) is marked with a star
    and in red, if given with the tokenizer's ``codes``. ``table`` is what is shown.
    """

    def __init__(
        self, steps: list[pd.DataFrame], dataset, target: int | None = None, codes=None, rows: int = 10
    ):
        self.steps, self.dataset, self.rows = steps, dataset, rows
        self.truth = None if target is None or codes is None else tuple(int(c) for c in codes[target])
        self.step = ipw.IntSlider(1, 1, len(steps), description="step", layout={"width": "420px"})
        self.figure = go.FigureWidget(layout=layout("", 420, showlegend=False))
        self.figure.layout.margin.l = 330
        self.text = ipw.HTML()
        self._draw()
        self.step.observe(self._draw, "value")
        super().__init__([self.step, self.figure, self.text])

    def _draw(self, _change=None) -> None:
        depth = self.step.value
        full = self.steps[depth - 1]
        self.table = beam_table(full, self.dataset, self.truth, self.rows)
        right = self.table["on target's path"]
        names = (self.table["mark"] + self.table["codes"] + "  " + self.table["leads to"]).tolist()[::-1]
        bars = {"color": [RED if r else BLUE for r in right][::-1], "line": {"color": "black", "width": 1}}
        with self.figure.batch_update():
            if not self.figure.data:
                self.figure.add_bar(orientation="h", textposition="outside", cliponaxis=False)
            trace = self.figure.data[0]
            share = (100 * np.exp(self.table["score"])).tolist()[::-1]
            trace.x, trace.y, trace.marker = share, names, bars
            trace.text = [f"{s:.1f} %" for s in share]
            self.figure.layout.xaxis.update(
                title="probability of the codes so far (%)", range=[0, 1.2 * max(share)]
            )
            self.figure.layout.title = (
                f"Step {depth}: {int(full['kept'].sum())} of {len(full)} prefixes are kept"
            )
        shown = self.table.drop(columns=["mark", "on target's path"])
        for column in ("log_prob", "score"):
            shown[column] = shown[column].map("{:.3f}".format)
        self.text.value = html_table(shown)


def beam_table(step: pd.DataFrame, dataset, truth: tuple | None = None, rows: int = 10) -> pd.DataFrame:
    """The best prefixes of a step in words: a row a prefix, "mark" holds a star on the target's path."""
    top = step.head(rows)
    on_path = [truth is not None and c == truth[: len(c)] for c in top["codes"]]
    names = walkthrough.titles(dataset, top["example"], 34)
    lead = [n if i == 1 else f"{i} items, e.g. {n}" for n, i in zip(names, top["items"], strict=True)]
    return pd.DataFrame(
        {
            "mark": ["★ " if r else "" for r in on_path],
            "codes": ["·".join(map(str, c)) for c in top["codes"]],
            "leads to": lead,
            "grew from": top["parent"] + 1,
            "log_prob": top["log_prob"],
            "score": top["score"],
            "on target's path": on_path,
        }
    )


def beam_stepper(steps, dataset, target: int | None = None, codes=None) -> BeamStepper:
    """The widget of notebook 04; see ``BeamStepper``."""
    return BeamStepper(steps, dataset, target, codes)


def item_map(points: np.ndarray, labels: list[str], names: list[str]) -> go.Figure:
    """Items as points that name themselves under the mouse; a colour and a marker a category."""
    figure = go.Figure(layout=layout("Items by the similarity of their text (point at one)", 520))
    order = pd.Series(labels).value_counts().index
    order = [n for n in order if n != "other"] + [n for n in order if n == "other"]
    chosen, names = np.asarray(labels), np.asarray(names)
    for name, colour, symbol in zip(order, CYCLE, PLOTLY_MARKERS, strict=False):
        rows = chosen == name
        x, y = points[rows].round(3).T
        figure.add_scatter(
            x=x.tolist(),
            y=y.tolist(),
            mode="markers",
            name=walkthrough.short(name, 30),
            text=names[rows].tolist(),
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
