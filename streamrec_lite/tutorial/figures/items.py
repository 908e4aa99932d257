"""Figures of notebooks 00 to 03: the data, the embeddings and the semantic IDs (matplotlib).

Every function returns a figure, which a notebook displays; ``save_figure`` also writes it to the run's
folder. The numbers come from ``tables.items``.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle

from ...data.dataset import Dataset
from ...tokenizer.semantic_ids import SemanticTokenizer
from ..tables.items import partial_sums, quantisation_table
from ..tables.style import shorten
from .style import (
    BLUE,
    CYCLE,
    GREEN,
    GREY,
    MARKERS,
    ORANGE,
    PURPLE,
    RED,
    SKY,
    YELLOW,
    bar_labels,
    picture,
    styled,
)

MAP_BOXES = {  # name: (x, y, text, colour)
    "text": (0, 1, "items' text", SKY),
    "vectors": (1, 1, "embeddings\n(02)", SKY),
    "ids": (2, 1, "semantic IDs\n(03)", SKY),
    "history": (0, 0, "users' histories\n(01)", ORANGE),
    "split": (1, 0, "leave-one-out,\nprefixes (01)", ORANGE),
    "model": (3.25, 0.5, "encoder,\ndecoders\n(04, 05)", GREEN),
    "thoughts": (4.25, 0.5, "thoughts\n(06, 07, 08)", PURPLE),
    "beam": (5.25, 0.5, "beam search\nin a trie (04)", GREEN),
    "metrics": (6.25, 0.5, "items, R@10,\nN@10 (04, 09)", YELLOW),
}
MAP_ARROWS = (
    ("text", "vectors"),
    ("vectors", "ids"),
    ("ids", "model"),
    ("history", "split"),
    ("split", "model"),
    ("model", "thoughts"),
    ("thoughts", "beam"),
    ("beam", "metrics"),
)


@styled
def plot_stage_map() -> Figure:
    """The stages through which the data pass, and the notebook that shows each."""
    figure, axes = picture(10, 2.7)
    for x, y, text, colour in MAP_BOXES.values():
        box = FancyBboxPatch(
            (x * 1.55, y * 1.4),
            1.2,
            0.7,
            boxstyle="round,pad=0.06",
            facecolor=colour,
            alpha=0.35,
            edgecolor="black",
        )
        axes.add_patch(box)
        axes.text(x * 1.55 + 0.6, y * 1.4 + 0.35, text, ha="center", va="center", fontsize=10)
    for a, b in MAP_ARROWS:
        (xa, ya), (xb, yb) = MAP_BOXES[a][:2], MAP_BOXES[b][:2]
        start, end = (xa * 1.55 + 1.26, ya * 1.4 + 0.35), (xb * 1.55 - 0.07, yb * 1.4 + 0.35)
        axes.add_patch(
            FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=14, linewidth=1.3, color="black")
        )
    axes.set(xlim=(-0.15, 11.05), ylim=(-0.2, 2.3), title="From text and histories to recommendations")
    axes.axis("off")
    return figure


@styled
def plot_leave_one_out(dataset: Dataset, user: int, max_history: int = 20) -> Figure:
    """All examples made from one user, one per row: the history in blue, the target marked."""
    n = len(dataset.sequences[user])
    examples = [(j, "train") for j in range(1, n - 2)] + [(n - 2, "validation"), (n - 1, "test")]
    shown = examples if len(examples) <= 12 else examples[:5] + examples[-7:]
    figure, axes = picture(8.5, 1.2 + 0.36 * len(shown))
    colours = {"train": ORANGE, "validation": GREEN, "test": RED}
    for row, (j, part) in enumerate(shown):
        for position in range(n):
            used = max(0, j - max_history) <= position < j
            colour = SKY if used else colours[part] if position == j else "white"
            axes.add_patch(
                Rectangle((position, -row), 0.92, 0.84, facecolor=colour, edgecolor=GREY, linewidth=0.7)
            )
            letter = "?" if position == j else "h" if used else ""
            if n <= 30:
                axes.text(position + 0.46, 0.42 - row, letter, ha="center", va="center", fontsize=10)
    axes.set(xlim=(-0.2, n + 0.1), ylim=(-len(shown) + 0.8, 1.1))
    step = max(1, n // 15)
    axes.set_xticks(np.arange(0, n, step) + 0.46, np.arange(1, n + 1, step))
    axes.set_yticks([0.42 - row for row in range(len(shown))], [part for _, part in shown])
    axes.set(xlabel="position in the user's history (1 = oldest)")
    axes.set_title("One user's examples (h: history that the model reads; ?: the item to predict)")
    if len(shown) < len(examples):
        axes.set_title(f"One user's examples ({len(examples) - len(shown)} training rows left out)")
    return figure


@styled
def plot_history_lengths(dataset: Dataset) -> Figure:
    """Histogram of how many interactions users have."""
    lengths = np.array([len(s) for s in dataset.sequences])
    figure, axes = picture(8.5, 3.2)
    top = min(int(np.quantile(lengths, 0.99)) + 1, int(lengths.max()))
    axes.hist(
        np.minimum(lengths, top), bins=np.arange(lengths.min(), top + 2) - 0.5, color=BLUE, edgecolor="white"
    )
    axes.axvline(lengths.mean(), color=RED, linestyle="--", label=f"mean {lengths.mean():.1f}")
    rest = "" if top == lengths.max() else f" (the last bar: {top} and more)"
    axes.set(xlabel=f"interactions of a user{rest}", ylabel="users", title="History lengths")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend()
    return figure


@styled
def plot_padding(table: pd.DataFrame) -> Figure:
    """The shares of padding from ``padding_shares``, one bar for each way to form batches."""
    figure, axes = picture(8.5, 2.2)
    bars = axes.barh(table["batches"], 100 * table["padding"], color=[GREY, ORANGE, GREEN])
    bars.orientation = "horizontal"
    for bar, hatch in zip(bars, ("//", "..", ""), strict=True):
        bar.set(hatch=hatch, edgecolor="black")
    bar_labels(axes, bars, "{:.1f} %")
    axes.invert_yaxis()
    axes.set(xlabel="cells of a batch that are padding (%)", title="Wasted computation", xlim=(0, 100))
    return figure


@styled
def plot_popularity(dataset: Dataset) -> Figure:
    """Interactions per item, most popular first, and the share of all interactions of the top items."""
    counts = np.bincount(np.concatenate(dataset.sequences), minlength=dataset.n_items)
    counts = np.sort(counts)[::-1]
    figure, (left, right) = picture(8.5, 3.2, columns=2)
    taken = counts[counts > 0]
    left.plot(np.arange(1, len(taken) + 1), taken, color=BLUE)
    left.set(
        xscale="log",
        yscale="log",
        xlabel="item's rank by popularity",
        ylabel="interactions",
        title="Popularity",
    )
    share = 100 * counts.cumsum() / counts.sum()
    right.plot(100 * np.arange(1, len(counts) + 1) / len(counts), share, color=GREEN)
    right.plot([0, 100], [0, 100], color=GREY, linestyle=":", label="all items equally popular")
    right.set(
        xlabel="most popular items (% of all)", ylabel="share of interactions (%)", title="Concentration"
    )
    right.legend(loc="lower right")
    return figure


@styled
def plot_posterior(table: pd.DataFrame, title: str) -> Figure:
    """A heat map of probabilities (0..1): rows are hypotheses, columns steps of a history."""
    figure, axes = picture(9, 1.4 + 0.32 * len(table))
    image = axes.imshow(table.to_numpy(float), aspect="auto", cmap="cividis", vmin=0, vmax=1)
    axes.set_xticks(range(table.shape[1]), table.columns)
    axes.set_yticks(range(len(table)), table.index)
    axes.set(xlabel="items seen so far", title=title)
    for (row, column), value in np.ndenumerate(table.to_numpy(float)):
        if value >= 0.1 and table.shape[1] <= 16:
            colour = "black" if value > 0.6 else "white"
            axes.text(column, row, f"{value:.1f}", ha="center", va="center", fontsize=10, color=colour)
    figure.colorbar(image, ax=axes, label="probability")
    return figure


@styled
def plot_item_map(points: np.ndarray, labels: list[str]) -> Figure:
    """Items as points (n, 2), with a colour and a marker for each category; UMAP's axes have no unit."""
    figure, axes = picture(8.5, 5)
    frequent = pd.Series(labels).value_counts().index
    names = [n for n in frequent if n != "other"] + [n for n in frequent if n == "other"]
    for name, colour, marker in zip(names, CYCLE, MARKERS, strict=False):
        rows = np.asarray(labels) == name
        colour = GREY if name == "other" else colour
        axes.scatter(*points[rows].T, s=16, color=colour, marker=marker, alpha=0.75, linewidths=0, label=name)
    axes.set(
        xlabel="UMAP 1 (no unit)", ylabel="UMAP 2 (no unit)", title="Items by the similarity of their text"
    )
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), title="category", markerscale=1.6)
    return figure


