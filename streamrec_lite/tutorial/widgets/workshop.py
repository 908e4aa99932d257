"""The widget of notebook 10: one errand, thought by thought."""

from __future__ import annotations

import html

import ipywidgets as ipw
import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from ...common.schemas import Prefixes
from ...data.dataset import Dataset
from ...data.workshop_world import WorkshopWorld
from ..figures.style import BLUE, GREEN, GREY, ORANGE, RED
from ..tables.style import titles
from ..tables.workshop_steps import Walk, walk_table
from .style import html_table, layout


class StepExplorer(ipw.VBox):
    """Choose a model and a question, and move over its thoughts, or press play.

    Left: the parts on a circle; a dashed line joins the true steps, a full line what the thoughts name, and a
    square marks the item closest to the state. Middle: the residual, the distance from the state to the true
    next step. Right: the probability of the goal, if the model answered now. ``table`` is the ``walk_table``
    of the question.

    Args:
        walks: what each model thinks about the same examples, by name.
        world: knows the parts and the errands.
        dataset: for the titles of items.
        prefixes: the examples.
        question: the row of the example that is shown at the start.
    """

    def __init__(
        self,
        walks: dict[str, Walk],
        world: WorkshopWorld,
        dataset: Dataset,
        prefixes: Prefixes,
        question: int = 0,
    ):
        self.walks, self.world, self.dataset, self.prefixes = walks, world, dataset, prefixes
        self.start = world.read(prefixes)[0].tolist()
        turn = 2 * np.pi * np.arange(world.n_parts) / world.n_parts
        self.circle = np.column_stack([np.sin(turn), np.cos(turn)]).round(3)
        style = {"description_width": "70px"}
        self.model = ipw.Dropdown(
            options=list(walks), description="model", style=style, layout={"width": "300px"}
        )
        self.question = ipw.Dropdown(
            options=self._questions(next(iter(walks.values()))),
            value=question,
            description="question",
            style=style,
            layout={"width": "480px"},
        )
        last = next(iter(walks.values())).item.shape[1]
        self.step = ipw.IntSlider(0, 0, last, description="thoughts", style=style, layout={"width": "420px"})
        self.play = ipw.Play(min=0, max=last, interval=1200, description="play")
        self.link = ipw.link((self.play, "value"), (self.step, "value"))
        self.figure, self.text = self._canvas(), ipw.HTML()
        self._draw()
        self.figure = go.FigureWidget(self.figure)  # only now: a browser does not draw traces without data
        self.model.observe(self._switch, "value")
        for control in (self.question, self.step):
            control.observe(self._draw, "value")
        controls = [ipw.HBox([self.model, self.question]), ipw.HBox([self.play, self.step])]
        super().__init__([*controls, self.figure, self.text])

    def _questions(self, walk: Walk) -> list[tuple[str, int]]:
        """(text, row) of every example: its number of steps, and where it begins."""
        names = titles(self.dataset, self.start, 30)
        counts = ["1 step" if h == 1 else f"{h} steps" for h in walk.steps.tolist()]
        return [
            (f"{i + 1}: {count} from {name}", i)
            for i, (count, name) in enumerate(zip(counts, names, strict=True))
        ]

    def _canvas(self) -> go.Figure:
        """Axes and traces, with the parts in place; ``_draw`` fills in the rest."""
        figure = make_subplots(1, 3, column_widths=[0.4, 0.3, 0.3], horizontal_spacing=0.09)
        hover = {"hovertemplate": "%{text}<extra></extra>", "row": 1, "col": 1}
        x, y = self.circle.T.tolist()
        names = [html.escape(name) for name in titles(self.dataset, range(self.world.n_parts), 60)]
        figure.add_scatter(x=x, y=y, mode="markers", text=names, marker={"color": GREY, "size": 5}, **hover)
        dashed = {"color": ORANGE, "dash": "dash", "width": 4}
        star = {"symbol": "star", "size": 18, "color": ORANGE, "line": {"color": "black", "width": 1}}
        figure.add_scatter(mode="lines+markers", line=dashed, marker=star, **hover)
        line, dot = {"color": BLUE, "width": 2}, {"size": 7, "color": BLUE}
        figure.add_scatter(mode="lines+markers", line=line, marker=dot, **hover)
        square = {"symbol": "square-open", "size": 22, "color": RED, "line": {"width": 3}}
        figure.add_scatter(mode="markers", marker=square, **hover)
        figure.add_bar(textposition="outside", cliponaxis=False, row=1, col=2)
        figure.add_bar(textposition="outside", cliponaxis=False, row=1, col=3)
        margin = {"l": 10, "r": 50, "t": 50, "b": 50}
        figure.update_layout(**layout("", 380, showlegend=False, margin=margin))
        wide = {"visible": False, "range": [-1.15, 1.15]}
        figure.update_xaxes(**wide, row=1, col=1)
        figure.update_yaxes(**wide, scaleanchor="x", row=1, col=1)
        figure.update_yaxes(title="residual |t − s| (length)", row=1, col=2)
        figure.update_yaxes(title="probability of the goal (%)", range=[0, 118], row=1, col=3)
        for column in (2, 3):
            figure.update_xaxes(title="thoughts", dtick=1, row=1, col=column)
        return figure

    def _switch(self, _change: object = None) -> None:
        """Show another model, which may write fewer thoughts."""
        self.step.max = self.play.max = self.walks[self.model.value].item.shape[1]
        self._draw()

    def _draw(self, _change: object = None) -> None:
        walk, row, step = self.walks[self.model.value], self.question.value, self.step.value
        self.table = walk_table(walk, row, self.dataset)
        h, start = int(walk.steps[row]), self.start[row]
        named = [item for item in walk.item[row, :step].tolist() if 0 <= item < self.world.n_parts]
        state = [item for item in [int(walk.state_item[row, step])] if item < self.world.n_parts]
        lines = ([start, *walk.path[row, :h].tolist()], [start, *named], state)
        numbers = list(range(len(self.table)))
        with self.figure.batch_update():
            _, *traces, gaps, answers = self.figure.data
            for trace, items in zip(traces, lines, strict=True):
                trace.x, trace.y = self.circle[items].T.tolist()
                trace.text = [html.escape(name) for name in titles(self.dataset, items, 60)]
            for trace, values, colour, form in (
                (gaps, self.table["residual"], BLUE, "{:.2f}"),
                (answers, 100 * self.table["P(goal)"], GREEN, "{:.0f}"),
            ):
                trace.x, trace.y = numbers, values.tolist()
                trace.text = [form.format(value) if i <= step else "" for i, value in enumerate(values)]
                fill = [ORANGE if i == step else colour if i < step else "white" for i in numbers]
                trace.marker = {"color": fill, "line": {"color": "black", "width": 1}}
            self.figure.layout.yaxis2.range = [0, 1.18 * max(float(self.table["residual"].max()), 1e-6)]
            self.figure.layout.title = self._title(step)
        self.text.value = self._describe(row, step)

    def _title(self, step: int) -> str:
        """What the step says."""
        chance = 100 * self.table["P(goal)"][step]
        if step == 0:
            return f"No thought yet: the goal has {chance:.0f} %"
        right = "the true step" if self.table["right"][step] == "yes" else "not the true step"
        name = html.escape(self.table["thought"][step])
        return f"Thought {step}: {name}, {right}; the goal has {chance:.0f} %"

    def _describe(self, row: int, step: int) -> str:
        """The text below the figure, as HTML."""
        n = int(self.prefixes.length[row])
        history = html.escape(" → ".join(titles(self.dataset, self.prefixes.history[row, :n], 40)))
        shown = self.table.copy()
        shown["residual"] = shown["residual"].map("{:.2f}".format)
        shown["P(goal)"] = [f"{100 * p:.0f} %" for p in shown["P(goal)"]]
        legend = (
            "Stars and dashes: the true steps. Dots and line: the thoughts so far. "
            "Square: the item closest to the state."
        )
        return (
            f"<p style='font-size:13px'>History, oldest first: {history}</p>"
            f"{html_table(shown, step)}<p style='font-size:13px'>{legend}</p>"
        )
