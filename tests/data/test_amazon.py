"""Amazon 2018: a folder by hand, and the real Scientific data set."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from data_files import ALL, items_of_users
from places import SCIENTIFIC

from streamrec_lite.data.sources import load_dataset


def write_2018(folder: Path, inter, item) -> str:
    (folder / "X.inter.json").write_text(json.dumps(inter))
    (folder / "X.item.json").write_text(json.dumps(item))
    return f"amazon-2018:{folder}"


def test_2018_by_hand(tmp_path):
    inter = {"10": [7, "9", 7], "2": ["8", 9, 8]}
    item = {"7": {"title": "t7", "categories": ["A", "B"]}, "9": {"brand": None, "title": " t9 "}, "8": {}}
    made = load_dataset(write_2018(tmp_path, inter, item), ALL)
    assert made.name == "amazon-2018:X" and made.user_ids == ["2", "10"] and made.item_ids == ["7", "8", "9"]
    assert items_of_users(made) == {"2": ["8", "9", "8"], "10": ["7", "9", "7"]}
    assert made.items.title.tolist() == ["t7", "", "t9"] and made.items.categories.tolist() == ["A,B", "", ""]


@pytest.mark.skipif(not SCIENTIFIC.exists(), reason="the scientific-2018 data set is not here")
def test_scientific_2018():
    spec = f"amazon-2018:{SCIENTIFIC}"
    made = load_dataset(spec)
    assert (made.n_users, made.n_items, made.n_interactions) == (8_317, 4_344, 58_492)
    assert load_dataset(spec, ALL).fingerprint() == made.fingerprint()  # it is 5-core already
    raw = json.loads((SCIENTIFIC / "Scientific.inter.json").read_text())
    assert items_of_users(made) == {user: [str(item) for item in taken] for user, taken in raw.items()}
    assert (made.items.description == "").sum() == 123
