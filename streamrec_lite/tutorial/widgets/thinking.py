"""The widget of notebook 06: the residuals and states of a train of thought, step by step."""

from __future__ import annotations

import html

import ipywidgets as ipw
import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots
from torch import Tensor

from ...common.schemas import Prefixes
from ...data.dataset import Dataset
from ...tokenizer.semantic_ids import SemanticTokenizer
from ..figures.style import BLUE, GREY, ORANGE, RED
from ..tables.style import titles
from ..tables.thinking import ItemPlane, Trajectory, closest_items, step_table
from .style import html_table, layout


class ResidualExplorer(ipw.VBox):
    """Choose a source of thoughts and an example, and move over the steps.

    Left: the gap |t - s_i| (filled: steps done). Right: the states in the plane of the items. Below: all
    steps as a table, and the items closest to the state. ``table`` is the ``step_table`` of the example,
    ``near`` are the item indices listed for the step.

    Args:
        cases: trajectories and their examples, by the name of the source of thoughts.
        tokenizer: for the names of thoughts.
        dataset: for the titles of items.
        table: (N, d) ``item_representations``.
        plane: where items and states are drawn.
        example: the row of the first case that is shown at the start.
        k: how many of the closest items are listed.
    """

    def __init__(
        self,
        cases: dict[str, tuple[Trajectory, Prefixes]],
        tokenizer: SemanticTokenizer,
        dataset: Dataset,
        table: Tensor,
        plane: ItemPlane,
        example: int = 0,
        k: int = 5,
    ):
        self.cases, self.tokenizer, self.dataset = cases, tokenizer, dataset
        self.items, self.plane, self.k, self.switching = table, plane, k, False
        style = {"description_width": "70px"}
        first = next(iter(cases))
        trajectory = cases[first][0]
        self.case = ipw.Dropdown(
            options=list(cases), description="thoughts", style=style, layout={"width": "480px"}
        )
        self.example = ipw.BoundedIntText(
            example,
            0,
            len(trajectory.target) - 1,
            description="example",
            style=style,
            layout={"width": "200px"},
        )
        self.step = ipw.IntSlider(
            0, 0, trajectory.steps, description="step", style=style, layout={"width": "420px"}
        )
        self.figure = self._canvas()
        self.text = ipw.HTML()
        self._choose()
        self.figure = go.FigureWidget(self.figure)  # only now: a browser does not draw traces without data
        self.case.observe(self._switch, "value")
        self.example.observe(self._choose, "value")
        self.step.observe(self._draw, "value")
        super().__init__([ipw.HBox([self.case, self.example]), self.step, self.figure, self.text])

    def _canvas(self) -> go.Figure:
        """Axes and traces, with the items in place; ``_draw`` fills in the rest."""
        figure = make_subplots(1, 2, column_widths=[0.45, 0.55], horizontal_spacing=0.1)
        figure.add_bar(textposition="outside", cliponaxis=False, row=1, col=1)
        names = titles(self.dataset, self.plane.rows, 60)
        x, y = self.plane.points.round(3).T.tolist()
        marker = {"color": GREY, "size": 5, "opacity": 0.5}
        hover = {"hovertemplate": "%{text}<extra></extra>", "row": 1, "col": 2}
        names = [html.escape(name) for name in names]
        figure.add_scatter(x=x, y=y, mode="markers", text=names, marker=marker, **hover)
        line = {"color": BLUE, "width": 2}
        figure.add_scatter(mode="lines+markers", line=line, marker={"size": 8, "color": BLUE}, **hover)
        ring = {"size": 15, "color": ORANGE, "line": {"color": "black", "width": 1.5}}
        figure.add_scatter(mode="markers", marker=ring, **hover)
        star = {"size": 16, "color": RED, "symbol": "star", "line": {"color": "black", "width": 1}}
        figure.add_scatter(mode="markers", marker=star, **hover)
        figure.update_layout(**layout("", 400, showlegend=False))
        figure.update_xaxes(title="thought read (level:code)", row=1, col=1)
        figure.update_yaxes(title="gap |t − s| (length)", row=1, col=1)
        figure.update_xaxes(title="UMAP 1 (no unit)", row=1, col=2)
        figure.update_yaxes(title="UMAP 2 (no unit)", row=1, col=2)
        return figure

    def _switch(self, _change: object = None) -> None:
        """Show another source of thoughts, which may have fewer examples and steps."""
        trajectory = self.cases[self.case.value][0]
        self.switching = True  # a smaller maximum changes the value too: draw only once
        self.example.max, self.step.max = len(trajectory.target) - 1, trajectory.steps
        self.switching = False
        self._choose()

    def _choose(self, _change: object = None) -> None:
        """Show another example: its table and its points in the plane, which are the same for all steps."""
        if self.switching:
            return
        trajectory, _ = self.cases[self.case.value]
        row = self.example.value
        self.table = step_table(trajectory, row, self.tokenizer, self.dataset, self.items)
        self.points = self.plane.place(trajectory.s[row])
        self._draw()

    def _draw(self, _change: object = None) -> None:
        if self.switching:
            return
        trajectory, prefixes = self.cases[self.case.value]
        row, step = self.example.value, self.step.value
        self.near = closest_items(trajectory.s[row, step], self.items, self.k).tolist()
        gaps, steps = self.table["gap"], list(range(len(self.table)))
        colours = [ORANGE if i == step else BLUE if i < step else "white" for i in steps]
        x, y = self.points[: step + 1].round(3).T.tolist()
        with self.figure.batch_update():
            bars, _, path, here, goal = self.figure.data
            bars.x, bars.y = steps, gaps.tolist()
            bars.text = [f"{gap:.2f}" if i <= step else "" for i, gap in enumerate(gaps)]
            bars.marker = {"color": colours, "line": {"color": "black", "width": 1}}
            path.x, path.y, path.text = x, y, [f"state {i}" for i in range(step + 1)]
            here.x, here.y, here.text = x[-1:], y[-1:], [f"state {step}"]
            target = int(trajectory.target[row])
            goal.x, goal.y = [[value] for value in self.plane.item(target).round(3).tolist()]
            goal.text = [html.escape(titles(self.dataset, [target], 60)[0])]
            ticks = ["at first", *self.table["thought"][1 : step + 1], *[""] * (len(steps) - step - 1)]
            self.figure.layout.xaxis.update(tickvals=steps, ticktext=ticks)
            self.figure.layout.yaxis.update(range=[0, 1.18 * float(gaps.max())])
            rank = self.table["rank"][step]
            self.figure.layout.title = f"Step {step}: the target is number {rank:,} of {len(self.items):,}"
        self.text.value = self._describe(prefixes, row, step)

    def _describe(self, prefixes: Prefixes, row: int, step: int) -> str:
        """The text below the figure, as HTML."""
        n = int(prefixes.length[row])
        last = titles(self.dataset, prefixes.history[row, max(0, n - 3) : n], 40)
        target = int(prefixes.target[row])
        listed = "".join(
            f"<li>{html.escape(title)}{' <b>(the target)</b>' if item == target else ''}</li>"
            for item, title in zip(self.near, titles(self.dataset, self.near, 60), strict=True)
        )
        name = html.escape(titles(self.dataset, [target], 60)[0])
        history = html.escape(" → ".join(last))
        return (
            f"<p style='font-size:13px'>History ({n} items), the last: {history}<br>"
            f"Target: <b>{name}</b></p>{html_table(_rounded(self.table), step)}"
            f"<p style='font-size:13px'>Closest to the state of step {step}:</p>"
            f"<ol style='font-size:13px;line-height:1.5'>{listed}</ol>"
        )


def _rounded(table: pd.DataFrame) -> pd.DataFrame:
    """``step_table`` with two decimals; step 0 has no residual."""
    shown = table.copy()
    shown["gap"] = shown["gap"].map("{:.2f}".format)
    shown["residual"] = ["-" if np.isnan(r) else f"{r:.2f}" for r in shown["residual"]]
    return shown
