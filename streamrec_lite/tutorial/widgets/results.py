"""The widget of notebook 09: choose a metric, models and groups of users, and see both plots move."""

from __future__ import annotations

import ipywidgets as ipw
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from ...evaluation.metrics import METRIC_NAMES
from ...evaluation.results_table import REFERENCE
from ..figures.style import BLACK, CYCLE, GREEN, GREY, PLOTLY_MARKERS, RED
from ..tables import results as lessons
from .items import html_table, layout

DASHES = ("solid", "dash", "dashdot", "dot", "longdash", "longdashdot")


class ResultsExplorer(ipw.VBox):
    """Left the chosen models minus TIGER, right the same models over groups of users.

    ``differences`` and ``groups`` are the tables that are drawn.

    Args:
        results: a results.json.
        ranks: ``lessons_results.read_ranks``.
        groups: what to group users by, name -> ``lessons_results.Groups``; the first is shown first.
    """

    def __init__(self, results: dict, ranks: dict, groups: dict[str, lessons.Groups]):
        self.results, self.by = results, groups
        self.values = {metric: lessons.per_user(ranks, metric) for metric in METRIC_NAMES}
        names, wide = list(ranks), {"description_width": "60px"}
        self.metric = ipw.Dropdown(
            options=METRIC_NAMES, value="N@10", description="metric", style=wide, layout={"width": "200px"}
        )
        self.group = ipw.Dropdown(
            options=list(groups), description="users by", style=wide, layout={"width": "260px"}
        )
        self.models = ipw.SelectMultiple(
            options=names,
            value=[name for name in names if name in lessons.main_rows(results)],
            description="models",
            rows=min(8, len(names)),
            style=wide,
            layout={"width": "340px"},
        )
        figure = make_subplots(1, 2, column_widths=[0.42, 0.58], horizontal_spacing=0.09)
        for _ in ("interval excludes 0", "may be luck"):
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
        self.figure = go.FigureWidget(figure)  # whole from the start: a browser draws no half traces
        for control in (self.metric, self.group, self.models):
            control.observe(self._draw, "value")
        controls = ipw.HBox([ipw.VBox([self.metric, self.group]), self.models])
        super().__init__([controls, self.figure, self.text])

    def _draw(self, _change=None) -> None:
        metric, chosen = self.metric.value, list(self.models.value)
        self.differences = lessons.forest(self.results, metric, chosen)
        values = {name: self.values[metric][name] for name in chosen}
        self.groups = lessons.by_group(values, self.by[self.group.value])
        with self.figure.batch_update():
            sure = self.differences["sure"].astype(bool)
            self._interval(self.figure.data[0], self.differences[sure], True)
            self._interval(self.figure.data[1], self.differences[~sure], False)
            for trace in self.figure.data[2:]:
                self._line(trace)
            order = self.differences.index[::-1].tolist()  # plotly draws the first one at the bottom
            self.figure.layout.yaxis.update(categoryorder="array", categoryarray=order)
            self.figure.layout.xaxis.title = f"{metric} minus {REFERENCE}'s"
            self.figure.layout.xaxis2.title = self.group.value
            self.figure.layout.yaxis2.update(title=f"test {metric}", rangemode="tozero")
            self.figure.layout.title = (
                f"{metric}: against {REFERENCE} (filled: interval excludes 0), by {self.group.value}"
            )
        self.text.value = html_table(self.differences.round(4).rename_axis("model").reset_index())

    def _interval(self, trace, table, filled: bool) -> None:
        """Draw a part of the differences as markers with intervals, those that may be luck hollow."""
        better = [difference > 0 for difference in table["difference"]]
        trace.x, trace.y = table["difference"].tolist(), table.index.tolist()
        symbols = ["triangle-up" if up else "triangle-down" for up in better] if filled else "square-open"
        colours = [GREEN if up else RED for up in better] if filled else GREY
        trace.marker = {"symbol": symbols, "size": 11, "color": colours}
        up, down = table["high"] - table["difference"], table["difference"] - table["low"]
        trace.error_x = {"array": up.tolist(), "arrayminus": down.tolist(), "symmetric": False, "color": GREY}

    def _line(self, trace) -> None:
        """Draw one model over the groups, or hide it if it is not chosen."""
        part = self.groups[self.groups["model"] == trace.name] if len(self.groups) else self.groups
        trace.visible = bool(len(part))
        if not len(part):
            return
        trace.x = [f"{name} ({n:,})" for name, n in zip(part["group"], part["users"], strict=True)]
        trace.y = part["mean"].tolist()
        trace.error_y = {"array": (part["high"] - part["mean"]).tolist(), "thickness": 1}


def results_explorer(results: dict, ranks: dict, groups: dict[str, lessons.Groups]) -> ResultsExplorer:
    """The widget of notebook 09; see ``ResultsExplorer``."""
    return ResultsExplorer(results, ranks, groups)
