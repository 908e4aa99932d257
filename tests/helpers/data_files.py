"""Small data sets, written as files of every kind of source."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd

from streamrec_lite.config.sections import DataConfig
from streamrec_lite.data.dataset import Dataset

ALL = DataConfig(k_core=0)


ROWS = [  # user, item, timestamp: not in order, one exact duplicate, one tie (kept in the file's order)
    ("u2", "b", 30),
    ("u2", "a", 10),
    ("u1", "c", 5),
    ("u1", "a", 7),
    ("u2", "c", 20),
    ("u1", "b", 7),
    ("u2", "a", 40),
    ("u1", "c", 5),
]


ITEMS = pd.DataFrame(
    {
        "item": ["c", "a", "b", "unused"],
        "title": ["Cable", "Amplifier", "Guitar", "Strings"],
        "categories": ["Music,Cables", "Music,Amps", "", "Music"],
    }
)


VECTORS = np.arange(8, dtype=np.float32).reshape(4, 2)


def write_shop(folder: Path, rows=ROWS, items=ITEMS, suffix=".csv") -> str:
    """Write interactions and items as tables; returns the spec."""
    frame = pd.DataFrame(rows, columns=["user", "item", "timestamp"])
    for name, table in ((f"shop{suffix}", frame), (f"shop.items{suffix}", items)):
        if suffix == ".csv":
            table.to_csv(folder / name, index=False)
        else:
            table.to_parquet(folder / name)
    return str(folder / f"shop{suffix}")


def write_2023(folder: Path, ratings: str, meta: list) -> str:
    """Write the two files of an Amazon 2023 category; returns the spec."""
    for name, text in (
        ("benchmark/5core/rating_only/Gift_Cards.csv", ratings),
        ("raw/meta_categories/meta_Gift_Cards.jsonl", "".join(f"{line}\n" for line in meta)),
    ):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return f"amazon-2023:Gift_Cards@{folder}"


RATINGS = """user_id,parent_asin,rating,timestamp
AE2,B002,5.0,1600000000300
AE2,B001,4.0,1600000000100
AE1,B001,5.0,1600000000500
AE2,B003,1.0,1600000000200
AE1,B003,2.0,1600000000400
AE1,B002,2.0,1600000000600
AE1,B002,2.0,1600000000600
"""


META = [
    json.dumps(
        {
            "main_category": "Gift Cards",
            "title": "Card  one",
            "store": "Maker",
            "description": ["First.", "Second."],
            "categories": ["Gift Cards", "Occasions"],
            "details": {"Brand": "Other"},
            "price": "from 5.00",
            "parent_asin": "B001",
        }
    ),
    json.dumps({"title": "never rated", "parent_asin": "B999"}),
    "",
    json.dumps(
        {
            "parent_asin": "B002",
            "title": None,
            "store": None,
            "details": '{"Brand": "Inner"}',
            "categories": [],
            "main_category": "Gift Cards",
            "description": [],
            "price": None,
        }
    ),
    json.dumps({"parent_asin": "B001", "title": "a second row of B001"}),
]


def items_of_users(dataset: Dataset) -> dict[str, list[str]]:
    """User ID -> item IDs, oldest first."""
    return {
        user: [dataset.item_ids[i] for i in sequence]
        for user, sequence in zip(dataset.user_ids, dataset.sequences, strict=True)
    }
