"""The table of sources."""

from __future__ import annotations

from streamrec_lite.data.sources import dataset_table


def test_table_of_sources_names_every_kind():
    table = dataset_table()
    kinds = [row["spec"].split(":")[0] for row in table[:4]]
    assert kinds == ["playground", "workshop", "amazon-2018", "amazon-2023"]
    assert all(set(row) == {"spec", "what", "size", "download"} for row in table)
