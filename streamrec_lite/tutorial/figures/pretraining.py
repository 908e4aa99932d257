"""The static pictures of pretraining: the long sequence, the parts of the loss, the sum over thoughts."""

from __future__ import annotations

import pandas as pd
from matplotlib.patches import Rectangle

from .style import BLUE, GREEN, MARKERS, ORANGE, picture, styled, whole_numbers
from .tiger import LEVEL_COLOURS

PARTS = {
    "direct": ("direct: the answer at once", BLUE, "-"),
    "similar": ("similar: items before the answer", ORANGE, "--"),
    "answer": ("answer: after the similar items", GREEN, ":"),
}


@styled
def long_sequence(tokens: list[list[str]], names: list[str]):
    """Eq. 9 for one example: the tokens of each similar item, then the target's, with their titles."""
    m, count = len(tokens[0]), len(tokens)
    figure, axes = picture(9, 1.9)
    for i, (row, name) in enumerate(zip(tokens, names, strict=True)):
        left = i * (m + 0.4)
        for j, token in enumerate(row):
            colour = LEVEL_COLOURS[j % len(LEVEL_COLOURS)]
            box = Rectangle((left + j, 0), 0.94, 0.7, facecolor=colour, edgecolor="black", alpha=0.6)
            axes.add_patch(box)
            axes.text(left + j + 0.47, 0.35, token, ha="center", va="center", fontsize=10)
        what = "the target" if i == count - 1 else f"similar item {i + 1}"
        weight = "bold" if i == count - 1 else "normal"
        axes.text(left + m / 2, 1.35, what, ha="center", fontsize=10, fontweight=weight)
        axes.text(left + m / 2, 0.95, name, ha="center", fontsize=10)
    axes.set(xlim=(-0.1, count * (m + 0.4)), ylim=(-0.1, 1.8))
    axes.set_title("What the thinking decoder learns to write, from left to right (eq. 9)")
    axes.axis("off")
    return figure


@styled
def parts_of_the_loss(rows: list[dict], metric: str = "valid N@10"):
    """Each part of the pretraining loss by epoch, and the direct decoder's validation metric."""
    table = pd.DataFrame(rows)
    figure, (left, right) = picture(9, 3.6, columns=2)
    for (name, (label, colour, line)), marker in zip(PARTS.items(), MARKERS, strict=False):
        style = {"color": colour, "linestyle": line, "marker": marker, "markersize": 4, "label": label}
        left.plot(table["epoch"], table[name], **style)
    left.set(xlabel="epoch", ylabel="nats a code", title="Parts of the loss")
    seen = table.dropna(subset=[metric]) if metric in table else table.iloc[:0]
    right.plot(seen.get("epoch", []), seen.get(metric, []), color=BLUE, marker="o")
    right.set(xlabel="epoch", ylabel=metric.replace("valid", "validation"), title="The direct decoder")
    whole_numbers(left, right)
    right.set_xlim(left.get_xlim())
    figure.legend(loc="outside lower center", ncols=len(PARTS))
    return figure


@styled
def by_thoughts(table: pd.DataFrame, metric: str = "N@10"):
    """A metric and the cost against the number of thoughts, from ``slow_motion.by_thoughts``."""
    figure, (left, right) = picture(9, 3.2, columns=2)
    places = range(len(table))
    for axes, column, colour, title, unit in (
        (left, metric, GREEN, "What the sum over thoughts brings", f"{metric} on validation users"),
        (right, "ms a user", ORANGE, "What it costs", "milliseconds a user"),
    ):
        bars = axes.bar(places, table[column], color=colour, edgecolor="black", width=0.6)
        axes.bar_label(bars, fmt="%.3f" if column == metric else "%.1f", fontsize=10)
        axes.set_xticks(list(places), table.index)
        axes.set(xlabel="way of thinking", ylabel=unit, title=title)
        axes.margins(y=0.15)
    return figure
