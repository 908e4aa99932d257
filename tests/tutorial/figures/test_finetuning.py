"""The figures of fine-tuning are readable, and show the numbers of their tables."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from channels import DOES_NOT_READ, READS
from drawing import assert_readable, size, words

from streamrec_lite.tutorial.figures import finetuning as figures
from streamrec_lite.tutorial.tables import finetuning as tables

METRICS = {"R@5": 0.1, "R@10": 0.2, "N@5": 0.05, "N@10": 0.07}


def way(gain: float) -> dict:
    return {**METRICS, "minus usual": {"mean_difference": gain, "low": gain - 0.01, "high": gain + 0.01}}


@pytest.fixture(scope="module")
def drawn():
    names = [*tables.LOSS_PARTS, "all"]
    alone = pd.DataFrame(np.linspace(-1, 1, 42).reshape(7, 6), names, list(tables.LOSS_PARTS))
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
        "alone": figures.plot_single_losses(alone),
        "parts": figures.plot_loss_parts(log),
        "rounds": figures.plot_rounds(rounds),
        "who": figures.plot_answer_cost(costs),
        "margins": figures.plot_preference_margins(gaps),
        "weights": figures.plot_state_weights(weights, 0.5),
        "question": figures.plot_thinking_study(
            {"l": {"0": way(-0.01), "4": way(0.0)}, "n": {"1": way(0.0)}}
        ),
    }


def test_every_figure_draws_readably(drawn):
    for name, figure in drawn.items():
        width, height = size(figure)
        assert 600 <= width <= 1200 and height >= 150, (name, width, height)
        for axes in figure.axes:
            assert axes.get_title() and axes.get_xlabel(), name
        small = [t for t in figure.findobj(match=lambda o: hasattr(o, "get_fontsize")) if t.get_text()]
        assert min(t.get_fontsize() for t in small) >= 8, name


def test_they_show_the_numbers(drawn):
    assert "-1.00" in words(drawn["alone"]) and "+1.00" in words(drawn["alone"])
    assert "6.00" in words(drawn["who"])
    assert "mean 1.00" in words(drawn["margins"])
    line = drawn["weights"].axes[0].get_lines()[0]
    assert list(line.get_ydata()) == [0.07, 0.09]


@pytest.mark.parametrize("channel", [READS, DOES_NOT_READ], ids=["reads", "does not read"])
def test_the_channel_draws_readably(channel):
    assert_readable("channel", figures.plot_channel(channel))


def test_the_channel_shows_differences_to_own_and_better_is_right():
    figure = figures.plot_channel(READS, "STREAM-Rec-RL")
    shown = words(figure)
    for part in ("STREAM-Rec-RL", "1,000 test users", "another user's", "-0.1600", "+0.6000", "(0.2000)"):
        assert part in shown
    assert (
        "-3.500" in shown
        and "+4.800" in shown
        and "its own" not in [text.get_text() for text in figure.axes[0].get_yticklabels()]
    )
    ranking, probability = figure.axes
    left, right = (axes.get_lines()[2].get_xdata() for axes in (ranking, probability))  # another user's
    assert list(left) == [-0.18, -0.14] and list(right) == [-3.7, -3.3]
