"""Figures of notebook 04, fast thinking: tokens, training, the trie, a beam, and metrics."""

from __future__ import annotations

import textwrap

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from ...data.dataset import Dataset
from ..tables.style import shorten
from .style import (
    BLUE,
    CYCLE,
    GREEN,
    GREY,
    LEVEL_COLOURS,
    LINES,
    MARKERS,
    ORANGE,
    RED,
    SKY,
    bar_labels,
    picture,
    styled,
)


@styled
def plot_teacher_forcing(encoder: list[list[str]], steps: pd.DataFrame, last: int = 4) -> Figure:
    """The tokens of one example: the encoder's last items, the decoder's input and its labels."""
    shown = encoder[-last:]
    m = len(steps)
    figure, axes = picture(9, 2.9)

    def cell(x: float, y: float, text: str, level: int | None) -> None:
        colour = "white" if level is None else LEVEL_COLOURS[level % len(LEVEL_COLOURS)]
        axes.add_patch(
            Rectangle((x, y), 0.94, 0.7, facecolor=colour, alpha=0.6, edgecolor="black", linewidth=0.7)
        )
        axes.text(x + 0.47, y + 0.35, text, ha="center", va="center", fontsize=10)

    for i, tokens in enumerate(shown):
        for j, token in enumerate(tokens):
            cell(i * (m + 0.3) + j, 2.4, token, j)
        axes.text(
            i * (m + 0.3) + m / 2, 3.2, f"item {len(encoder) - len(shown) + i + 1}", ha="center", fontsize=10
        )
    for t, (read, label) in enumerate(zip(steps["decoder reads"], steps["must predict"], strict=True)):
        cell(t, 1.0, read, None if t == 0 else t - 1)
        cell(t, 0.0, label, t)
        axes.annotate("", (t + 0.47, 0.72), (t + 0.47, 0.98), arrowprops={"arrowstyle": "->"})
    width = max(len(shown) * (m + 0.3), m + 6)
    axes.text(m + 0.3, 1.35, "decoder reads (BOS, then the true codes so far)", va="center", fontsize=10)
    axes.text(m + 0.3, 0.35, "decoder must predict (the target's codes)", va="center", fontsize=10)
    more = "" if len(shown) == len(encoder) else f", the last {len(shown)} of {len(encoder)} items"
    axes.set(xlim=(-0.1, width), ylim=(-0.1, 3.6), title=f"Teacher forcing: history in the encoder{more}")
    axes.axis("off")
    return figure


@styled
def plot_training_curve(rows: list[dict], metric: str = "valid N@10") -> Figure:
    """Training loss and the validation metric by epoch, from the rows of the training log."""
    table = pd.DataFrame(rows)
    figure, (left, right) = picture(9, 3.2, columns=2)
    left.plot(table["epoch"], table["loss"], color=BLUE, marker="o", markersize=4)
    left.set(xlabel="epoch", ylabel="loss (nats a code)", title="Training loss")
    seen = table.dropna(subset=[metric]) if metric in table else table.iloc[:0]
    if len(seen):
        right.plot(seen["epoch"], seen[metric], color=GREEN, marker="s", markersize=4)
        best = seen.iloc[int(np.argmax(seen[metric]))]
        label = f"best: {best[metric]:.4f} (epoch {int(best['epoch'])})"
        right.plot(best["epoch"], best[metric], "*", color=RED, markersize=14, label=label)
        right.legend(loc="lower right")
    right.set(xlabel="epoch", ylabel=metric.replace("valid", "validation"), title="On validation users")
    return figure


@styled
def plot_trie(table: pd.DataFrame, K: int) -> Figure:
    """Nodes of the trie at each depth and children of a node, from ``trie_table``; K codes a level."""
    inner = table.iloc[:-1]
    figure, (left, right) = picture(9, 3.0, columns=2)
    bars = left.bar(table["depth"], table["nodes"], color=SKY, edgecolor="black")
    bar_labels(left, bars, "{:.0f}")
    left.set(
        xlabel="depth (codes chosen so far)",
        ylabel="nodes",
        title="Prefixes that exist",
        xticks=table["depth"],
    )
    for shift, column, colour, hatch, form in (
        (-0.2, "mean children", GREEN, "", "{:.1f}"),
        (0.2, "most children", ORANGE, "//", "{:.0f}"),
    ):
        x = inner["depth"] + shift
        bars = right.bar(x, inner[column], 0.38, color=colour, hatch=hatch, edgecolor="black", label=column)
        bar_labels(right, bars, form)
    right.axhline(K, color="black", linestyle=":", linewidth=1, label=f"without a trie: {K}")
    right.set(xlabel="depth", ylabel="allowed next codes", title="Children of a node", xticks=inner["depth"])
    right.set_ylim(0, 1.15 * K)
    figure.legend(*right.get_legend_handles_labels(), loc="outside lower right", ncols=3)
    return figure


