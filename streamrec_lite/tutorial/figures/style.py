"""What all figures share: colours, sizes, a figure that shows itself, and saving it into a run.

The colours are Okabe and Ito's, which colour-blind readers can tell apart; markers, line styles,
hatches or words always carry the same information.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec

import matplotlib
import pandas as pd
from cycler import cycler
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ...common.files import atomic_path, write_json

if TYPE_CHECKING:
    from ...running.run import Run

P = ParamSpec("P")

BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
YELLOW, BLUE, RED, PURPLE, GREY = "#F0E442", "#0072B2", "#D55E00", "#CC79A7", "#999999"
CYCLE = (BLUE, ORANGE, GREEN, RED, PURPLE, SKY, BLACK, GREY)
LEVEL_COLOURS = (SKY, ORANGE, GREEN, YELLOW, BLUE, RED, PURPLE, GREY)
LINES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (3, 1, 1, 1)), (0, (1, 1)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
PLOTLY_MARKERS = ("circle", "square", "triangle-up", "diamond", "triangle-down", "cross", "x", "star")

STYLE: dict[Any, Any] = {  # of matplotlib
    "font.size": 11,
    "axes.titlesize": 12,
    "axes.labelsize": 11,
    "xtick.labelsize": 10,
    "ytick.labelsize": 10,
    "legend.fontsize": 10,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": False,
    "figure.dpi": 100,
    "axes.prop_cycle": cycler(color=CYCLE),
}


class Picture(Figure):
    """A matplotlib figure that shows itself in a notebook, without pyplot and its global state."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        FigureCanvasAgg(self)

    def alt_text(self) -> str:
        """Titles and axis labels as text, for readers who cannot see the figure."""
        parts = [self.get_suptitle()]
        for axes in self.axes:
            labels = [text for text in (axes.get_ylabel(), axes.get_xlabel()) if text and axes.axison]
            parts.append(": ".join(part for part in (axes.get_title(), " over ".join(labels)) if part))
        return ". ".join(text for text in parts if text)

    def _repr_png_(self) -> tuple[bytes, dict]:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", bbox_inches="tight", dpi=100)
        return buffer.getvalue(), {"alt": self.alt_text()}


def picture(
    width: float = 8.5, height: float = 3.6, rows: int = 1, columns: int = 1, **options: Any
) -> tuple[Picture, Any]:
    """(figure, axes) in the common style.

    Args:
        width: of the figure, in inches.
        height: of the figure, in inches.
        rows: how many axes stand one above another.
        columns: how many axes stand side by side.
        options: passed on to ``Figure.subplots``.
    """
    with matplotlib.rc_context(STYLE):
        figure = Picture(figsize=(width, height), layout="constrained")
        return figure, figure.subplots(rows, columns, **options)


def styled(function: Callable[P, Figure]) -> Callable[P, Figure]:
    """The function, drawing in the common style whatever the reader's matplotlib settings are."""

    @functools.wraps(function)
    def draw(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with matplotlib.rc_context(STYLE):
            return function(*args, **kwargs)

    return draw


def bar_labels(axes: Any, bars: Any, form: str = "{:.3f}") -> None:
    """Write each bar's value above it, or beside it if the bars are horizontal."""
    for bar in bars:
        horizontal = bar.get_width() != 0 and getattr(bars, "orientation", "") == "horizontal"
        value = bar.get_width() if horizontal else bar.get_height()
        at = (
            (value, bar.get_y() + bar.get_height() / 2)
            if horizontal
            else (bar.get_x() + bar.get_width() / 2, value)
        )
        shift = (4, 0) if horizontal else (0, 2)
        place = {"ha": "left", "va": "center"} if horizontal else {"ha": "center", "va": "bottom"}
        axes.annotate(form.format(value), at, shift, textcoords="offset points", fontsize=10, **place)


def integer_ticks(*every: Any) -> None:
    """Put the ticks of each x-axis at whole numbers: there is no epoch 1.5."""
    for axes in every:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def save_figure(run: Run, name: str, figure: Figure) -> Figure:
    """Write ``RUN/figures/NAME.png`` (whole or not at all) and return the figure, so that a cell shows it."""
    with atomic_path(Path(run.dir) / "figures" / f"{name}.png") as temporary:
        figure.savefig(temporary, format="png", bbox_inches="tight", dpi=120)
    return figure


def record(run: Run, name: str, numbers: dict) -> pd.DataFrame:
    """Write a notebook's numbers to ``RUN/figures/NAME.json`` and return them as a table."""
    write_json(Path(run.dir) / "figures" / f"{name}.json", numbers)
    flat = pd.json_normalize(numbers).astype(object).T  # nested names are joined with dots
    return flat.set_axis(["recorded"], axis=1)
