"""Figures of notebook 07, fine-tuning: the loss, rounds of annotation, thoughts, and what reads them."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter

from ..tables.channel import KINDS, channel_table
from .results import draw_intervals
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
def plot_single_losses(table: pd.DataFrame) -> Figure:
    """Heat map of ``single_loss_table``: blue falls (better), orange rises (worse)."""
    values = table.to_numpy(dtype=float)
    scale = np.abs(values).max(axis=0, keepdims=True).clip(min=1e-9)
    colours = LinearSegmentedColormap.from_list("fall-rise", [BLUE, "white", ORANGE])
    figure, axes = picture(8.5, 4.0)
    axes.imshow(values / scale, cmap=colours, vmin=-1, vmax=1, aspect="auto")
    for i, row in enumerate(values):
        for j, value in enumerate(row):
            axes.text(j, i, f"{value:+.2f}", ha="center", va="center", fontsize=10)
    axes.set_xticks(range(len(table.columns)), table.columns)
    axes.set_yticks(range(len(table)), table.index)
    axes.set(xlabel="change of each part (blue: falls; each column has its own scale)")
    axes.set(ylabel="what is learned")
    axes.set_title("Learn one part of the loss alone: what happens to the others?")
    return figure


@styled
def plot_loss_parts(rows: list[dict], metric: str = "valid N@10") -> Figure:
    """Each part of the loss by epoch, as a share of its first value, and the validation metric."""
    table = pd.DataFrame([row for row in rows if "loss" in row])
    figure, (left, right) = picture(9.3, 3.9, columns=2)
    names = [n for n in ("answer", "thoughts", "state", "quant", "dpo", "align") if n in table]
    for name, colour, marker, line in zip(names, CYCLE, MARKERS, LINES, strict=False):
        line_style = {"color": colour, "marker": marker, "linestyle": line, "markersize": 5}
        left.plot(table["epoch"], 100 * table[name] / table[name].iloc[0], label=name, **line_style)
    left.set(xlabel="epoch", ylabel="% of the first epoch's", title="Parts of the loss")
    seen = table.dropna(subset=[metric]) if metric in table else table.iloc[:0]
    right.plot(seen.get("epoch", []), seen.get(metric, []), color=GREEN, marker="s")
    right.set(xlabel="epoch", ylabel=metric.replace("valid", "validation"), title="Answers after thinking")
    integer_ticks(left, right)
    figure.legend(loc="outside lower center", ncols=len(names))
    return figure


@styled
def plot_rounds(table: pd.DataFrame) -> Figure:
    """Gap, rank and entropy by step, a line for each round of annotation, from ``round_table``."""
    figure, (left, middle, right) = picture(9.8, 3.7, columns=3)
    lines = zip(table.groupby("round"), CYCLE, MARKERS, LINES * 4, strict=False)
    for (number, part), colour, marker, line in lines:
        line_style = {"color": colour, "marker": marker, "linestyle": line}
        left.plot(part["step"], part["gap"], label=f"round {number}", **line_style)
        middle.plot(part["step"], part["rank"], **line_style)
        right.plot(part["step"][1:], part["entropy"][1:], **line_style)
    left.set(xlabel="step $i$", ylabel="mean gap $|t - s_i|$ (length)", title="Distance to the target")
    middle.set(xlabel="step $i$", ylabel="mean rank (1 is best)", title="Rank of the target", yscale="log")
    right.set(xlabel="step $i$", ylabel="entropy (bits)", title="Variety of thoughts")
    middle.yaxis.set_major_formatter(ScalarFormatter())  # 20, not 2 x 10^1
    middle.yaxis.set_minor_formatter(ScalarFormatter())
    right.set_ylim(0, 1.1 * max(1.0, table["entropy"].max()))
    integer_ticks(left, middle, right)
    figure.legend(loc="outside lower center", ncols=4)
    return figure


@styled
def plot_answer_cost(table: pd.DataFrame) -> Figure:
    """Cost of an answer in nats by the source of the thoughts, from ``answer_cost_by_thought_source``."""
    figure, axes = picture(9, 3.4)
    places, width = np.arange(len(table)), 0.8 / len(table.columns)
    for i, (name, colour, hatch) in enumerate(
        zip(table, (GREY, BLUE, GREEN), ("//", "", "..."), strict=False)
    ):
        at = places + (i - (len(table.columns) - 1) / 2) * width
        bars = axes.bar(at, table[name], width, color=colour, hatch=hatch, edgecolor="black", label=name)
        bar_labels(axes, bars, "{:.2f}")
    axes.set_xticks(places, table.index)
    axes.set(xlabel="source of the thoughts", ylabel="nats per answer")
    axes.set_title("Cost of the target after thoughts from different sources (validation users)")
    axes.margins(y=0.14)
    figure.legend(loc="outside lower center", ncols=len(table.columns))
    return figure


@styled
def plot_preference_margins(table: pd.DataFrame) -> Figure:
    """How much likelier the target is than its nearest item by text, a histogram for each model."""
    figure, axes = picture(8.5, 3.4)
    low, high = np.quantile(table.to_numpy(), (0.005, 0.995))
    edges = np.linspace(low, high, 41)
    for name, colour, line in zip(table, (GREY, BLUE), ("--", "-"), strict=False):
        axes.hist(table[name].clip(low, high), edges, histtype="step", color=colour, linestyle=line,
                  linewidth=2, label=f"{name}: mean {table[name].mean():.2f}")  # fmt: skip
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set(
        xlabel="log P(target) - log P(its nearest item by text), nats (outermost bars: everything beyond)"
    )
    axes.set_ylabel("validation users")
    axes.set_title("Does the model prefer the target to an item with similar text?")
    figure.legend(loc="outside lower center", ncols=2)
    return figure


@styled
def plot_state_weights(scores: dict[str, dict], chosen: float, metric: str = "N@10") -> Figure:
    """Validation metric by the weight of the state's score; at the right, the state alone."""
    names = list(scores)
    figure, axes = picture(8.5, 3.2)
    values = [scores[name][metric] for name in names]
    axes.plot(range(len(names) - 1), values[:-1], color=BLUE, marker="o")
    axes.plot(len(names) - 1, values[-1], color=ORANGE, marker="s", linestyle="none")
    at = names.index(str(chosen))
    axes.plot(at, values[at], marker="o", markersize=14, color="none", markeredgecolor=RED)
    axes.set_xticks(range(len(names)), [*names[:-1], "state alone"])
    axes.set(xlabel="weight $w$ of the state's score (circle: chosen)", ylabel=f"validation {metric}")
    axes.set_title("State-guided scoring: answer and state together")
    return figure


@styled
def plot_thinking_study(study: dict, metric: str = "N@10") -> Figure:
    """The same model with more thoughts, and with more trains of thought: difference to its default."""
    figure, (left, right) = picture(9.3, 3.5, columns=2)
    for axes, what, colour, label in (
        (left, "l", BLUE, "thoughts $l$ before the answer (greedy)"),
        (right, "n", GREEN, "trains of thought $n$ summed (beam)"),
    ):
        rows = study[what]
        gains = [row["minus usual"] for row in rows.values()]
        middle = [gain["mean_difference"] for gain in gains]
        spread = [[m - g["low"] for m, g in zip(middle, gains, strict=True)],
                  [g["high"] - m for m, g in zip(middle, gains, strict=True)]]  # fmt: skip
        axes.errorbar(range(len(rows)), middle, yerr=spread, color=colour, marker="o", capsize=4)
        axes.axhline(0, color="black", linewidth=0.8)
        axes.set_xticks(range(len(rows)), list(rows))
        axes.set(xlabel=label, ylabel=f"{metric} minus the usual way's")
    left.set_title("More thoughts")
    right.set_title("More trains of thought")
    return figure


@styled
def plot_channel(channel: dict, model: str = "STREAM-Rec-SFT") -> Figure:
    """Forest plot: N@10 and log P(target) after each kind of thoughts, minus the same after own thoughts.

    Args:
        channel: what ``measure_channel`` found.
        model: for the title.
    """
    table = channel_table(channel)
    own, table = table.loc[KINDS["own"]], table.drop(KINDS["own"])
    places = np.arange(len(table))[::-1]
    figure, every = picture(10, 1.9 + 0.4 * len(table), columns=2, sharey=True)
    panels = (
        ("N@10", 1, "+.4f", "Ranking", f"test N@10 minus own's ({own['N@10']:.4f}), 95 %"),
        ("nats", -1, "+.3f", "Target's probability", f"log P minus own's ({-own['nats']:.2f}), nats, 95 %"),
    )
    for axes, (key, sign, form, title, label) in zip(every, panels, strict=True):
        ends = sign * table[[f"{key} low", f"{key} high"]]  # a higher cost is a lower log P
        middle = sign * table[f"{key} minus own"]
        gains = pd.DataFrame({"difference": middle, "low": ends.min(axis=1), "high": ends.max(axis=1)})
        draw_intervals(axes, gains, places)
        for place, value in zip(places, middle, strict=True):
            axes.annotate(format(value, form), (1.01, place), xycoords=("axes fraction", "data"),
                          va="center", fontsize=10)  # fmt: skip
        axes.grid(axis="y", color=GREY, alpha=0.3)
        axes.locator_params(axis="x", nbins=5)
        axes.xaxis.set_major_formatter("{x:g}")
        axes.set(xlabel=label, title=f"{title} (right: better)", ylim=(-0.6, len(table) - 0.4))
    every[0].set_yticks(places, table.index)
    every[0].set_ylabel("thoughts in place of its own")
    figure.suptitle(
        f"{model}: does the answer read the thoughts? {channel['users']:,} test users "
        "(filled: the interval excludes 0)",
        fontsize=12,
    )
    return figure
