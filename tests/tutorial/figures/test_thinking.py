"""The figures of thinking are readable, and show the numbers of their tables."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from drawing import size, words

from streamrec_lite.tutorial.figures import thinking as figures
from streamrec_lite.tutorial.tables import thinking as tables

CODES = torch.tensor([[-2.0, 3.0], [-4.0, -1.0], [0.0, -3.0], [0.0, 1.0]])
ITEMS = {"strings": (-1.0, 0.0), "cable": (-1.0, 2.0), "amplifier": (-2.0, 0.0)}
NAMES = {0: "1:0", 1: "1:1", 2: "2:0", 3: "2:1"}


class Flat:
    """A plane without UMAP: 30 items somewhere."""

    points = np.random.default_rng(0).normal(size=(30, 2))

    def item(self, item: int) -> np.ndarray:
        return self.points[item]


@pytest.fixture(scope="module")
def example():
    return pd.DataFrame(
        {
            "step": [0, 1, 2],
            "thought": ["-", "1:7", "3:12"],
            "residual": [np.nan, 3.5, 2.25],
            "gap": [3.5, 2.25, 1.125],
            "rank": [400, 31, 2],
            "nearest": ["a; b"] * 3,
        }
    )


@pytest.fixture(scope="module")
def drawn(example):
    steps = tables.toy_example(torch.tensor([2.0, 3.0]), torch.tensor(list(ITEMS.values())), 2, CODES, 2)
    curve = pd.DataFrame({"step": [0, 1, 2], "mean gap": [3.0, 2.0, 1.0], "median rank": [300.0, 20.0, 1.5]})
    points = np.array([[0.0, 0.0], [1.0, 1.0], [1.01, 1.0]])
    return {
        "by_hand": figures.plot_toy_example(steps, ITEMS, NAMES, "amplifier"),
        "one_example": figures.plot_steps(example, "Target: a thing", 600),
        "many": figures.plot_gap_and_rank({"annotated": curve, "own": curve + 1}, 600),
        "path": figures.plot_state_path(Flat(), points, ["1:7", "3:12"], 4, "Target: a thing"),
    }


def test_every_figure_draws_readably(drawn):
    for name, figure in drawn.items():
        width, height = size(figure)
        assert 600 <= width <= 1200 and height >= 150, (name, width, height)
        for axes in figure.axes:
            assert axes.get_title() and axes.get_xlabel() and axes.get_ylabel(), name
        small = [t for t in figure.findobj(match=lambda o: hasattr(o, "get_fontsize")) if t.get_text()]
        assert min(t.get_fontsize() for t in small) >= 10, f"{name}: text smaller than 10 points"


def test_toy_example_shows_gaps_ranks_and_thoughts(drawn):
    text = words(drawn["by_hand"])
    for said in ("gap 5, rank 3", "gap 2, rank 2", "gap 1, rank 1", "$o_1$ = 1:1", "$o_2$ = 2:0", "strings"):
        assert said in text


def test_steps_show_the_table(drawn, example):
    left, right = drawn["one_example"].axes
    assert [bar.get_height() for bar in left.patches] == example["gap"].tolist()
    assert [t.get_text() for t in left.get_xticklabels()] == ["at first", "1:7", "3:12"]
    assert right.lines[0].get_ydata().tolist() == [400, 31, 2]
    low, high = right.get_ylim()
    assert low > 600 > 1 > high  # rank 1 stands on top


def test_gap_and_rank_have_a_line_style_for_each_source(drawn):
    left, right = drawn["many"].axes
    assert left.lines[0].get_ydata().tolist() == pytest.approx([100, 200 / 3, 100 / 3])
    assert left.lines[1].get_ydata().tolist() == [100, 75, 50]
    assert right.lines[1].get_ydata().tolist() == [301, 21, 2.5]
    for look in ("get_color", "get_marker", "get_linestyle"):
        assert len({getattr(line, look)() for line in left.lines[:2]}) == 2


def test_state_path_goes_through_the_states_to_the_target(drawn):
    for axes in drawn["path"].axes:
        assert axes.lines[0].get_xydata()[0].tolist() == Flat.points[4].tolist()
        assert axes.lines[1].get_xydata().tolist() == [[0, 0], [1, 1], [1.01, 1]]
    near = drawn["path"].axes[1]
    (low, high), (bottom, top) = near.get_xlim(), near.get_ylim()
    for x, y in [[0, 0], [1.01, 1], Flat.points[4].tolist()]:
        assert low < x < high and bottom < y < top
    assert [t.get_text() for t in near.texts] == ["0", "1,2"]  # two states in one place share a label
    assert "$o_2$ = 3:12" in words(drawn["path"])


def test_nearby_points_by_hand():
    points = np.array([[0.0, 0.0], [5.0, 5.0], [0.3, 0.4], [5.0, 5.2]])
    assert [members for _, members in figures.group_nearby_points(points, 0.6)] == [[0, 2], [1, 3]]
    assert [members for _, members in figures.group_nearby_points(points, 0.1)] == [[0], [1], [2], [3]]
