"""Expected ranges and checks, on results that are made up."""

from __future__ import annotations

from result_files import results

from streamrec_lite.tutorial.tables import expected_results as tables


def test_ranges_of_known_data_and_their_borders():
    assert tables.verdict(0.0898, tables.exactly(0.0898, "")) == "in range"
    assert tables.verdict(0.0899, tables.exactly(0.0898, "")) == "above"
    assert tables.verdict(0.089, tables.about(0.1, "")) == "below"
    assert tables.verdict(0.9, tables.at_least(0.0494, "")) == "in range"
    assert tables.known_data_set(results()) is None and tables.range_table(results()).empty
    shop = results(data={"users": 2500, "items": 600})
    table = tables.range_table(shop).set_index(["model", "metric"])
    assert table.loc[("Popularity", "R@10"), "verdict"] == "above"  # 0.1, where 0.0732 was counted
    assert table.loc[("TIGER", "N@10"), "verdict"] == "below" and len(table) == 6
    for preset in ("smoke", "paper"):  # what lite reached says nothing tables.about them
        assert set(tables.range_table({**shop, "preset": preset})["model"]) == {"Popularity"}
    assert tables.known_data_set({**shop, "dataset": "shop.csv"}) is None
    sizes = {"users": 8317, "items": 4344}
    assert tables.known_data_set(results(dataset="amazon-2018:x", data=sizes)) == "scientific-2018"


def test_checks_for_any_data():
    assert tables.check_table(results()).iloc[:, 2:].all().all() and tables.failed_checks(results()) == []
    odd = results()
    odd["summary"]["STREAM-Rec-SFT"]["test"]["N@10"]["mean"] = 0.05
    odd["summary"]["TIGER"]["test"]["N@10"]["mean"] = 0.6
    words = tables.failed_checks(odd)
    assert words == [
        "TIGER: not test near validation (validation 0.3000, test 0.6000)",
        "TIGER: not below the oracle (validation 0.3000, test 0.6000)",
        "STREAM-Rec-SFT: not above Popularity (validation 0.2000, test 0.0500)",
    ]
    del odd["oracle"], odd["summary"]["Popularity"]
    assert tables.check_table(odd).columns.tolist() == ["validation", "test", tables.NEAR]
