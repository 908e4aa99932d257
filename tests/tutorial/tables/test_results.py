"""A finished run read whole: tables from tiny ranks, each number worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch
from result_files import ranks, results

from streamrec_lite.common.errors import BadInput
from streamrec_lite.tutorial.figures import results as fig
from streamrec_lite.tutorial.tables import expected_results as normal
from streamrec_lite.tutorial.tables import results as lessons

LOG2_3 = 1 / math.log2(3)  # N@10 of rank 2


def test_values_of_users_are_means_over_seeds():
    values = lessons.per_user(ranks(), "N@10")
    assert values["TIGER"].tolist() == pytest.approx([1, LOG2_3 / 2, 0, 0, 0, 1 / 3])
    assert values["Markov"].tolist() == pytest.approx([1, 0, LOG2_3, 0, 0, 0])
    assert lessons.per_user(ranks(), "R@5")["TIGER"].tolist() == [1, 0.5, 0, 0, 0, 0]
    with pytest.raises(BadInput, match="unknown metric"):
        lessons.per_user(ranks(), "MRR")


def test_groups_of_lengths_begin_where_they_say():
    groups = lessons.length_groups(torch.tensor([1, 4, 5, 7, 8, 12, 13, 20]))
    assert groups.names == ("1-4", "5-7", "8-12", "13 or more")
    assert groups.of.tolist() == [0, 0, 1, 1, 2, 2, 3, 3] and groups.users.tolist() == [2, 2, 2, 2]
    assert lessons.length_groups(torch.tensor([1, 2, 3]), (1, 2, 3)).names == ("1", "2", "3 or more")


def test_head_and_tail_hold_a_fifth_of_the_interactions():
    # in order: 10 (before: 0), 6 (10), 4 (16), 4 (20), 3 (24), 2 (27), 1 (29), 0 (30); of 30 in all
    counts = torch.tensor([4, 10, 0, 6, 4, 1, 2, 3])
    assert lessons.popularity_bands(counts).tolist() == [1, 0, 2, 1, 1, 2, 2, 2]
    assert lessons.popularity_bands(torch.ones(10, dtype=torch.long)).tolist() == [0] * 2 + [1] * 6 + [2] * 2
    groups = lessons.popularity_groups(torch.tensor([1, 1, 2, 3]), counts)
    assert groups.names == ("head", "middle", "tail") and groups.users.tolist() == [2, 1, 1]


def test_means_and_intervals_by_group():
    groups = lessons.Groups(("a", "nobody", "b"), np.array([0, 0, 0, 0, 2, 2]))
    values = {"A": np.array([1.0, 0, 0, 1, 0.5, 0.5]), "B": np.array([0, 0, 0, 1, 0.5, 0])}
    table = lessons.by_group(values, groups)
    assert table[["model", "group", "users"]].values.tolist() == [
        ["A", "a", 4], ["A", "b", 2], ["B", "a", 4], ["B", "b", 2],
    ]  # fmt: skip
    assert table["mean"].tolist() == [0.5, 0.5, 0.25, 0.25]
    error = math.sqrt((4 * 0.25 / 3) / 4)  # of 1, 0, 0, 1
    assert table["high"][0] == pytest.approx(0.5 + 1.96 * error) and table["low"][1] == 0.5
    gaps = lessons.by_group(values, groups, reference="B")
    assert gaps["model"].unique().tolist() == ["A"] and gaps["mean"].tolist() == [0.25, 0.25]
    assert lessons.wide(table).loc["B"].tolist() == [0.25, 0.25]
    words = lessons.intervals(gaps.assign(low=[-0.1, 0.2], high=[0.6, 0.3]))
    assert words.loc["A"].tolist() == ["+0.2500 [-0.1000, +0.6000]", "+0.2500 [+0.2000, +0.3000]"]
    assert list(words.columns) == list(lessons.wide(table).columns)  # in the order of the groups
    one = lessons.by_group({"A": np.array([1.0])}, lessons.Groups(("a",), np.array([0])))
    assert one["mean"][0] == 1 and math.isnan(one["low"][0])


def test_forest_is_sorted_and_knows_what_is_sure():
    table = lessons.forest(results(), "N@10")
    assert table.index.tolist() == ["TIGER, with rules", "STREAM-Rec-SFT", "Popularity"]
    assert table["sure"].tolist() == [True, False, True]
    assert lessons.forest(results(), "R@10", ["TIGER", "Popularity"]).index.tolist() == ["Popularity"]
    assert lessons.forest(results(), "R@10", []).empty
    touching = results()
    touching["versus_TIGER"]["Popularity"]["N@10"]["high"] = 0.0
    assert not lessons.forest(touching)["sure"]["Popularity"]


def test_agreement_of_two_models_by_hand():
    hit = lessons.hits(ranks())
    assert hit["TIGER"].shape == (2, 6) and hit["Markov"].shape == (1, 6)
    # seed 0: Markov {0, 2}, TIGER {0, 1, 5}: 1 of 4; seed 1: TIGER {0, 5}: 1 of 3; together 2 of 7
    assert lessons.overlap(hit["Markov"], hit["TIGER"]) == pytest.approx(2 / 7)
    table = lessons.overlap_table(hit)
    assert table.loc["TIGER", "Markov"] == table.loc["Markov", "TIGER"] == pytest.approx(2 / 7)
    assert table.loc["TIGER", "TIGER"] == 1 and math.isnan(table.loc["Poor", "Poor"])
    row = lessons.pair_table(hit).loc["Markov"]
    assert row["both"] == pytest.approx(1 / 6) and row["only this one"] == pytest.approx(1 / 6)
    assert row["only TIGER"] == pytest.approx(3 / 12) and row["neither"] == pytest.approx(5 / 12)
    seeds = lessons.between_seeds(hit)
    assert seeds["TIGER"] == pytest.approx(2 / 3) and set(seeds) == {"TIGER", "Poor"}


def test_reach_grows_by_what_is_most_useful():
    table = lessons.reach(lessons.hits(ranks()))
    assert table["model"].tolist() == ["TIGER", "Markov", "Poor"]
    assert table["alone"].tolist() == pytest.approx([5 / 12, 2 / 6, 0])
    # seed 0: {0, 1, 2, 5}, seed 1: {0, 2, 5}
    assert table["at least one"].tolist() == pytest.approx([5 / 12, 7 / 12, 7 / 12])


def test_the_table_says_means_differences_and_costs():
    table = lessons.main_table(results())
    assert table.index.tolist() == [*results()["models"], "*oracle*"]
    row = table.loc["STREAM-Rec-SFT"]
    assert row["N@10"] == "0.2000 ± 0.0100" and row["of oracle"] == "40.0 %" and row["parameters"] == "1,234"
    assert row["N@10 - TIGER [95 %]"] == "-0.1000 [-0.2500, +0.0500]"
    assert table.loc["TIGER", "N@10 - TIGER [95 %]"] == "-" == table.loc["*oracle*", "users/s"]
    without = results()
    del without["oracle"]
    assert "of oracle" not in lessons.main_table(without)


def test_only_the_order_is_compared_with_the_paper():
    table = lessons.paper_table(results())
    assert table.index.tolist() == ["TIGER", "STREAM-Rec-SFT"]
    assert table["place (ours)"].tolist() == [1, 2] and table["place (paper, Scientific)"].tolist() == [2, 1]
    assert table["paper, Instruments"].tolist() == [0.0279, 0.0307] and table["ours"].tolist() == [0.3, 0.2]
    assert lessons.paper_table(results(), "R@5")["paper, Scientific"].tolist() == [0.0240, 0.0249]
    assert lessons.same_order(table) == (0, 1)


def test_tuning_is_shown_where_a_row_has_it():
    assert lessons.tuning_table(results()).empty
    tried = results()
    tries = [{"lr": 3e-3, "valid N@10": 0.3, "epochs": 2}, {"lr": 1e-3, "valid N@10": 0.2, "epochs": 4}]
    tried["models"]["TIGER"]["1"]["tuning"] = tries
    tried["models"]["TIGER"]["0"]["tuning"] = tries  # one tuning serves all seeds: it is shown once
    table = lessons.tuning_table(tried)
    assert table[["model", "lr", "kept"]].values.tolist() == [["TIGER", 3e-3, True], ["TIGER", 1e-3, False]]


def test_main_rows_leave_variants_out_and_keep_tiger():
    assert lessons.main_rows(results()) == ["TIGER", "STREAM-Rec-SFT", "Popularity"]
    low = results()
    low["summary"]["TIGER"]["test"]["N@10"]["mean"] = 0.01
    assert lessons.main_rows(low, most=2) == ["STREAM-Rec-SFT", "TIGER"]


def test_ranges_of_known_data_and_their_borders():
    assert normal.verdict(0.0898, normal.exactly(0.0898, "")) == "in range"
    assert normal.verdict(0.0899, normal.exactly(0.0898, "")) == "above"
    assert normal.verdict(0.089, normal.about(0.1, "")) == "below"
    assert normal.verdict(0.9, normal.at_least(0.0494, "")) == "in range"
    assert normal.known_as(results()) is None and normal.range_table(results()).empty
    shop = results(data={"users": 2500, "items": 600})
    table = normal.range_table(shop).set_index(["model", "metric"])
    assert table.loc[("Popularity", "R@10"), "verdict"] == "above"  # 0.1, where 0.0732 was counted
    assert table.loc[("TIGER", "N@10"), "verdict"] == "below" and len(table) == 6
    for preset in ("smoke", "paper"):  # what lite reached says nothing about them
        assert set(normal.range_table({**shop, "preset": preset})["model"]) == {"Popularity"}
    assert normal.known_as({**shop, "dataset": "shop.csv"}) is None
    sizes = {"users": 8317, "items": 4344}
    assert normal.known_as(results(dataset="amazon-2018:x", data=sizes)) == "scientific-2018"


def test_what_holds_anywhere_is_checked():
    assert normal.check_table(results()).iloc[:, 2:].all().all() and normal.failed(results()) == []
    odd = results()
    odd["summary"]["STREAM-Rec-SFT"]["test"]["N@10"]["mean"] = 0.05
    odd["summary"]["TIGER"]["test"]["N@10"]["mean"] = 0.6
    words = normal.failed(odd)
    assert words == [
        "TIGER: not test near validation (validation 0.3000, test 0.6000)",
        "TIGER: not below the oracle (validation 0.3000, test 0.6000)",
        "STREAM-Rec-SFT: not above Popularity (validation 0.2000, test 0.0500)",
    ]
    del odd["oracle"], odd["summary"]["Popularity"]
    assert normal.check_table(odd).columns.tolist() == ["validation", "test", normal.NEAR]


def test_pictures_have_titles_and_labels():
    groups = lessons.length_groups(torch.tensor([1, 2, 3, 5, 6, 9]))
    table = lessons.by_group(lessons.per_user(ranks()), groups)
    gaps = lessons.by_group(lessons.per_user(ranks()), groups, "TIGER")
    hit = lessons.hits(ranks())
    forest = fig.forest(lessons.forest(results()))
    colours = [
        line.get_markerfacecolor() for line in forest.axes[0].get_lines() if line.get_marker() != "None"
    ]
    assert colours == [fig.GREEN, "white", fig.RED]
    panels = fig.groups(table, "By length", "test N@10")
    assert [axes.get_title() for axes in panels.axes] == ["1-4\n3 users", "5-7\n2 users", "8-12\n1 users"]
    assert panels.get_suptitle() == "By length" and panels.get_supxlabel() == "test N@10"
    fig.groups(gaps, "Minus TIGER", "difference", zero=True)._repr_png_()
    overview = fig.overview(lessons.forest(results()), table, "N@10", "history length")
    for figure in (forest, overview, fig.overlap(lessons.overlap_table(hit)), fig.reach(lessons.reach(hit))):
        assert all(axes.get_title() and axes.get_xlabel() for axes in figure.axes)
        assert figure._repr_png_()[0][:4] == b"\x89PNG"
    looks = {fig.look(number)[:2] for number in range(64)}
    assert len(looks) == 64
    fig.forest(pd.DataFrame(columns=["difference", "low", "high", "p", "sure"]))._repr_png_()


def test_a_difference_that_may_be_chance_looks_different():
    table = pd.DataFrame(
        {"difference": [0.01, -0.02, 0.001], "low": [0.005, -0.03, -0.01], "high": [0.015, -0.01, 0.01]},
        ["better", "worse", "alike"],
    )
    figure = fig.forest(table)
    points = [line for line in figure.axes[0].get_lines() if line.get_marker() in ("^", "v", "s")]
    assert [point.get_marker() for point in points] == ["^", "v", "s"]
    assert [point.get_markerfacecolor() == "white" for point in points] == [False, False, True]
    assert "+0.0100" in [text.get_text() for text in figure.axes[0].texts]
