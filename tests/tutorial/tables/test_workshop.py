"""Tables of accuracy on the workshop, by hand: means, ranges, gaps, overthinking, and what sentences say."""

from __future__ import annotations

from types import SimpleNamespace

import pandas as pd
import pytest
from small_workshop import CATALOGUE, WORLD

from streamrec_lite.common.errors import BadInput
from streamrec_lite.tutorial.tables import workshop as tables


def row(one: float, two: float, three: float, **more) -> dict:
    return {"by_steps": {"1": one, "2": two, "3": three}, **more}


SAMPLED = {"l": {}, "n": {"1": {"1": 0.9, "2": 0.1, "3": 0.3}, "4": {"1": 1.0, "2": 0.9, "3": 0.9}}}


def rows_of(**changes) -> tables.Rows:
    """Two seeds of most models: true thoughts and reinforcement are clearly better."""
    rows = {
        "Oracle": {0: row(1.0, 0.8, 1.0)},
        "Direct": {0: row(0.9, 0.1, 0.0), 1: row(1.0, 0.2, 0.1)},
        "Direct, deeper": {0: row(0.9, 0.0, 0.0), 1: row(0.9, 0.0, 0.0)},
        "Pause tokens": {0: row(0.9, 0.1, 0.1), 1: row(0.9, 0.0, 0.0)},
        "STREAM-Rec-SFT": {0: row(0.9, 0.0, 0.1), 1: row(0.9, 0.0, 0.1)},
        "True thoughts": {0: row(0.9, 0.8, 0.6), 1: row(1.0, 0.6, 0.6)},
        "SFT": {0: row(0.9, 0.1, 0.1, longer=SAMPLED), 1: row(0.9, 0.1, 0.1, longer=SAMPLED)},
        "RL": {0: row(0.9, 0.7, 0.5), 1: row(0.9, 0.7, 0.3), 2: row(0.9, 0.7, 0.3)},
        "More supervision": {0: row(0.9, 0.1, 0.1), 1: row(0.9, 0.2, 0.2)},
    }
    return {**rows, **changes}


def test_accuracy_is_the_mean_over_seeds_with_its_range_and_share_of_the_oracle():
    table = tables.accuracy_by_steps(rows_of(), ("Direct", "ReaRec", "True thoughts"))
    assert table["model"].tolist() == ["Direct"] * 3 + ["True thoughts"] * 3  # ReaRec has no rows
    two = table[(table["model"] == "True thoughts") & (table["steps"] == 2)].iloc[0]
    assert (two["mean"], two["low"], two["high"], two["seeds"]) == (pytest.approx(0.7), 0.6, 0.8, 2)
    assert two["of oracle"] == pytest.approx(0.7 / 0.8)


def test_the_mean_of_equal_seeds_is_inside_their_range():
    row = {"by_steps": {"1": 0.003}}  # numpy's mean of three of them is larger than 0.003
    found = tables.accuracy_by_steps({"Direct": {0: row, 1: row, 2: row}, "Oracle": {0: row}}, ["Direct"])
    assert found.loc[0, "low"] == found.loc[0, "mean"] == found.loc[0, "high"]


def test_the_table_for_readers_by_hand():
    rows = rows_of()
    found = tables.accuracy_table(
        tables.accuracy_by_steps(rows, ["True thoughts"]), rows["Oracle"][0]["by_steps"]
    )
    assert found.columns.tolist() == ["1 step", "2 steps", "3 steps", "2 and more", "of oracle", "seeds"]
    # (70 + 60) / 2 = 65, and the oracle's (80 + 100) / 2 = 90: 72 %
    assert found.loc["True thoughts"].tolist() == [
        "95.0 [90.0, 100.0]", "70.0 [60.0, 80.0]", "60.0 [60.0, 60.0]", "65.0", "72 %", 2,
    ]  # fmt: skip
    assert found.loc["Oracle"].tolist() == ["100.0", "80.0", "100.0", "90.0", "100 %", 1]
    one = {model: {0: found[0]} for model, found in rows.items()}
    table = tables.accuracy_table(tables.accuracy_by_steps(one, ["SFT"]), {"1": 0.0, "2": 0.0, "3": 0.0})
    assert table.loc["SFT"].tolist() == ["90.0", "10.0", "10.0", "10.0", "-", 1]


def test_a_gap_is_taken_seed_by_seed_on_two_steps_and_more():
    found = tables.gap(rows_of(), "RL", "SFT")  # 0.6 - 0.1, 0.5 - 0.1; SFT has no seed 2
    assert found == (pytest.approx(0.45), pytest.approx(0.4), pytest.approx(0.5), 2)
    assert found.clear and str(found) == "+45 points (+40 to +50 in 2 seeds)"
    small = tables.gap(rows_of(RL={0: row(0, 0.2, 0.19)}), "RL", "SFT")
    assert not small.clear and str(small) == "+10 points"
    assert not tables.gap(rows_of(RL={0: row(0, 0.9, 0.9), 1: row(0, 0.1, 0.1)}), "RL", "SFT").clear


