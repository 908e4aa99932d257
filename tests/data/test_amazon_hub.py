"""Amazon 2023, read from a folder that holds copies of the files; the hub refused."""

from __future__ import annotations

import json

import pytest
from data_files import ALL, META, RATINGS, items_of_users, write_2023

from streamrec_lite.common.errors import BadInput
from streamrec_lite.data import amazon_hub
from streamrec_lite.data.sources import load_dataset


def test_2023_by_hand(tmp_path):
    made = load_dataset(write_2023(tmp_path, RATINGS, META), ALL)
    assert items_of_users(made) == {"AE1": ["B003", "B001", "B002"], "AE2": ["B001", "B003", "B002"]}
    assert made.items.to_dict("list") == {
        "title": ["Card one", "", ""],
        "brand": ["Maker", "Inner", ""],
        "categories": ["Gift Cards,Occasions", "Gift Cards", ""],
        "description": ["First. Second.", "", ""],
    }


def test_2023_metadata_that_quotes_another_item(tmp_path):
    """The quick look at a line must not skip a wanted item for an ID inside its text or details."""
    line = json.dumps({"details": {"parent_asin": "B777"}, "title": "kept", "parent_asin": "B003"})
    made = load_dataset(write_2023(tmp_path, RATINGS, [*META, line]), ALL)
    assert made.items.title.tolist() == ["Card one", "", "kept"]


def test_2023_categories_are_known_apart():
    assert len(amazon_hub.CATEGORIES) == 27 and not set(amazon_hub.CATEGORIES) & set(
        amazon_hub.CATEGORIES_WITHOUT_5CORE
    )


def test_2023_offline_is_one_line(tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(BadInput, match="the hub must be reachable") as caught:
        load_dataset("amazon-2023:Musical_Instruments")
    assert "\n" not in str(caught.value) and "amazon-2023:CATEGORY@DIR" in str(caught.value)
