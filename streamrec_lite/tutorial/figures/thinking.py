"""Figures of notebook 06, thinking: one train of thought, many of them, and a path in a plane."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter

from ..tables.style import shorten
from ..tables.thinking import ItemPlane
from .style import (
    BLUE,
    CYCLE,
    GREEN,
    GREY,
    LINES,
    MARKERS,
    ORANGE,
    RED,
    bar_labels,
    integer_ticks,
    picture,
    styled,
)


@styled
def plot_toy_example(
    steps: pd.DataFrame, items: dict[str, tuple[float, ...]], codes: dict[int, str], target: str
) -> Figure:
    """The example of ``toy_example`` in the plane: states as points, thoughts as arrows.

    Args:
        steps: ``toy_example``, a row for each state.
        items: an item's name and its representation (x, y).
        codes: the index of a code and its name.
        target: the target's name.
    """
    figure, axes = picture(7.2, 4.8)
    for name, (x, y) in items.items():
        colour, marker = (RED, "*") if name == target else (GREY, "s")
        axes.plot(x, y, marker, color=colour, markersize=15 if name == target else 9)
        shift, side = ((-12, 5), "right") if name == target else ((9, -4), "left")
        words = f"{name} (target $t$)" if name == target else name
        axes.annotate(words, (x, y), shift, textcoords="offset points", ha=side, fontsize=10)
    states = np.array(steps["state"].tolist())
    for i in range(1, len(states)):
        arrow = {"arrowstyle": "-|>", "color": ORANGE, "linewidth": 2.2, "shrinkA": 4, "shrinkB": 4}
        axes.annotate("", states[i], states[i - 1], arrowprops=arrow)
        label = f"$o_{i}$ = {codes[int(steps['thought'][i])]}"
        axes.annotate(label, states[i - 1 : i + 1].mean(axis=0), (7, -13), textcoords="offset points")
    axes.plot(*states.T, "o", color=BLUE, markersize=8, zorder=3)
    for row in steps.itertuples():
        label = f"$s_{row.step}$: gap {row.gap:g}, rank {row.rank}"
        shift = (-9, 9) if row.step == 0 else (-9, -3)
        axes.annotate(label, row.state, shift, textcoords="offset points", ha="right", color=BLUE)
    every = np.vstack([states, list(items.values())])
    (left, low), (right, high) = every.min(axis=0), every.max(axis=0)
    axes.set(xlim=(left - 2.6, right + 1.2), ylim=(low - 0.7, high + 0.9), aspect="equal")
    axes.set(xlabel="first dimension", ylabel="second dimension")
    axes.set_title("Thoughts move the state towards the target")
    axes.grid(color=GREY, alpha=0.25)
    return figure


@styled
def plot_steps(table: pd.DataFrame, title: str, n_items: int) -> Figure:
    """One train of thought, from ``step_table``: gap and rank at each step, the thoughts on the axis."""
    figure, (left, right) = picture(9, 3.6, columns=2, width_ratios=(1.25, 1))
    steps = table["step"]
    bars = left.bar(steps, table["gap"], color=[GREY] + [BLUE] * (len(table) - 1), edgecolor="black")
    bars[0].set_hatch("//")
    bar_labels(left, bars, "{:.2f}")
    left.set_xticks(steps, ["at first", *table["thought"][1:]])
    left.set(
        xlabel="thought read (level:code)", ylabel="gap $|t - s_i|$ (length)", title="Distance to the target"
    )
    left.set_ylim(0, 1.15 * table["gap"].max())
    right.plot(steps, table["rank"], color=GREEN, marker="o")
    for step, rank in zip(steps, table["rank"], strict=True):
        right.annotate(
            f"{rank:,}", (step, rank), (0, 6), textcoords="offset points", ha="center", fontsize=10
        )
    rank_axis(right, n_items)
    right.set_xlim(-0.4, steps.iloc[-1] + 0.4)
    right.set(
        xlabel="step $i$", ylabel=f"rank among {n_items:,} items", title="Rank of the target (1 is best)"
    )
    figure.suptitle(shorten(title, 95), fontsize=12)
    return figure


def rank_axis(axes: Any, n_items: int) -> None:
    """Make the y-axis logarithmic, with rank 1 at the top and rank ``n_items`` at the bottom."""
    axes.set_yscale("log")
    axes.set_ylim(1.4 * n_items, 0.6)
    ticks = [10**p for p in range(len(str(n_items))) if 10**p <= n_items]
    axes.set_yticks(ticks, [f"{tick:,}" for tick in ticks])
    axes.yaxis.minorticks_off()
    integer_ticks(axes)


@styled
def plot_gap_and_rank(tables: dict[str, pd.DataFrame], n_items: int) -> Figure:
    """Mean gap (in % of step 0's) and median rank by step, a line for each source, from ``mean_by_step``."""
    figure, (left, right) = picture(9.3, 3.9, columns=2)
    for (name, table), colour, marker, line in zip(tables.items(), CYCLE, MARKERS, LINES, strict=False):
        line_style = {"color": colour, "marker": marker, "linestyle": line}
        left.plot(
            table["step"], 100 * table["mean gap"] / table["mean gap"].iloc[0], label=name, **line_style
        )
        right.plot(table["step"], table["median rank"], **line_style)
    left.axhline(100, color=GREY, linestyle="--", linewidth=1)
    left.set(xlabel="step $i$", ylabel="mean gap $|t - s_i|$ (% of step 0's)", title="Distance to the target")
    integer_ticks(left)
    left.yaxis.set_major_formatter(ScalarFormatter())
    rank_axis(right, n_items)
    right.set(xlabel="step $i$", ylabel=f"median rank among {n_items:,} items")
    right.set_title("Rank of the target (1 is best)")
    figure.legend(loc="outside lower center", ncols=1)
    return figure


@styled
def plot_state_path(
    plane: ItemPlane, points: np.ndarray, thoughts: list[str], target: int, title: str
) -> Figure:
    """The states s_0..s_l of one example in the plane of the items: all of it, and enlarged.

    Args:
        plane: where the items lie.
        points: (l + 1, 2), where the states lie.
        thoughts: the l thoughts as text, level:code.
        target: an item index.
        title: of the figure.
    """
    figure, (whole, near) = picture(10, 4.8, columns=2)
    star = plane.item(target)
    for axes in (whole, near):
        axes.scatter(*plane.points.T, s=12, color=GREY, alpha=0.5, linewidths=0, label="items, by $t$")
        axes.plot(*star, "*", color=RED, markersize=16, markeredgecolor="black", label="target")
        axes.plot(*points.T, "-", color=BLUE, linewidth=1.6)
        axes.set(xlabel="UMAP 1 (no unit)", ylabel="UMAP 2 (no unit)")
    whole.plot(*points.T, "o", color=BLUE, markersize=6, label="states $s_0, s_1, \\ldots$")
    whole.set_title("All items")
    corners = np.vstack([points, star])
    middle, half = (corners.min(0) + corners.max(0)) / 2, 0.7 * max(np.ptp(corners, axis=0).max(), 1e-3)
    near.set(xlim=(middle[0] - half, middle[0] + half), ylim=(middle[1] - half, middle[1] + half))
    for place, members in group_nearby_points(points, 0.12 * half):
        names = ",".join(map(str, members))
        near.plot(*place, "o", color=BLUE, markersize=11 + 4 * len(names))
        near.annotate(names, place, ha="center", va="center", fontsize=10, color="white")
    near.set_title("The path, enlarged (numbers: the step)")
    words = "   ".join(f"$o_{i}$ = {name}" for i, name in enumerate(thoughts, start=1))
    figure.suptitle(f"{shorten(title, 80)}\n{words}", fontsize=12)
    figure.legend(*whole.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def group_nearby_points(points: np.ndarray, near: float) -> list[tuple[np.ndarray, list[int]]]:
    """Points (n, 2) grouped for one label each: (place, members), all within ``near`` of the first."""
    groups: list[tuple[np.ndarray, list[int]]] = []
    for i, point in enumerate(points):
        for place, members in groups:
            if np.hypot(*(point - place)) < near:
                members.append(i)
                break
        else:
            groups.append((point, [i]))
    return groups
