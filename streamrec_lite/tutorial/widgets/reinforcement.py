"""The widget of notebook 08: the distribution of rewards, and each rollout's advantage."""

from __future__ import annotations

import html

import ipywidgets as ipw
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from ...data.dataset import Dataset
from ...training.rewards import REWARD_NAMES
from ..figures.style import BLUE, GREY, ORANGE
from ..tables.style import titles
from .style import html_table, layout

ALL_USERS = "all recorded users"


class RewardExplorer(ipw.VBox):
    """Choose a reward and a block of updates, and look at one user's rollouts.

    Left: the distribution of the chosen reward over all recorded rollouts. Right: each rollout's advantage
    by its reward, those of the chosen user highlighted. Below: that user's rollouts, the best first;
    ``rows`` is this table.

    Args:
        rollouts: ``read_rollouts``, block -> rollouts.
        dataset: for the titles of targets.
        limit: rows of the table below.
    """

    def __init__(self, rollouts: dict[int, pd.DataFrame], dataset: Dataset, limit: int = 8):
        self.rollouts, self.dataset, self.limit = rollouts, dataset, limit
        first = next(iter(rollouts.values()))
        self.names = ["reward", *(name for name in REWARD_NAMES if name in first)]
        style = {"description_width": "60px"}
        self.reward = ipw.Dropdown(
            options=self.names, description="reward", style=style, layout={"width": "240px"}
        )
        users = first["user"].drop_duplicates().tolist()
        self.user = ipw.Dropdown(
            options=[ALL_USERS, *users],
            value=users[0],
            description="user",
            style=style,
            layout={"width": "260px"},
        )
        self.block = ipw.SelectionSlider(
            options=list(rollouts), description="blocks", style=style, layout={"width": "420px"}
        )
        figure = make_subplots(1, 2, column_widths=[0.45, 0.55], horizontal_spacing=0.1)
        figure.add_histogram(marker={"color": BLUE, "line": {"color": "black", "width": 1}}, row=1, col=1)
        figure.add_scatter(mode="markers", marker={"color": GREY, "size": 6, "opacity": 0.6}, row=1, col=2)
        ring = {"color": ORANGE, "size": 11, "symbol": "diamond", "line": {"color": "black", "width": 1}}
        figure.add_scatter(mode="markers", marker=ring, hovertemplate="%{text}<extra></extra>", row=1, col=2)
        figure.update_layout(**layout("", 380, showlegend=False))
        figure.update_yaxes(title="rollouts", row=1, col=1)
        figure.update_yaxes(title="advantage (deviations of its group)", row=1, col=2)
        self.figure, self.text = figure, ipw.HTML()
        self._draw()
        self.figure = go.FigureWidget(figure)  # only now: a browser does not draw traces without data
        for control in (self.reward, self.user, self.block):
            control.observe(self._draw, "value")
        super().__init__([ipw.HBox([self.reward, self.user, self.block]), self.figure, self.text])

    def _draw(self, _change: object = None) -> None:
        name, table = self.reward.value, self.rollouts[self.block.value]
        chosen = table if self.user.value == ALL_USERS else table[table["user"] == self.user.value]
        self.rows = chosen.sort_values("advantage", ascending=False).head(self.limit)
        values = pd.concat([other[name] for other in self.rollouts.values()])  # one scale for all blocks
        low, high = float(values.min()), float(values.max())
        pad = 0.05 * max(high - low, 0.1)
        with self.figure.batch_update():
            bars, every, one = self.figure.data
            bars.x = table[name].tolist()
            bars.xbins = {"start": low - pad, "end": high + pad, "size": (high - low + 2 * pad) / 30}
            every.x, every.y = table[name].tolist(), table["advantage"].tolist()
            shown = chosen if self.user.value != ALL_USERS else chosen.iloc[:0]
            one.x, one.y = shown[name].tolist(), shown["advantage"].tolist()
            one.text = [html.escape(answer) for answer in shown["answer"]]
            for axis in (self.figure.layout.xaxis, self.figure.layout.xaxis2):
                axis.update(title=f"{name} of a rollout", range=[low - pad, high + pad])
            mean, deviation = table[name].mean(), table[name].std(ddof=0)
            self.figure.layout.title = (
                f"After {self.block.value} blocks: {name}, mean {mean:.3f}, deviation {deviation:.3f}"
            )
        self.text.value = self._describe()

    def _describe(self) -> str:
        """The text below the figure, as HTML."""
        columns = ["thoughts", "answer", *self.names[1:], "reward", "advantage"]
        table = self.rows[columns].round(3).reset_index(drop=True).replace(-0.0, 0.0)
        if self.user.value == ALL_USERS:
            return f"<p style='font-size:13px'>The {len(table)} best rollouts:</p>{html_table(table)}"
        target = html.escape(titles(self.dataset, [int(self.rows["target"].iloc[0])], 60)[0])
        return f"<p style='font-size:13px'>Target: <b>{target}</b></p>{html_table(table)}"