@styled
def plot_similarities(within: np.ndarray, between: np.ndarray) -> Figure:
    """Histograms of the cosine similarity of two items, within a category and between categories."""
    figure, axes = picture(8.5, 3.2)
    bins = np.linspace(min(between.min(), within.min(initial=0)), 1, 50)
    axes.hist(
        between,
        bins,
        density=True,
        color=ORANGE,
        alpha=0.55,
        label=f"two categories, mean {between.mean():.2f}",
    )
    axes.hist(
        within,
        bins,
        density=True,
        histtype="step",
        linewidth=2,
        color=BLUE,
        label=f"one category, mean {within.mean():.2f}",
    )
    axes.set(
        xlabel="cosine similarity of two items' text", ylabel="density", title="Do categories hold together?"
    )
    axes.legend()
    return figure


@styled
def plot_quantisation(tokenizer: SemanticTokenizer, item: int, title: str) -> Figure:
    """Residual quantisation of one item: its latent rebuilt level by level, and the residual that is left."""
    levels, partial = quantisation_table(tokenizer, item), partial_sums(tokenizer, item)
    figure, (left, right) = picture(9, 3.6, columns=2, width_ratios=(1.5, 1))
    limit = np.abs(partial).max()
    image = left.imshow(partial, aspect="auto", cmap="PuOr", vmin=-limit, vmax=limit)
    names = ["latent $z$"] + [
        f"level {d}: code {c}" for d, c in zip(levels["level"], levels["code"], strict=True)
    ]
    left.set_yticks(range(len(partial)), names)
    left.set(xlabel="dimension of the latent", title="Sum of the chosen codes so far")
    left.axhline(0.5, color="black", linewidth=2)
    figure.colorbar(image, ax=left, label="value", shrink=0.9)
    norms = [levels["before"].iloc[0], *levels["after"]]
    bars = right.bar(range(len(norms)), norms, color=[GREY] + [BLUE] * len(levels), edgecolor="black")
    bars[0].set_hatch("//")
    for bar, error in zip(bars, [1.0, *levels["error"]], strict=True):
        at = (bar.get_x() + bar.get_width() / 2, bar.get_height())
        right.annotate(
            f"{100 * error:.0f} %", at, (0, 2), textcoords="offset points", ha="center", fontsize=10
        )
    right.set_xticks(range(len(norms)), ["start", *levels["level"]])
    right.set(xlabel="after level", ylabel="residual norm", title="Residual")
    right.set_ylim(0, 1.12 * max(norms))
    figure.suptitle(f"Semantic ID of: {shorten(title, 70)}", fontsize=12)
    return figure


