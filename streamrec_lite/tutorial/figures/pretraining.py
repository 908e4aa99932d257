"""Figures of notebook 05, pretraining: the long sequence, the loss, and the sum over thoughts."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from .style import BLUE, GREEN, LEVEL_COLOURS, MARKERS, ORANGE, integer_ticks, picture, styled

LOSS_LINES = {  # part of the loss: (label, colour, line)
    "direct": ("direct: the answer at once", BLUE, "-"),
    "similar": ("similar: items before the answer", ORANGE, "--"),
    "answer": ("answer: after the similar items", GREEN, ":"),
}


@styled
def plot_long_sequence(tokens: list[list[str]], names: list[str]) -> Figure:
    """Eq. 9 for one example: the tokens of each similar item, then the target's, with the items' titles."""
    m, count = len(tokens[0]), len(tokens)
    figure, axes = picture(9, 1.9)
    for i, (row, name) in enumerate(zip(tokens, names, strict=True)):
        left = i * (m + 0.4)
        for j, token in enumerate(row):
            colour = LEVEL_COLOURS[j % len(LEVEL_COLOURS)]
            box = Rectangle((left + j, 0), 0.94, 0.7, facecolor=colour, edgecolor="black", alpha=0.6)
            axes.add_patch(box)
            axes.text(left + j + 0.47, 0.35, token, ha="center", va="center", fontsize=10)
        role = "the target" if i == count - 1 else f"similar item {i + 1}"
        weight = "bold" if i == count - 1 else "normal"
        axes.text(left + m / 2, 1.35, role, ha="center", fontsize=10, fontweight=weight)
        axes.text(left + m / 2, 0.95, name, ha="center", fontsize=10)
    axes.set(xlim=(-0.1, count * (m + 0.4)), ylim=(-0.1, 1.8))
    axes.set_title("What the thinking decoder learns to write, from left to right (eq. 9)")
    axes.axis("off")
    return figure


@styled
def plot_pretraining(rows: list[dict], metric: str = "valid N@10") -> Figure:
    """The parts of the pretraining loss and the direct decoder's validation metric, by epoch."""
    table = pd.DataFrame(rows)
    figure, (left, right) = picture(9, 3.6, columns=2)
    for (name, (label, colour, line)), marker in zip(LOSS_LINES.items(), MARKERS, strict=False):
        style = {"color": colour, "linestyle": line, "marker": marker, "markersize": 4, "label": label}
        left.plot(table["epoch"], table[name], **style)
    left.set(xlabel="epoch", ylabel="nats a code", title="Parts of the loss")
    seen = table.dropna(subset=[metric]) if metric in table else table.iloc[:0]
    right.plot(seen.get("epoch", []), seen.get(metric, []), color=BLUE, marker="o")
    right.set(xlabel="epoch", ylabel=metric.replace("valid", "validation"), title="The direct decoder")
    integer_ticks(left, right)
    right.set_xlim(left.get_xlim())
    figure.legend(loc="outside lower center", ncols=len(LOSS_LINES))
    return figure


@styled
def plot_metrics_by_thoughts(table: pd.DataFrame, metric: str = "N@10") -> Figure:
    """A metric and its cost for each number of trains of thought, from ``metrics_by_thoughts``."""
    figure, (left, right) = picture(9, 3.2, columns=2)
    places = range(len(table))
    for axes, column, colour, title, unit in (
        (left, metric, GREEN, "Summing over trains of thought", f"{metric} on validation users"),
        (right, "ms a user", ORANGE, "Its cost", "milliseconds a user"),
    ):
        bars = axes.bar(places, table[column], color=colour, edgecolor="black", width=0.6)
        axes.bar_label(bars, fmt="%.3f" if column == metric else "%.1f", fontsize=10)
        axes.set_xticks(list(places), table.index)
        axes.set(xlabel="way of thinking", ylabel=unit, title=title)
        axes.margins(y=0.15)
    return figure
