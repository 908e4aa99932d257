"""The figures of fine-tuning are readable, and show the numbers of their tables."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from drawing import size, words

from streamrec_lite.tutorial.figures import finetuning as figures_sft
from streamrec_lite.tutorial.tables import finetuning as lessons

METRICS = {"R@5": 0.1, "R@10": 0.2, "N@5": 0.05, "N@10": 0.07}


def way(gain: float) -> dict:
    return {**METRICS, "minus usual": {"mean_difference": gain, "low": gain - 0.01, "high": gain + 0.01}}


@pytest.fixture(scope="module")
def figures():
    names = [*lessons.PARTS, "all"]
    alone = pd.DataFrame(np.linspace(-1, 1, 42).reshape(7, 6), names, list(lessons.PARTS))
    log = [
        {"epoch": e, "loss": 3.0 / e, "answer": 2.0 / e, "state": 4.0, "valid N@10": 0.1 * e} for e in (1, 2)
    ]
    rounds = pd.DataFrame(
        {
            "round": [0, 0, 1, 1],
            "step": [0, 1, 0, 1],
            "gap": [3.0, 2.0, 2.5, 1.5],
            "rank": [90.0, 30.0, 60.0, 20.0],
            "entropy": [np.nan, 5.0, np.nan, 4.5],
        }
    )
    costs = pd.DataFrame({"pretrained": [5.0, 6.0], "fine-tuned": [4.0, 4.1]}, ["none", "its own"])
    gaps = pd.DataFrame({"pi_ref": np.linspace(-3, 5, 50), "fine-tuned": np.linspace(-2, 6, 50)})
    weights = {"0.0": METRICS, "0.5": {**METRICS, "N@10": 0.09}, "state": {**METRICS, "N@10": 0.08}}
    return {
        "alone": figures_sft.one_at_a_time(alone),
        "parts": figures_sft.parts_by_epoch(log),
        "rounds": figures_sft.rounds(rounds),
        "who": figures_sft.who_thought(costs),
        "margins": figures_sft.margins(gaps),
        "weights": figures_sft.weights(weights, 0.5),
        "question": figures_sft.question({"l": {"0": way(-0.01), "4": way(0.0)}, "n": {"1": way(0.0)}}),
    }


def test_every_figure_draws_readably(figures):
    for name, figure in figures.items():
        width, height = size(figure)
        assert 600 <= width <= 1200 and height >= 150, (name, width, height)
        for axes in figure.axes:
            assert axes.get_title() and axes.get_xlabel(), name
        small = [t for t in figure.findobj(match=lambda o: hasattr(o, "get_fontsize")) if t.get_text()]
        assert min(t.get_fontsize() for t in small) >= 8, name


def test_they_show_the_numbers(figures):
    assert "-1.00" in words(figures["alone"]) and "+1.00" in words(figures["alone"])
    assert "6.00" in words(figures["who"])
    assert "mean 1.00" in words(figures["margins"])
    line = figures["weights"].axes[0].get_lines()[0]
    assert list(line.get_ydata()) == [0.07, 0.09]
