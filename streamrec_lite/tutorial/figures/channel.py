"""Figure of notebooks 07 and 08, the channel: answers after thoughts that the model did not write."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ..tables.channel import KINDS, channel_table
from .results import draw_intervals
from .style import GREY, picture, styled


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
