"""The figures of the workshop are readable, and show the numbers of their tables."""

from __future__ import annotations

import pandas as pd
import pytest
from drawing import assert_readable, words
from small_workshop import CATALOGUE, WORLD, prefixes_of

from streamrec_lite.tutorial.figures import workshop as figures
from streamrec_lite.tutorial.tables import workshop_steps
from streamrec_lite.tutorial.tables.workshop_thoughts import KINDS

COLUMNS = ["model", "steps", "mean", "low", "high", "seeds", "of oracle"]


def accuracy(models, seeds: int = 1) -> pd.DataFrame:
    values = [(m, h, 0.1 * (i + h), 0.1 * (i + h) - 0.05, 0.1 * (i + h) + 0.02, seeds, 0.5)
              for i, m in enumerate(models) for h in (1, 2)]  # fmt: skip
    return pd.DataFrame(values, columns=COLUMNS)


BY_L = pd.DataFrame({1: [0.1, 0.9, 0.8], 2: [0.0, 0.2, 0.7]}, index=[0, 1, 2])
BY_N = pd.DataFrame({1: [0.5, 0.6], 2: [0.3, 0.4]}, index=[1, 16])
TAKEN = pd.DataFrame({1: [90.0, 20.0], 2: [10.0, 80.0]}, index=[1, 2])
REWARDS = pd.DataFrame(
    [("RL", 1, 0.2, 0.1, 0.3), ("RL", 2, 0.6, 0.5, 0.7)], columns=["model", "block", "mean", "low", "high"]
)
WALK = pd.DataFrame(
    {"thoughts": [0, 1], "thought": ["-", "part 2"], "residual": [2.0, 0.5], "P(goal)": [0.1, 0.9]}
)
SHARES = {f"{kind}{name}": [10.0 + i] for i, kind in enumerate(KINDS) for name in ("", ", by chance")}


@pytest.fixture(scope="module")
def drawn():
    errand = workshop_steps.errand_table(WORLD, CATALOGUE, prefixes_of([6, 5, 4, 1]))
    return {
        "errand": figures.plot_errand(errand),
        "accuracy": figures.plot_accuracy(accuracy(["Direct", "True thoughts"], 3), {"1": 1.0, "2": 0.9}),
        "longer": figures.plot_thinking_longer({m: {"l": BY_L, "n": BY_N} for m in ("SFT", "RL")}),
        "reinforcement": figures.plot_reinforcement_pays(accuracy(["SFT", "RL"]), REWARDS),
        "taken": figures.plot_steps_taken({"SFT": TAKEN, "RL": TAKEN}),
        "annotated": figures.plot_annotated(pd.DataFrame(SHARES, index=["all"])),
        "walk": figures.plot_walk(WALK, "an errand"),
    }


def test_every_figure_is_readable(drawn):
    for name, figure in drawn.items():
        assert_readable(name, figure)


def test_the_errand_names_parts_and_guides_in_order(drawn):
    said = [text.get_text() for text in drawn["errand"].axes[0].texts if text.get_text()]
    assert said == ["part\n1", "start", "part\n2", "step 1", "guide A", "part\n3", "goal", "guide B"]


def test_accuracy_has_a_panel_for_each_number_of_steps(drawn):
    one, two = drawn["accuracy"].axes
    assert (one.get_title(), two.get_title()) == ("1 step", "2 steps")
    assert [bar.get_width() for bar in two.patches] == pytest.approx([20, 30])
    oracle = [line for line in two.lines if line.get_linestyle() == "--"]
    assert oracle[0].get_xdata() == [90, 90]
    assert [bar.get_hatch() for bar in two.patches] == ["", "//"]  # true thoughts stand out without colour
    (_, caps, _) = two.containers[1] if len(two.containers) > 1 else two.containers[0]
    assert len(caps) == 2  # the range over seeds


def test_thinking_longer_has_a_line_for_each_number_of_steps(drawn):
    axes = drawn["longer"].axes
    upper, lower = axes[0], axes[2]
    lines = [line for line in upper.lines if len(line.get_xdata()) > 1]
    assert lines[0].get_ydata().tolist() == pytest.approx([10, 90, 80])
    assert lines[1].get_ydata().tolist() == pytest.approx([0, 20, 70])
    rings = [line for line in upper.lines if len(line.get_xdata()) == 1]
    assert [(ring.get_xdata()[0], ring.get_ydata()[0]) for ring in rings] == [(1, 90), (2, 70)]
    for look in ("get_color", "get_marker", "get_linestyle"):
        assert len({str(getattr(line, look)()) for line in lines}) == 2
    assert [t.get_text() for t in lower.get_xticklabels()] == ["1", "16"]


def test_reinforcement_shows_accuracy_and_rewards(drawn):
    left, right = drawn["reinforcement"].axes
    assert [bar.get_height() for bar in left.patches] == pytest.approx([10, 20, 20, 30])
    assert right.lines[0].get_ydata().tolist() == pytest.approx([20, 60])
    colours = {bar.get_facecolor() for bar in left.patches}
    assert len(colours) == 2


def test_heat_maps_mark_as_many_steps_as_needed(drawn):
    first = drawn["taken"].axes[0]
    assert [t.get_text() for t in first.texts] == ["90", "10", "20", "80"]
    assert [(box.get_x(), box.get_y()) for box in first.patches] == [(-0.47, -0.47), (0.53, 0.53)]


def test_annotated_thoughts_stand_beside_chance(drawn):
    axes = drawn["annotated"].axes[0]
    assert [bar.get_width() for bar in axes.patches] == [10, 11, 12, 13, 14] * 2
    assert "by chance" in words(drawn["annotated"])


def test_the_walk_shows_residuals_and_answers(drawn):
    left, right = drawn["walk"].axes
    assert [bar.get_height() for bar in left.patches] == [2, 0.5]
    assert [bar.get_height() for bar in right.patches] == [10, 90]
    assert [t.get_text() for t in right.get_xticklabels()] == ["(no thought)", "part\n2"]