def test_the_best_of_some_models():
    assert tables.best_of(rows_of(), tables.NO_THOUGHTS) == "Direct"  # 0.1 against 0 and 0.05
    assert tables.mean_accuracy(rows_of(), "Direct") == pytest.approx(0.1)


def longer(by_l: dict, by_n: dict) -> dict:
    return row(0, 0, 0, longer={"l": by_l, "n": by_n})


def test_thinking_longer_is_the_mean_over_seeds():
    first = longer({"0": {"1": 0.2, "2": 0.0}, "1": {"1": 1.0, "2": 0.2}}, {"4": {"1": 0.5, "2": 0.5}})
    second = longer({"0": {"1": 0.4, "2": 0.0}, "1": {"1": 0.8, "2": 0.0}}, {"4": {"1": 0.7, "2": 0.1}})
    found = tables.thinking_longer({"RL": {0: first, 3: second}}, "RL")
    assert found["l"].index.tolist() == [0, 1] and found["l"].columns.tolist() == [1, 2]
    assert found["l"].to_numpy().ravel().tolist() == pytest.approx([0.3, 0.0, 0.9, 0.1])
    assert found["n"].loc[4].tolist() == pytest.approx([0.6, 0.3])


def test_overthinking_by_hand():
    by_l = pd.DataFrame({1: [0.1, 0.9, 0.9, 0.4], 2: [0.0, 0.2, 0.7, 0.8]}, index=[0, 1, 2, 3])
    table = tables.overthinking_table(by_l)
    assert table.loc[1].tolist() == [0.9, 0.4, pytest.approx(0.5), 1, 0.9]
    assert table.loc[2].tolist() == [0.7, 0.8, pytest.approx(-0.1), 3, 0.8]
    worse, same = tables.overthinking_findings({"SFT": by_l, "RL": by_l[[2]]})
    assert worse == "SFT overthinks: with 3 thoughts it loses 50 points where 1 would be enough."
    assert same == "RL: more thoughts than steps cost no more than 10 points."


def test_a_prediction_is_judged():
    assert tables.judge_guess(None, 0.5) == (
        "Measured: 50 %. You wrote no prediction; change None and run again."
    )
    assert tables.judge_guess(58, 0.5) == "Measured: 50 %. You said 58 %: close, 8 points away."
    assert tables.judge_guess(90, 0.5) == "Measured: 50 %. You said 90 %: not close, 40 points away."


def test_lessons_say_what_the_figures_show():
    first, second, third = tables.lessons(rows_of())
    assert first.startswith("Thinking pays when there is something to compute.")
    assert "True thoughts reach 95 %, Direct reaches 95 %: there is nothing to compute." in first
    assert first.endswith("+55 points (+45 to +65 in 2 seeds).")  # 0.7 - 0.05, 0.6 - 0.15
    assert second.startswith("Only the right thoughts pay.")
    assert "Pause tokens, +60 points" in second and "STREAM-Rec-SFT, +60 points" in second
    assert "as printed" not in second  # it has no rows
    assert third.startswith("Reinforcement finds the right thoughts")
    assert "Before reinforcement 20 % of the sampled answers were right." in third


def test_lessons_do_not_say_what_the_figures_do_not_show():
    poor = {0: row(0.9, 0.1, 0.1)}
    found = tables.lessons(rows_of(**{"True thoughts": poor, "RL": poor}))
    assert [line.split(".")[0] for line in found] == [
        "This run does not show that thinking pays",
        "This run does not show that only the right thoughts pay",
        "This run does not show that reinforcement finds the right thoughts",
    ]
    control = {0: row(0.9, 0.7, 0.5), 1: row(0.9, 0.7, 0.5)}
    third = tables.lessons(rows_of(**{"More supervision": control}))[2]
    assert third.startswith("Reinforcement finds better thoughts, but not clearly better than supervision.")
    everywhere = {0: row(1.0, 0.9, 0.9), 1: row(1.0, 0.9, 0.9)}
    without = {0: row(0.5, 0.0, 0.0), 1: row(0.5, 0.0, 0.0)}
    names = dict.fromkeys(("Direct", "Direct, deeper", "Pause tokens"), without)
    first = tables.lessons(rows_of(**names, **{"True thoughts": everywhere}))[0]
    assert "even there thoughts are worth something" in first


def test_other_data_sets_are_refused():
    assert tables.world_of(CATALOGUE) is WORLD
    with pytest.raises(BadInput, match=r"dataset 'mine': .*workshop"):
        tables.world_of(SimpleNamespace(name="mine", world=None))


def test_rows_of_other_seeds_are_only_read(monkeypatch):
    asked = []

    def run_workshop(run, seed, train):
        asked.append((seed, train))
        return {"Direct": {"seed": seed}} if seed != 5 else {}

    monkeypatch.setattr(tables, "run_workshop", run_workshop)
    monkeypatch.setattr(tables, "kept_seeds", lambda folder: [0, 5, 7])
    rows = tables.workshop_rows(SimpleNamespace(seeds=(0,), dir=None))
    assert rows == {"Direct": {0: {"seed": 0}, 7: {"seed": 7}}}
    assert asked == [(0, True), (5, False), (7, False)]
