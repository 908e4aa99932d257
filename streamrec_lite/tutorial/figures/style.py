"""What all figures share: colours, sizes, a figure that shows itself, and saving it into a run.

The colours are Okabe and Ito's, which colour-blind readers can tell apart; markers, line styles,
hatches or words always say the same thing a second time.
"""

from __future__ import annotations

import functools
import io
from pathlib import Path

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ...common.files import atomic_path, write_json

BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
YELLOW, BLUE, RED, PURPLE, GREY = "#F0E442", "#0072B2", "#D55E00", "#CC79A7", "#999999"
CYCLE = (BLUE, ORANGE, GREEN, RED, PURPLE, SKY, BLACK, GREY)
LINES = ("-", "--", "-.", ":", (0, (3, 1, 1, 1)), (0, (1, 1)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
PLOTLY_MARKERS = ("circle", "square", "triangle-up", "diamond", "triangle-down", "cross", "x", "star")

STYLE = {
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
    "axes.prop_cycle": matplotlib.cycler(color=CYCLE),
}


class Picture(Figure):
    """A matplotlib figure that shows itself in a notebook, without pyplot and its global state."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        FigureCanvasAgg(self)

    def alt_text(self) -> str:
        """What the titles and axes say, for readers who do not see the picture."""
        said = [self.get_suptitle()]
        for axes in self.axes:
            labels = [text for text in (axes.get_ylabel(), axes.get_xlabel()) if text and axes.axison]
            said.append(": ".join(part for part in (axes.get_title(), " over ".join(labels)) if part))
        return ". ".join(text for text in said if text)

    def _repr_png_(self) -> tuple[bytes, dict]:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", bbox_inches="tight", dpi=100)
        return buffer.getvalue(), {"alt": self.alt_text()}


def picture(width: float = 8.5, height: float = 3.6, rows: int = 1, columns: int = 1, **options):
    """(figure, axes) in the common style; sizes in inches."""
    with matplotlib.rc_context(STYLE):
        figure = Picture(figsize=(width, height), layout="constrained")
        return figure, figure.subplots(rows, columns, **options)


def styled(function):
    """Draw in the common style, whatever the reader's own settings are."""

    @functools.wraps(function)
    def draw(*args, **kwargs):
        with matplotlib.rc_context(STYLE):
            return function(*args, **kwargs)

    return draw


def bar_labels(axes, bars, form: str = "{:.3f}") -> None:
    """Write each bar's value above it (beside it, where bars lie)."""
    for bar in bars:
        lying = bar.get_width() != 0 and getattr(bars, "orientation", "") == "horizontal"
        value = bar.get_width() if lying else bar.get_height()
        at = (
            (value, bar.get_y() + bar.get_height() / 2)
            if lying
            else (bar.get_x() + bar.get_width() / 2, value)
        )
        shift = (4, 0) if lying else (0, 2)
        place = {"ha": "left", "va": "center"} if lying else {"ha": "center", "va": "bottom"}
        axes.annotate(form.format(value), at, shift, textcoords="offset points", fontsize=10, **place)


def whole_numbers(*every) -> None:
    """Epochs and steps are counted: no ticks between them."""
    for axes in every:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def save_figure(run, name: str, figure: Figure) -> Figure:
    """Write ``RUN/figures/NAME.png`` whole or not at all; returns the figure, so a cell shows it."""
    with atomic_path(Path(run.dir) / "figures" / f"{name}.png") as temporary:
        figure.savefig(temporary, format="png", bbox_inches="tight", dpi=120)
    return figure


def record(run, name: str, numbers: dict):
    """Write ``RUN/figures/NAME.json`` with a notebook's numbers; returns them as a table."""
    import pandas as pd

    write_json(Path(run.dir) / "figures" / f"{name}.json", numbers)
    flat = pd.json_normalize(numbers).astype(object).T  # nested names are joined with dots
    return flat.set_axis(["recorded"], axis=1)
