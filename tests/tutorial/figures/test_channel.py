"""The channel's figure is readable, and shows the differences of its table."""

from __future__ import annotations

import pytest
from channels import DOES_NOT_READ, READS
from drawing import assert_readable, words

from streamrec_lite.tutorial.figures.channel import plot_channel


@pytest.mark.parametrize("channel", [READS, DOES_NOT_READ], ids=["reads", "does not read"])
def test_it_draws_readably(channel):
    assert_readable("channel", plot_channel(channel))


def test_it_shows_differences_to_own_and_better_is_right():
    figure = plot_channel(READS, "STREAM-Rec-RL")
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
