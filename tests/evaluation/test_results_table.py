"""The table in Markdown has both protocols, and says who does not count in the second."""

from __future__ import annotations

from result_files import results

from streamrec_lite.evaluation.results_table import difference_text, new_items_note, table2


def test_users_that_do_not_count_are_said():
    assert "1 of 6 test users took an item again" in new_items_note(results())


def test_both_protocols_stand_side_by_side():
    found = results(seeds=[0, 1])
    for rows in found["models"].values():
        for row in rows.values():
            row["wall_seconds"] = 3.0
    found["summary"]["TIGER"]["test_new"]["N@10"] = {"mean": 0.3456, "sd": None}
    lines = table2(found).splitlines()
    head = next(line for line in lines if line.startswith("| Model"))
    columns = [cell.strip() for cell in head.split("|")]
    row = next(line for line in lines if line.startswith("| TIGER "))
    cells = dict(zip(columns, (cell.strip() for cell in row.split("|")), strict=True))
    assert cells["N@10"] == "0.3000 ± 0.0100" and cells["new N@10"] == "0.3456"
    assert cells["new R@10"] == "0.3000 ± 0.0100" and cells["new N@10 minus TIGER's [95 %]"] == "-"
    best = next(line for line in lines if line.startswith("| *oracle*"))
    assert len(best.split("|")) == len(columns) and best.count("0.5000") == 6


def test_a_difference_as_text():
    gaps = results()["versus_TIGER_new"]
    assert difference_text(gaps, "Popularity") == "-0.2000 [-0.3000, -0.1000]"
    assert difference_text({}, "Popularity") == "-"