@styled
def plot_codebook_health(
    learned: pd.DataFrame, other: pd.DataFrame, K: int, other_name: str = "random codebooks"
) -> Figure:
    """Codes in use and perplexity of each level, for the learned tokenizer beside another one.

    Args:
        learned: ``code_usage`` of the tokenizer.
        other: ``code_usage`` of the codes that it is compared with.
        K: codes of a level.
        other_name: how the legend calls the other one.
    """
    figure, axes = picture(9, 3.2, columns=2)
    for ax, column, title in zip(axes, ("used", "perplexity"), ("Codes in use", "Perplexity"), strict=True):
        for shift, table, colour, hatch, name in (
            (-0.2, learned, BLUE, "", "this tokenizer"),
            (0.2, other, ORANGE, "//", other_name),
        ):
            bars = ax.bar(
                table["level"] + shift,
                table[column],
                0.38,
                color=colour,
                hatch=hatch,
                edgecolor="black",
                label=name,
            )
            bar_labels(ax, bars, "{:.0f}")
        ax.axhline(K, color="black", linestyle=":", linewidth=1)
        ax.set_xticks(learned["level"])
        ax.set(xlabel="level", ylabel=f"codes (of {K})", title=title, ylim=(0, 1.15 * K))
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=2)
    return figure
