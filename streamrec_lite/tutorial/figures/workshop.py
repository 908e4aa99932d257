"""Figures of notebook 10, when thinking pays: an errand, accuracy, thinking longer, reinforcement."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ...running.stage_table import ORACLE
from ..tables.style import shorten
from ..tables.workshop import TRUE
from ..tables.workshop_thoughts import KINDS
from .style import (
    BLACK,
    BLUE,
    CYCLE,
    GREEN,
    GREY,
    LINES,
    MARKERS,
    ORANGE,
    bar_labels,
    integer_ticks,
    picture,
    styled,
)


@styled
def plot_errand(steps: pd.DataFrame) -> Figure:
    """The true steps of one errand from ``errand_table``: a box for each part, the guides on the arrows."""
    figure, axes = picture(9.6, 1.9)
    last, columns = len(steps) - 1, zip(steps["guide"].tolist(), steps["part"].tolist(), strict=True)
    for step, (guide, part) in enumerate(columns):
        words = shorten(part, 24).replace(" ", "\n", 1)
        name = "start" if step == 0 else "goal" if step == last else f"step {step}"
        colour = BLUE if step == 0 else GREEN if step == last else GREY
        box = {"boxstyle": "round,pad=0.5", "facecolor": "white", "edgecolor": colour, "linewidth": 2}
        axes.text(step, 0, words, ha="center", va="center", fontsize=10, bbox=box)
        axes.text(step, -0.62, name, ha="center", va="top", fontsize=10)
        if step:
            arrow = {"arrowstyle": "-|>", "color": ORANGE, "linewidth": 2.2}
            axes.annotate("", (step - 0.33, 0), (step - 0.67, 0), arrowprops=arrow)
            axes.text(step - 0.5, 0.42, guide, ha="center", va="bottom", fontsize=10)
    axes.set(xlim=(-0.5, last + 0.5), ylim=(-1.05, 0.75))
    axes.set_title("One errand: the guide next to the part is read first")
    axes.axis("off")
    return figure


@styled
def plot_accuracy(table: pd.DataFrame, oracle: dict[str, float]) -> Figure:
    """Accuracy from ``accuracy_by_steps``: a panel for each number of steps, a bar for each model.

    The dashed line is the oracle, whose accuracy by steps is ``oracle``. Thin lines: the range over seeds.
    """
    models, numbers = list(table["model"].unique()), sorted(table["steps"].unique())
    figure, panels = picture(10.5, 1.5 + 0.36 * len(models), columns=len(numbers), sharey=True, squeeze=False)
    for axes, steps in zip(panels[0], numbers, strict=True):
        part = table[table["steps"] == steps].set_index("model").loc[models]
        mean = 100 * part["mean"]
        spread = 100 * np.array([part["mean"] - part["low"], part["high"] - part["mean"]])
        colours = [GREEN if model == TRUE else BLUE for model in models]
        bars = axes.barh(models, mean, color=colours, edgecolor=BLACK, height=0.66)
        for bar, model in zip(bars, models, strict=True):
            bar.set_hatch("//" if model == TRUE else "")
        if (part["seeds"] > 1).any():
            axes.errorbar(mean, models, xerr=spread, fmt="none", ecolor=BLACK, capsize=3)
        for y, (value, high) in enumerate(zip(mean, 100 * part["high"], strict=True)):
            axes.annotate(f"{value:.0f}", (high, y), (4, 0), textcoords="offset points", va="center")
        axes.axvline(100 * oracle[str(steps)], color=BLACK, linestyle="--", linewidth=1.2)
        axes.set(xlim=(0, 118), xticks=(0, 50, 100), xlabel="R@1 (%)")
        axes.set_title("1 step" if steps == 1 else f"{steps} steps")
    panels[0, 0].invert_yaxis()
    figure.suptitle(f"Right answers by steps needed (dashed: {ORACLE.lower()})", fontsize=12)
    return figure


@styled
def plot_thinking_longer(tables: dict[str, dict[str, pd.DataFrame]]) -> Figure:
    """Accuracy by the number of thoughts l, and of sampled trains n, a column for each model.

    ``tables`` are those of ``thinking_longer`` by model. A line for each number of steps; rings: l = steps.
    """
    figure, panels = picture(3.4 * len(tables), 6.2, rows=2, columns=len(tables), sharey=True, squeeze=False)
    labels = {"l": "thoughts $l$ (greedy; ring: $l$ = steps)", "n": "sampled trains of thought $n$"}
    for column, (model, by) in enumerate(tables.items()):
        for axes, parameter in zip(panels[:, column], ("l", "n"), strict=True):
            table = by[parameter]
            x = np.arange(len(table)) if parameter == "n" else np.asarray(table.index)
            for number, steps in enumerate(table.columns):
                style: dict[str, Any] = {"color": CYCLE[number], "marker": MARKERS[number]}
                style |= {"linestyle": LINES[number], "markersize": 5}
                label = "1 step" if steps == 1 else f"{steps} steps"
                axes.plot(x, 100 * table[steps], label=label, **style)
                if parameter == "l" and steps in table.index:
                    ring = {"markersize": 14, "color": "none", "markeredgecolor": CYCLE[number]}
                    axes.plot(steps, 100 * table[steps].loc[steps], "o", **ring)
            axes.set(ylim=(-4, 104), xlabel=labels[parameter], title=model)
            axes.set_xticks(x, [str(value) for value in table.index])
    for axes in panels[:, 0]:
        axes.set_ylabel("R@1 (%)")
    handles = panels[0, 0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=len(handles[0]))
    return figure


@styled
def plot_reinforcement_pays(accuracy: pd.DataFrame, rewards: pd.DataFrame) -> Figure:
    """Left: accuracy by steps from ``accuracy_by_steps``. Right: rewards by block from ``reward_table``."""
    figure, (left, right) = picture(10, 3.9, columns=2, width_ratios=(1.35, 1))
    models, numbers = list(accuracy["model"].unique()), sorted(accuracy["steps"].unique())
    width = 0.8 / len(models)
    look = dict(zip(models, zip(CYCLE, ("", "//", ".."), MARKERS, LINES, strict=False), strict=False))
    for i, model in enumerate(models):
        part = accuracy[accuracy["model"] == model]
        x = np.arange(len(numbers)) + (i - (len(models) - 1) / 2) * width
        colour, hatch, _, _ = look[model]
        spread = 100 * np.array([part["mean"] - part["low"], part["high"] - part["mean"]])
        several = {"yerr": spread, "capsize": 2} if (part["seeds"] > 1).any() else {}
        style: dict[str, Any] = {"color": colour, "hatch": hatch, "edgecolor": BLACK, "label": model}
        bars = left.bar(x, 100 * part["mean"], width, **style, **several)
        if not several:
            bar_labels(left, bars, "{:.0f}")
    left.set_xticks(range(len(numbers)), ["1 step" if h == 1 else f"{h} steps" for h in numbers])
    left.set(ylim=(0, 125), yticks=(0, 50, 100), xlabel="steps needed", ylabel="R@1 (%)")
    left.set_title("Right answers by steps needed")
    left.legend(ncols=len(models), loc="upper center")
    for model in rewards["model"].unique():
        part = rewards[rewards["model"] == model]
        colour, _, marker, line = look[model]
        style = {"color": colour, "marker": marker, "linestyle": line, "label": model}
        right.plot(part["block"], 100 * part["mean"], **style)
        right.fill_between(part["block"], 100 * part["low"], 100 * part["high"], color=colour, alpha=0.2)
    right.set(xlabel="block of updates", ylabel="right answers of rollouts (%)", ylim=(0, 104))
    right.set_title("Training users, sampled")
    right.legend()
    integer_ticks(right)
    return figure


@styled
def plot_steps_taken(tables: dict[str, pd.DataFrame]) -> Figure:
    """Heat maps of ``steps_taken_table``, one for each model; boxes: as many steps as the errand asks."""
    figure, panels = picture(3.2 * len(tables), 3.6, columns=len(tables), squeeze=False)
    colours = LinearSegmentedColormap.from_list("share", ["white", BLUE])
    for axes, (model, table) in zip(panels[0], tables.items(), strict=True):
        values = table.to_numpy(dtype=float)
        axes.imshow(values, cmap=colours, vmin=0, vmax=100, aspect="auto")
        for i, asked in enumerate(table.index):
            for j, taken in enumerate(table.columns):
                shade = "white" if values[i, j] > 60 else BLACK
                axes.text(j, i, f"{values[i, j]:.0f}", ha="center", va="center", fontsize=10, color=shade)
                if asked == taken:
                    place = (j - 0.47, i - 0.47)
                    axes.add_patch(Rectangle(place, 0.94, 0.94, fill=False, edgecolor=ORANGE, linewidth=2.5))
        axes.set_xticks(range(len(table.columns)), table.columns)
        axes.set_yticks(range(len(table)), table.index)
        axes.set(xlabel="steps taken", ylabel="steps needed", title=model)
    figure.suptitle("Where thoughts stop (% of a row; box: as far as needed)", fontsize=12)
    return figure


@styled
def plot_annotated(table: pd.DataFrame) -> Figure:
    """What annotated thoughts say beside chance, all positions together, from ``annotated_table``."""
    figure, axes = picture(8.5, 3.4)
    y, every = np.arange(len(KINDS)), table.loc["all"]
    for shift, name, colour, hatch in ((-0.2, "", BLUE, ""), (0.2, ", by chance", GREY, "//")):
        values = [every[f"{kind}{name}"] for kind in KINDS]
        label = "by chance" if name else "annotated thoughts"
        bars = axes.barh(y + shift, values, 0.38, color=colour, hatch=hatch, edgecolor=BLACK, label=label)
        for bar, value in zip(bars, values, strict=True):
            at = (value, bar.get_y() + bar.get_height() / 2)
            axes.annotate(f"{value:.1f}", at, (4, 0), textcoords="offset points", va="center")
    axes.set_yticks(y, KINDS)
    axes.invert_yaxis()
    axes.set(xlim=(0, 112), xlabel="share of thoughts (%)", title="What the residual annotator writes")
    axes.legend(loc="center right")
    return figure


@styled
def plot_walk(table: pd.DataFrame, title: str) -> Figure:
    """One errand thought by thought from ``walk_table``: the residual, and the goal's probability."""
    figure, (left, right) = picture(9.8, 4.2, columns=2)
    x = table["thoughts"]
    bars = left.bar(x, table["residual"], color=BLUE, edgecolor=BLACK)
    bar_labels(left, bars, "{:.2f}")
    left.set(xlabel="thoughts $i$", ylabel="residual $|t - s_i|$ (length)")
    left.set_title("Distance to the true next step")
    left.set_ylim(0, 1.15 * max(table["residual"].max(), 1e-6))
    bars = right.bar(x, 100 * table["P(goal)"], color=GREEN, hatch="//", edgecolor=BLACK)
    bar_labels(right, bars, "{:.0f}")
    right.set(ylim=(0, 115), yticks=(0, 50, 100), ylabel="probability of the goal (%)")
    right.set(xlabel="the last thought names", title="Answer after these thoughts")
    names = [shorten(name, 16).replace(" ", "\n", 1) for name in table["thought"]]
    ticks = {"rotation": 35, "ha": "right", "rotation_mode": "anchor"}
    right.set_xticks(x, ["(no thought)", *names[1:]], **ticks)
    integer_ticks(left)
    figure.suptitle(shorten(title, 95), fontsize=12)
    return figure
