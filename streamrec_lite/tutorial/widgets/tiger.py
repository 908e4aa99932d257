"""The widget of notebook 04: a beam search, step by step."""

from __future__ import annotations

import ipywidgets as ipw
import numpy as np
import pandas as pd
import plotly.graph_objects as go
from torch import Tensor

from ...data.dataset import Dataset
from ..figures.style import BLUE, RED
from ..tables.tiger import beam_table
from .style import html_table, layout


class BeamStepper(ipw.VBox):
    """Step through a beam search: a slider for the code level, the best prefixes as bars.

    ``table`` is what is shown.

    Args:
        steps: ``beam_steps``, a table for each code level.
        dataset: for the titles of items.
        target: the item that the user took; with ``codes`` its prefixes are red and have a star.
        codes: (N, m) codes of all items.
        rows: how many prefixes are shown.
    """

    def __init__(
        self,
        steps: list[pd.DataFrame],
        dataset: Dataset,
        target: int | None = None,
        codes: Tensor | None = None,
        rows: int = 10,
    ):
        self.steps, self.dataset, self.rows = steps, dataset, rows
        self.target_codes = None if target is None or codes is None else tuple(int(c) for c in codes[target])
        self.step = ipw.IntSlider(1, 1, len(steps), description="step", layout={"width": "420px"})
        self.figure = go.Figure(layout=layout("", 420, showlegend=False))
        self.figure.layout.margin.l = 330
        self.text = ipw.HTML()
        self._draw()
        self.figure = go.FigureWidget(self.figure)  # only now: a browser does not draw traces without data
        self.step.observe(self._draw, "value")
        super().__init__([self.step, self.figure, self.text])

    def _draw(self, _change: object = None) -> None:
        depth = self.step.value
        full = self.steps[depth - 1]
        self.table = beam_table(full, self.dataset, self.target_codes, self.rows)
        on_path = self.table["on target's path"]
        names = (self.table["mark"] + self.table["codes"] + "  " + self.table["leads to"]).tolist()[::-1]
        bars = {
            "color": [RED if on else BLUE for on in on_path][::-1],
            "line": {"color": "black", "width": 1},
        }
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
