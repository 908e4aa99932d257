"""The widget of notebook 09: differences to TIGER, and models over groups of users."""

from __future__ import annotations

from typing import Any

import ipywidgets as ipw
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots
from torch import Tensor

from ...evaluation.metrics import METRIC_NAMES
from ...evaluation.results_table import REFERENCE
from ..figures.style import BLACK, CYCLE, GREEN, GREY, PLOTLY_MARKERS, RED
from ..tables import results as tables
from .style import html_table, layout

DASHES = ("solid", "dash", "dashdot", "dot", "longdash", "longdashdot")


class ResultsExplorer(ipw.VBox):
    """Left: the chosen models minus TIGER. Right: the same models over groups of users.

    ``differences`` and ``groups`` are the tables that are drawn.

    Args:
        results: a results.json.
        ranks: ``read_ranks``, model -> ranks (users,) for each seed.
        groups: the possible groupings of users by name; the first one is shown at the start.
    """

    def __init__(self, results: dict, ranks: dict[str, list[Tensor]], groups: dict[str, tables.UserGroups]):
        self.results, self.by = results, groups
        self.values = {metric: tables.metric_by_user(ranks, metric) for metric in METRIC_NAMES}
        names, style = list(ranks), {"description_width": "60px"}
        self.metric = ipw.Dropdown(
            options=METRIC_NAMES, value="N@10", description="metric", style=style, layout={"width": "200px"}
        )
        self.group = ipw.Dropdown(
            options=list(groups), description="users by", style=style, layout={"width": "260px"}
        )
        self.models = ipw.SelectMultiple(
            options=names,
            value=[name for name in names if name in tables.best_models(results)],
            description="models",
            rows=min(8, len(names)),
            style=style,
            layout={"width": "340px"},
        )
        figure = make_subplots(1, 2, column_widths=[0.42, 0.58], horizontal_spacing=0.09)
        for _ in ("interval excludes 0", "includes 0"):
            figure.add_scatter(mode="markers", showlegend=False, row=1, col=1)
        for number, name in enumerate(names):
            colour, marker = CYCLE[number % 8], PLOTLY_MARKERS[(number + number // 8) % 8]
            dash = DASHES[number % len(DASHES)]
            figure.add_scatter(
                name=name, mode="lines+markers", line={"color": colour, "dash": dash, "width": 2},
                marker={"symbol": marker, "size": 9}, row=1, col=2,
            )  # fmt: skip
        figure.add_vline(0, line={"color": BLACK, "width": 1}, row=1, col=1)
        figure.update_layout(**layout("", 520, legend={"orientation": "h", "y": -0.45}))
        figure.update_xaxes(nticks=5, row=1, col=1)
        figure.update_yaxes(automargin=True, row=1, col=1)
        self.figure, self.text = figure, ipw.HTML()
        self._draw()
        self.figure = go.FigureWidget(figure)  # only now: a browser does not draw traces without data
        for control in (self.metric, self.group, self.models):
            control.observe(self._draw, "value")
        controls = ipw.HBox([ipw.VBox([self.metric, self.group]), self.models])
        super().__init__([controls, self.figure, self.text])

    def _draw(self, _change: object = None) -> None:
        metric, chosen = self.metric.value, list(self.models.value)
        self.differences = tables.difference_table(self.results, metric, chosen)
        values = {name: self.values[metric][name] for name in chosen}
        self.groups = tables.mean_by_group(values, self.by[self.group.value])
        with self.figure.batch_update():
            excludes_0 = self.differences["excludes 0"].astype(bool)
            self._interval(self.figure.data[0], self.differences[excludes_0], True)
            self._interval(self.figure.data[1], self.differences[~excludes_0], False)
            for trace in self.figure.data[2:]:
                self._line(trace)
            order = self.differences.index[::-1].tolist()  # plotly draws the first one at the bottom
            self.figure.layout.yaxis.update(categoryorder="array", categoryarray=order)
            self.figure.layout.xaxis.title = f"{metric} minus {REFERENCE}'s"
            self.figure.layout.xaxis2.title = self.group.value
            self.figure.layout.yaxis2.update(title=f"test {metric}", rangemode="tozero")
            self.figure.layout.title = (
                f"{metric} minus {REFERENCE}'s (filled: interval excludes 0), by {self.group.value}"
            )
        self.text.value = html_table(self.differences.round(4).rename_axis("model").reset_index())

    def _interval(self, trace: Any, table: pd.DataFrame, filled: bool) -> None:
        """Draw differences as markers with intervals: filled, or hollow if the intervals include 0."""
        better = [difference > 0 for difference in table["difference"]]
        trace.x, trace.y = table["difference"].tolist(), table.index.tolist()
        symbols = ["triangle-up" if up else "triangle-down" for up in better] if filled else "square-open"
        colours = [GREEN if up else RED for up in better] if filled else GREY
        trace.marker = {"symbol": symbols, "size": 11, "color": colours}
        up, down = table["high"] - table["difference"], table["difference"] - table["low"]
        trace.error_x = {"array": up.tolist(), "arrayminus": down.tolist(), "symmetric": False, "color": GREY}

    def _line(self, trace: Any) -> None:
        """Draw one model over the groups, or hide it if it is not chosen."""
        part = self.groups[self.groups["model"] == trace.name] if len(self.groups) else self.groups
        trace.visible = bool(len(part))
        if not len(part):
            return
        trace.x = [f"{name} ({n:,})" for name, n in zip(part["group"], part["users"], strict=True)]
        trace.y = part["mean"].tolist()
        trace.error_y = {"array": (part["high"] - part["mean"]).tolist(), "thickness": 1}
