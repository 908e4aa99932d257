"""Figures of notebook 09, results: differences, groups of users, overlap, and joint coverage."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from ...evaluation.results_table import REFERENCE
from .style import BLUE, CYCLE, GREEN, GREY, LINES, MARKERS, ORANGE, RED, picture, styled


def line_style(number: int) -> tuple[str, str, Any]:
    """(colour, marker, line) of the model with this number; the first 64 models all differ."""
    return CYCLE[number % 8], MARKERS[(number + number // 8) % 8], LINES[number % len(LINES)]


def draw_intervals(axes: Any, table: pd.DataFrame, places: np.ndarray, middle: str = "difference") -> None:
    """Draw a marker with its interval for each row: filled if the interval excludes 0, hollow otherwise.

    Args:
        axes: to draw on.
        table: columns low, high and ``middle``.
        places: (rows,) where each row stands on the y-axis.
        middle: the column that the marker shows; green above 0, red below.
    """
    for place, (_, row) in zip(places, table.iterrows(), strict=True):
        excludes_0 = row["low"] > 0 or row["high"] < 0
        colour = GREY if not excludes_0 else GREEN if row[middle] > 0 else RED
        axes.plot([row["low"], row["high"]], [place, place], color=colour, linewidth=2)
        face = colour if excludes_0 else "white"
        marker = "s" if not excludes_0 else "^" if row[middle] > 0 else "v"
        axes.plot(row[middle], place, marker=marker, color=colour, markerfacecolor=face, markersize=8)
    axes.axvline(0, color="black", linewidth=0.8)


def draw_differences(axes: Any, table: pd.DataFrame, metric: str) -> None:
    """Draw ``difference_table`` on ``axes`` as a forest plot, the best model at the top."""
    places = np.arange(len(table))[::-1]
    draw_intervals(axes, table, places)
    axes.set_yticks(places, table.index)
    axes.set_ylim(-0.6, len(table) - 0.4)
    axes.locator_params(axis="x", nbins=6)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set(xlabel=f"test {metric} minus {REFERENCE}'s (95 %)")
    axes.set_title(f"Better or worse than {REFERENCE}?")


@styled
def plot_differences(table: pd.DataFrame, metric: str = "N@10") -> Figure:
    """Forest plot: each model's metric minus TIGER's with its interval; filled if the interval excludes 0."""
    figure, axes = picture(9, 1.2 + 0.36 * max(len(table), 2))
    draw_differences(axes, table, metric)
    for place, (_, row) in zip(np.arange(len(table))[::-1], table.iterrows(), strict=True):
        axes.annotate(f"{row['difference']:+.4f}", (1.01, place), xycoords=("axes fraction", "data"),
                      va="center", fontsize=10)  # fmt: skip
    axes.set_title(f"Better or worse than {REFERENCE}? (filled: the interval excludes 0)")
    return figure


@styled
def plot_groups(table: pd.DataFrame, title: str, xlabel: str, differences: bool = False) -> Figure:
    """A panel for each group of users, with a row for each model.

    Args:
        table: ``mean_by_group``.
        title: of the figure.
        xlabel: what the values are.
        differences: the values are differences to another model, drawn as in ``plot_differences``.
    """
    names, models = table["group"].drop_duplicates().tolist(), table["model"].drop_duplicates().tolist()
    height = 1.7 + 0.28 * len(models)
    figure, every = picture(10, height, columns=len(names), sharex=True, sharey=True, squeeze=False)
    places = np.arange(len(models))[::-1]
    for axes, name in zip(every[0], names, strict=True):
        part = table[table["group"] == name].set_index("model").loc[models]
        if differences:
            draw_intervals(axes, part, places, "mean")
        else:
            errors = [part["mean"] - part["low"], part["high"] - part["mean"]]
            axes.errorbar(part["mean"], places, xerr=errors, fmt="o", color=BLUE, capsize=3, markersize=6)
            axes.set_xlim(left=0)
        axes.grid(axis="y", color=GREY, alpha=0.3)
        axes.set_axisbelow(True)
        axes.locator_params(axis="x", nbins=3)
        axes.xaxis.set_major_formatter("{x:g}")
        axes.set_title(f"{name}\n{int(part['users'].iloc[0]):,} users", fontsize=11)
        axes.set_ylim(-0.6, len(models) - 0.4)
    every[0][0].set_yticks(places, models)
    figure.suptitle(title, fontsize=12)
    figure.supxlabel(xlabel, fontsize=11)
    return figure


def draw_group_lines(axes: Any, table: pd.DataFrame, metric: str, grouped_by: str) -> None:
    """Draw a line with intervals over the groups of users for each model.

    Args:
        axes: to draw on.
        table: ``mean_by_group``.
        metric: the name of what it averages.
        grouped_by: what users are grouped by, for the labels.
    """
    names, models = table["group"].drop_duplicates().tolist(), table["model"].drop_duplicates().tolist()
    for number, model in enumerate(models):
        colour, marker, line = line_style(number)
        part = table[table["model"] == model].set_index("group").loc[names]
        at = np.arange(len(names)) + 0.12 * (number - (len(models) - 1) / 2) / max(1, len(models) / 4)
        errors = [part["mean"] - part["low"], part["high"] - part["mean"]]
        axes.errorbar(at, part["mean"], yerr=errors, color=colour, marker=marker, linestyle=line,
                      linewidth=1.5, elinewidth=1, markersize=6, label=model)  # fmt: skip
    counts = table.drop_duplicates("group").set_index("group").loc[names, "users"]
    axes.set_xticks(range(len(names)), [f"{name}\n({n:,} users)" for name, n in counts.items()])
    axes.set_ylim(bottom=0)
    axes.set(xlabel=grouped_by, ylabel=f"test {metric}", title=f"Test {metric} by {grouped_by}")


@styled
def plot_overview(differences: pd.DataFrame, table: pd.DataFrame, metric: str, grouped_by: str) -> Figure:
    """The two plots of the widget side by side: differences to TIGER, and models over groups of users.

    Args:
        differences: ``difference_table``.
        table: ``mean_by_group``.
        metric: the metric of both.
        grouped_by: what users are grouped by.
    """
    figure, (left, right) = picture(10.5, 4.4, columns=2, width_ratios=(0.9, 1.2))
    draw_differences(left, differences, metric)
    draw_group_lines(right, table, metric, grouped_by)
    figure.legend(loc="outside lower center", ncols=4)
    return figure


@styled
def plot_overlap(table: pd.DataFrame) -> Figure:
    """Heat map of ``overlap_table``: the darker, the more users both models hit."""
    values, n = table.to_numpy(dtype=float), len(table)
    colours = LinearSegmentedColormap.from_list("overlap", ["white", BLUE])
    figure, axes = picture(3.4 + 0.56 * n, 2.4 + 0.42 * n)
    axes.imshow(values, cmap=colours, vmin=0, vmax=1, aspect="auto")
    for i, row in enumerate(values):
        for j, value in enumerate(row):
            text = "-" if np.isnan(value) else f"{value:.2f}"
            colour = "white" if value > 0.65 else "black"
            axes.text(j, i, text, ha="center", va="center", fontsize=10, color=colour)
    axes.set_xticks(range(n), table.columns, rotation=40, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(n), table.index)
    axes.set(xlabel="and this model", ylabel="this model")
    axes.set_title("Of the users that either hits, how many do both?")
    return figure


@styled
def plot_coverage(table: pd.DataFrame) -> Figure:
    """Share of users that at least one of the first 1, 2, 3, ... models hits, from ``coverage_table``."""
    figure, axes = picture(9, 1.3 + 0.36 * max(len(table), 2))
    places = np.arange(len(table))[::-1]
    share, alone = 100 * table["at least one"], 100 * table["alone"]
    axes.barh(places, share, 0.7, color=ORANGE, hatch="//", edgecolor="black", label="at least one so far")
    axes.barh(places, alone, 0.36, color=BLUE, edgecolor="black", label="this one alone")
    for place, value in zip(places, share, strict=True):
        axes.annotate(f"{value:.1f}", (value, place), (4, 0), textcoords="offset points", va="center",
                      fontsize=10)  # fmt: skip
    names = [name if i == 0 else f"+ {name}" for i, name in enumerate(table["model"])]
    axes.set_yticks(places, names)
    axes.margins(x=0.08)
    axes.set(xlabel="% of test users with the target in the first ten")
    axes.set_title("Upper bound: users that at least one model hits")
    figure.legend(loc="outside lower center", ncols=2)
    return figure
