"""Tables of the results from tiny ranks, each number worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from result_files import ranks, results

from streamrec_lite.common.errors import BadInput
from streamrec_lite.tutorial.tables import results as tables

LOG2_3 = 1 / math.log2(3)  # N@10 of rank 2


def test_values_of_users_are_means_over_seeds():
    values = tables.metric_by_user(ranks(), "N@10")
    assert values["TIGER"].tolist() == pytest.approx([1, LOG2_3 / 2, 0, 0, 0, 1 / 3])
    assert values["Markov"].tolist() == pytest.approx([1, 0, LOG2_3, 0, 0, 0])
    assert tables.metric_by_user(ranks(), "R@5")["TIGER"].tolist() == [1, 0.5, 0, 0, 0, 0]
    with pytest.raises(BadInput, match="unknown metric"):
        tables.metric_by_user(ranks(), "MRR")


def test_groups_of_lengths_begin_where_they_say():
    groups = tables.length_groups(torch.tensor([1, 4, 5, 7, 8, 12, 13, 20]))
    assert groups.names == ("1-4", "5-7", "8-12", "13 or more")
    assert groups.of.tolist() == [0, 0, 1, 1, 2, 2, 3, 3] and groups.users.tolist() == [2, 2, 2, 2]
    assert tables.length_groups(torch.tensor([1, 2, 3]), (1, 2, 3)).names == ("1", "2", "3 or more")


def test_head_and_tail_hold_a_fifth_of_the_interactions():
    # in order: 10 (before: 0), 6 (10), 4 (16), 4 (20), 3 (24), 2 (27), 1 (29), 0 (30); of 30 in all
    counts = torch.tensor([4, 10, 0, 6, 4, 1, 2, 3])
    assert tables.popularity_bands(counts).tolist() == [1, 0, 2, 1, 1, 2, 2, 2]
    assert tables.popularity_bands(torch.ones(10, dtype=torch.long)).tolist() == [0] * 2 + [1] * 6 + [2] * 2
    groups = tables.popularity_groups(torch.tensor([1, 1, 2, 3]), counts)
    assert groups.names == ("head", "middle", "tail") and groups.users.tolist() == [2, 1, 1]


def test_means_and_intervals_by_group():
    groups = tables.UserGroups(("a", "nobody", "b"), np.array([0, 0, 0, 0, 2, 2]))
    values = {"A": np.array([1.0, 0, 0, 1, 0.5, 0.5]), "B": np.array([0, 0, 0, 1, 0.5, 0])}
    table = tables.mean_by_group(values, groups)
    assert table[["model", "group", "users"]].values.tolist() == [
        ["A", "a", 4], ["A", "b", 2], ["B", "a", 4], ["B", "b", 2],
    ]  # fmt: skip
    assert table["mean"].tolist() == [0.5, 0.5, 0.25, 0.25]
    error = math.sqrt((4 * 0.25 / 3) / 4)  # of 1, 0, 0, 1
    assert table["high"][0] == pytest.approx(0.5 + 1.96 * error) and table["low"][1] == 0.5
    gaps = tables.mean_by_group(values, groups, reference="B")
    assert gaps["model"].unique().tolist() == ["A"] and gaps["mean"].tolist() == [0.25, 0.25]
    assert tables.group_columns(table).loc["B"].tolist() == [0.25, 0.25]
    words = tables.interval_columns(gaps.assign(low=[-0.1, 0.2], high=[0.6, 0.3]))
    assert words.loc["A"].tolist() == ["+0.2500 [-0.1000, +0.6000]", "+0.2500 [+0.2000, +0.3000]"]
    assert list(words.columns) == list(tables.group_columns(table).columns)  # in the order of the groups
    one = tables.mean_by_group({"A": np.array([1.0])}, tables.UserGroups(("a",), np.array([0])))
    assert one["mean"][0] == 1 and math.isnan(one["low"][0])


def test_differences_are_sorted_and_marked_if_the_interval_excludes_0():
    table = tables.difference_table(results(), "N@10")
    assert table.index.tolist() == ["TIGER, with rules", "STREAM-Rec-SFT", "Popularity"]
    assert table["excludes 0"].tolist() == [True, False, True]
    assert tables.difference_table(results(), "R@10", ["TIGER", "Popularity"]).index.tolist() == [
        "Popularity"
    ]
    assert tables.difference_table(results(), "R@10", []).empty
    new = results()
    new["versus_TIGER_new"]["Popularity"]["N@10"]["mean_difference"] = 0.7
    assert tables.difference_table(new, new=True)["difference"]["Popularity"] == 0.7
    assert tables.difference_table(new)["difference"]["Popularity"] == -0.2
    touching = results()
    touching["versus_TIGER"]["Popularity"]["N@10"]["high"] = 0.0
    assert not tables.difference_table(touching)["excludes 0"]["Popularity"]


def test_agreement_of_two_models_by_hand():
    hit = tables.hits_by_user(ranks())
    assert hit["TIGER"].shape == (2, 6) and hit["Markov"].shape == (1, 6)
    # seed 0: Markov {0, 2}, TIGER {0, 1, 5}: 1 of 4; seed 1: TIGER {0, 5}: 1 of 3; together 2 of 7
    assert tables.overlap(hit["Markov"], hit["TIGER"]) == pytest.approx(2 / 7)
    table = tables.overlap_table(hit)
    assert table.loc["TIGER", "Markov"] == table.loc["Markov", "TIGER"] == pytest.approx(2 / 7)
    assert table.loc["TIGER", "TIGER"] == 1 and math.isnan(table.loc["Poor", "Poor"])
    row = tables.agreement_table(hit).loc["Markov"]
    assert row["both"] == pytest.approx(1 / 6) and row["only this one"] == pytest.approx(1 / 6)
    assert row["only TIGER"] == pytest.approx(3 / 12) and row["neither"] == pytest.approx(5 / 12)
    seeds = tables.overlap_between_seeds(hit)
    assert seeds["TIGER"] == pytest.approx(2 / 3) and set(seeds) == {"TIGER", "Poor"}


def test_coverage_grows_by_the_model_that_adds_most():
    table = tables.coverage_table(tables.hits_by_user(ranks()))
    assert table["model"].tolist() == ["TIGER", "Markov", "Poor"]
    assert table["alone"].tolist() == pytest.approx([5 / 12, 2 / 6, 0])
    # seed 0: {0, 1, 2, 5}, seed 1: {0, 2, 5}
    assert table["at least one"].tolist() == pytest.approx([5 / 12, 7 / 12, 7 / 12])


def test_main_table_has_means_differences_and_costs():
    table = tables.main_table(results())
    assert table.index.tolist() == [*results()["models"], "*oracle*"]
    row = table.loc["STREAM-Rec-SFT"]
    assert row["N@10"] == "0.2000 ± 0.0100" and row["of oracle"] == "40.0 %" and row["parameters"] == "1,234"
    assert row["N@10 - TIGER [95 %]"] == "-0.1000 [-0.2500, +0.0500]" == row["new N@10 - TIGER [95 %]"]
    assert row["new R@10"] == "0.2000 ± 0.0100" and table.loc["*oracle*", "new N@10"] == "0.5000"
    assert table.loc["TIGER", "N@10 - TIGER [95 %]"] == "-" == table.loc["*oracle*", "users/s"]
    without = results()
    del without["oracle"]
    assert "of oracle" not in tables.main_table(without)


def test_only_the_order_is_compared_with_the_paper():
    table = tables.paper_comparison(results())
    assert table.index.tolist() == ["TIGER", "STREAM-Rec-SFT"]
    assert table["place (ours)"].tolist() == [1, 2] and table["place (paper, Scientific)"].tolist() == [2, 1]
    assert table["paper, Instruments"].tolist() == [0.0279, 0.0307] and table["ours"].tolist() == [0.3, 0.2]
    assert tables.paper_comparison(results(), "R@5")["paper, Scientific"].tolist() == [0.0240, 0.0249]
    assert tables.pairs_in_same_order(table) == (0, 1)


def test_tuning_is_shown_where_a_row_has_it():
    assert tables.tuning_table(results()).empty
    tried = results()
    tries = [{"lr": 3e-3, "valid N@10": 0.3, "epochs": 2}, {"lr": 1e-3, "valid N@10": 0.2, "epochs": 4}]
    tried["models"]["TIGER"]["1"]["tuning"] = tries
    tried["models"]["TIGER"]["0"]["tuning"] = tries  # one tuning serves all seeds: it is shown once
    table = tables.tuning_table(tried)
    assert table[["model", "lr", "kept"]].values.tolist() == [["TIGER", 3e-3, True], ["TIGER", 1e-3, False]]


def test_best_models_leave_variants_out_and_keep_tiger():
    assert tables.best_models(results()) == ["TIGER", "STREAM-Rec-SFT", "Popularity"]
    low = results()
    low["summary"]["TIGER"]["test"]["N@10"]["mean"] = 0.01
    assert tables.best_models(low, limit=2) == ["STREAM-Rec-SFT", "TIGER"]