@styled
def plot_beam(
    steps: list[pd.DataFrame],
    dataset: Dataset,
    target: int | None = None,
    rows: int = 6,
    codes: Tensor | None = None,
) -> Figure:
    """The best prefixes at every step of a beam search, each joined to the prefix that it extends.

    Args:
        steps: ``beam_steps``, a table for each code level.
        dataset: for the titles of items.
        target: the item that the user took; with ``codes`` its prefixes are red and have a star. If the
            search keeps one that is not among the best, it is drawn in the last place.
        rows: how many prefixes are drawn at each step.
        codes: (N, m) codes of all items.
    """
    figure, axes = picture(9.3, 1.3 + 0.85 * rows)
    width = int(81 / len(steps))  # characters that fit into a box
    target_codes = None if target is None or codes is None else tuple(int(c) for c in codes[target])
    places: dict[int, int] = {}  # rank in the previous table -> place in the picture
    for depth, table in enumerate(steps):
        on_path = [target_codes is not None and c == target_codes[: depth + 1] for c in table["codes"]]
        at = on_path.index(True) if True in on_path else -1
        ranks = list(range(min(rows, len(table))))
        if at >= rows and table["kept"].iloc[at]:
            ranks[-1] = at
        for place, rank in enumerate(ranks):
            row = table.iloc[rank]
            colour, line = (RED, 2.2) if on_path[rank] else (GREY, 0.9)
            box = Rectangle((depth, -place), 0.84, 0.8, facecolor="white", edgecolor=colour, linewidth=line)
            axes.add_patch(box)
            axes.text(
                depth + 0.03,
                0.4 - place,
                _box_text(row, rank, on_path[rank], dataset, width),
                va="center",
                fontsize=10,
            )
            if depth and row["parent"] in places:
                start = 0.4 - places[row["parent"]]
                axes.plot([depth - 0.16, depth], [start, 0.4 - place], color=colour, linewidth=line, zorder=0)
        places = {rank: place for place, rank in enumerate(ranks)}
        note = f"step {depth + 1}: {int(table['kept'].sum())} kept of {len(table)}"
        note += "" if target_codes is None else f"\n★ is number {at + 1}" if at >= 0 else "\n★ was dropped"
        axes.text(depth, 0.95, note, fontsize=10, va="bottom", weight="bold")
    axes.set(xlim=(-0.05, len(steps) - 0.1), ylim=(0.9 - rows, 1.5))
    axes.set_title("A beam, step by step: codes so far, log-probability, and the items below them")
    axes.axis("off")
    return figure


def _box_text(row: pd.Series, rank: int, on_path: bool, dataset: Dataset, width: int) -> str:
    """Three lines: rank, codes and score; then the item, or how many items there are and one of them."""
    head = f"{'★ ' if on_path else ''}{rank + 1}. {'·'.join(map(str, row['codes']))}   {row['score']:.2f}"
    name = " ".join(str(dataset.items["title"].iloc[row["example"]]).split())
    if row["items"] > 1:
        return f"{head}\n{row['items']} items, one of them:\n{shorten(name, width)}"
    return "\n".join([head, *textwrap.wrap(name or "(no title)", width, max_lines=2, placeholder=" …")])


@styled
def plot_recommendations(table: pd.DataFrame) -> Figure:
    """Probabilities of one user's recommendations; ``table``: title, score (log P), target (bool)."""
    figure, axes = picture(8.5, 1.2 + 0.34 * len(table))
    names = [
        ("★ " if row.target else "") + f"{i + 1}. {row.title}" for i, row in enumerate(table.itertuples())
    ]
    share = 100 * np.exp(table["score"])
    bars = axes.barh(names, share, color=[RED if t else BLUE for t in table["target"]], edgecolor="black")
    for bar, is_target in zip(bars, table["target"], strict=True):
        bar.set_hatch("//" if is_target else "")
    bars.orientation = "horizontal"
    bar_labels(axes, bars, "{:.1f} %")
    axes.invert_yaxis()
    axes.set(
        xlabel="probability of the item's codes (%)", title="Recommended next items (★: what the user took)"
    )
    axes.set_xlim(0, 1.15 * share.max())
    return figure


@styled
def plot_metric(table: pd.DataFrame, metric: str = "N@10", oracle: float | None = None) -> Figure:
    """One metric (0..1) of several models, from ``metrics_table``; the oracle's as a dashed line."""
    figure, axes = picture(8.5, 1.3 + 0.45 * len(table))
    bars = axes.barh(table.index, table[metric], color=list(CYCLE[: len(table)]), edgecolor="black")
    bars.orientation = "horizontal"
    bar_labels(axes, bars, "{:.4f}")
    if oracle is not None:
        axes.axvline(oracle, color="black", linestyle="--", label=f"oracle: {oracle:.4f}")
        figure.legend(loc="outside lower right")
    axes.invert_yaxis()
    axes.set_xlim(0, 1.2 * max(float(table[metric].max()), oracle or 0.0, 1e-6))
    axes.set(
        xlabel=f"test {metric} (1 = always first)",
        title=f"{metric} on all test users, ranked among all items",
    )
    return figure


@styled
def plot_recall_by_length(tables: dict[str, pd.DataFrame], k: int = 10) -> Figure:
    """R@k by history length, a line for each model, with one standard error up and down."""
    figure, axes = picture(8.5, 3.2)
    for (name, table), colour, marker, line in zip(tables.items(), CYCLE, MARKERS, LINES, strict=False):
        x = np.arange(len(table))
        axes.errorbar(
            x, table[f"R@{k}"], table["error"], color=colour, marker=marker, linestyle=line, label=name
        )
        ends = zip(table["shortest"], table["longest"], table["users"], strict=True)
        axes.set_xticks(x, [(f"{a}" if a == b else f"{a}-{b}") + f"\n({n} users)" for a, b, n in ends])
    axes.set(
        xlabel="items in the history",
        ylabel=f"R@{k} (share of users)",
        title="Right and wrong, by history length",
    )
    axes.set_ylim(bottom=0)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure
