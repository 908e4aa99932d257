"""Figures of notebook 08, reinforcement: the run, the rewards of rollouts, and the ablation of rewards."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from ...training.rewards import REWARD_NAMES
from .style import BLUE, CYCLE, GREEN, GREY, LINES, MARKERS, ORANGE, RED, integer_ticks, picture, styled

MIN_HALF_RANGE = 0.005  # of the N@10 axis: without it a tiny change would fill the panel


@styled
def plot_reinforcement(rows: list[dict], best: int) -> Figure:
    """Validation metric, rewards and KL by block of updates; the weights of block ``best`` were kept."""
    table = pd.DataFrame(rows)
    seen = table.dropna(subset=["valid N@10"])
    steps = table.dropna(subset=["reward"]) if "reward" in table else table.iloc[:0]
    figure, axes = picture(9.8, 6.6, rows=2, columns=2)
    (valid, total), (parts, moved) = axes
    valid.plot(seen["epoch"], seen["valid N@10"], color=GREEN, marker="s")
    valid.axhline(seen["valid N@10"].iloc[0], color=GREY, linestyle="--", linewidth=1)
    kept = seen[seen["epoch"] == best]
    valid.plot(kept["epoch"], kept["valid N@10"], "o", markersize=14, color="none", markeredgecolor=RED)
    valid.set(xlabel="block of updates", ylabel="validation N@10")
    low, high = valid.get_ylim()
    room = max(0.0, MIN_HALF_RANGE - (high - low) / 2)
    valid.set_ylim(low - room, high + room)
    valid.set_title("Validation (dashed: before; circle: kept)")
    total.plot(steps["epoch"], steps["reward"], color=BLUE, marker="o", label="mean")
    total.plot(
        steps["epoch"], steps["reward std"], color=ORANGE, marker="^", linestyle="--", label="deviation"
    )
    total.set(xlabel="block of updates", ylabel="reward of a rollout", title="Total reward")
    total.legend()
    names = [name for name in REWARD_NAMES if f"weighted {name}" in steps]
    for name, colour, marker, line in zip(names, CYCLE, MARKERS, LINES, strict=False):
        line_style = {"color": colour, "marker": marker, "linestyle": line, "markersize": 5}
        parts.plot(steps["epoch"], steps[f"weighted {name}"], label=name, **line_style)
    parts.set(xlabel="block of updates", ylabel="weighted reward", title="Each reward")
    parts.legend(ncols=2)
    moved.plot(steps["epoch"], steps["kl"], color=BLUE, marker="o", label="KL to the fine-tuned model")
    other = moved.twinx()
    other.plot(steps["epoch"], steps["entropy"], color=ORANGE, marker="^", linestyle="--", label="entropy")
    other.set_ylabel("entropy of a thought (nats)")
    other.spines["right"].set_visible(True)
    moved.set(xlabel="block of updates", ylabel="KL (nats a token)", title="Distance of the policy")
    lines = [*moved.get_lines(), *other.get_lines()]
    moved.legend(lines, [line.get_label() for line in lines])
    integer_ticks(valid, total, parts, moved)
    for axes in (total, parts, moved, other):
        low, high = axes.get_ylim()
        axes.set_ylim(low, high + 0.4 * (high - low))  # room for the legend
    return figure


@styled
def plot_rewards(rollouts: dict[int, pd.DataFrame]) -> Figure:
    """Rewards of the recorded rollouts by block, and the advantage of each, from ``read_rollouts``."""
    figure, (left, right) = picture(9.8, 3.9, columns=2)
    left.boxplot(
        [table["reward"] for table in rollouts.values()],
        tick_labels=[str(block) for block in rollouts],
        medianprops={"color": RED, "linewidth": 2},
        flierprops={"marker": ".", "markersize": 4},
    )
    left.set(xlabel="updated blocks", ylabel="reward of a rollout", title="Distribution of rewards")
    for (block, table), colour, marker in zip(
        [min(rollouts.items()), max(rollouts.items())], (GREY, BLUE), ("o", "^"), strict=True
    ):
        marker_style = {"color": colour, "s": 14, "alpha": 0.7, "marker": marker}
        right.scatter(table["reward"], table["advantage"], label=f"after {block} blocks", **marker_style)
    right.axhline(0, color="black", linewidth=0.8)
    right.set(xlabel="reward of a rollout", ylabel="advantage (deviations of its group)")
    right.set_title("The advantage depends on the group")
    right.legend()
    return figure


@styled
def plot_reward_ablation(table: pd.DataFrame) -> Figure:
    """Heat map of ``reward_ablation``: blue rises, orange falls; each column has its own scale."""
    values = table.to_numpy(dtype=float)
    scale = np.abs(values).max(axis=0, keepdims=True).clip(min=1e-9)
    colours = LinearSegmentedColormap.from_list("fall-rise", [ORANGE, "white", BLUE])
    figure, axes = picture(8.8, 1.2 + 0.36 * len(table))
    axes.imshow(values / scale, cmap=colours, vmin=-1, vmax=1, aspect="auto")
    for i, row in enumerate(values):
        for j, value in enumerate(row):
            axes.text(j, i, f"{value:+.3f}", ha="center", va="center", fontsize=10)
    axes.set_xticks(range(len(table.columns)), table.columns)
    axes.set_yticks(range(len(table)), table.index)
    axes.set(xlabel="change of each reward, unweighted (blue: rises; each column has its own scale)")
    axes.set_ylabel("rewards in use")
    axes.set_title("A few updates with some of the rewards: how all of them change")
    return figure


@styled
def plot_mixture(tables: dict[str, dict], chosen: dict[str, float], metric: str = "N@10") -> Figure:
    """Validation metric by the share of the rules, a line for each model, from ``running.run_mixture``."""
    figure, axes = picture(8.5, 3.6)
    for (name, table), colour, marker, line in zip(tables.items(), CYCLE, MARKERS, LINES, strict=False):
        x, y = [float(w) for w in table], [value[metric] for value in table.values()]
        axes.plot(x, y, color=colour, marker=marker, linestyle=line, markersize=5, label=name)
        axes.plot(chosen[name], table[str(chosen[name])][metric], "o", markersize=14, color="none",
                  markeredgecolor=colour)  # fmt: skip
    axes.set(xlabel="share $w$ of the rules (0: the model alone; 1: the rules alone; circle: chosen)")
    axes.set(ylabel=f"validation {metric}", title="Mixing the model with SequentialRules")
    axes.legend()
    return figure
