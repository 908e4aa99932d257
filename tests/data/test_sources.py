"""Each source on small files that the tests write, and one line for everything that is wrong with them."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from data_files import ALL, ITEMS, META, RATINGS, ROWS, VECTORS, write_2023, write_shop
from places import SCIENTIFIC
from safetensors.torch import save_file

from streamrec_lite.common.errors import BadInput
from streamrec_lite.config.sections import DataConfig
from streamrec_lite.data import amazon_hub
from streamrec_lite.data.dataset import TEXT_COLUMNS, Dataset, id_order, k_core
from streamrec_lite.data.sources import dataset_table, load_dataset


def read(made: Dataset) -> dict[str, list[str]]:
    return {
        user: [made.item_ids[i] for i in s] for user, s in zip(made.user_ids, made.sequences, strict=True)
    }


def write_2018(folder: Path, inter, item) -> str:
    (folder / "X.inter.json").write_text(json.dumps(inter))
    (folder / "X.item.json").write_text(json.dumps(item))
    return f"amazon-2018:{folder}"


# ---- your own tables


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_table_by_hand(tmp_path, suffix):
    made = load_dataset(write_shop(tmp_path, suffix=suffix), ALL)
    assert read(made) == {"u1": ["c", "a", "b"], "u2": ["a", "c", "b", "a"]}
    assert made.item_ids == ["a", "b", "c", "unused"] and made.n_interactions == 7
    assert made.items.title.tolist() == ["Amplifier", "Guitar", "Cable", "Strings"]
    assert made.items.categories.tolist() == ["Music,Amps", "", "Music,Cables", "Music"]
    assert made.items.brand.tolist() == [""] * 4 and list(made.items.columns) == list(TEXT_COLUMNS)
    assert all(s.dtype == np.int64 for s in made.sequences) and made.embeddings is None


def test_items_nobody_took_leave_with_any_core(tmp_path):
    assert load_dataset(write_shop(tmp_path), DataConfig(k_core=1)).item_ids == ["a", "b", "c"]


@pytest.mark.parametrize("suffix", [".npy", ".safetensors"])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_embeddings_follow_their_items(tmp_path, suffix, dtype):
    spec, path = write_shop(tmp_path), tmp_path / f"shop.embeddings{suffix}"
    if suffix == ".npy":
        np.save(path, VECTORS.astype(dtype))
    else:
        save_file({"embedding": torch.from_numpy(VECTORS).to(getattr(torch, dtype))}, path)
    made = load_dataset(spec, DataConfig(k_core=1))  # rows of c, a, b, unused -> a, b, c
    assert made.embeddings.dtype == np.float32
    assert made.embeddings.tolist() == [[2, 3], [4, 5], [0, 1]]


def test_embeddings_alone_are_enough(tmp_path):
    spec = write_shop(tmp_path, items=ITEMS[["item"]])
    with pytest.raises(BadInput, match="no item has any text"):
        load_dataset(spec, ALL)
    save_file({"e": torch.from_numpy(VECTORS).to(torch.bfloat16)}, tmp_path / "shop.embeddings.safetensors")
    assert load_dataset(spec, ALL).embeddings[0].tolist() == [2, 3]


@pytest.mark.parametrize(
    "times",
    [
        ["2024-01-03", "2024-01-01", "2024-01-02"],
        ["2024-01-01T12:00:02+00:00", "2024-01-01T13:00:00+01:00", "2024-01-01T12:00:01Z"],
        ["3e9", "1", "2.5"],
        ["1600000000000000003", "1600000000000000001", "1600000000000000002"],
    ],
)
def test_kinds_of_time(tmp_path, times):
    rows = [("u", item, time) for item, time in zip("bca", times, strict=True)]
    assert read(load_dataset(write_shop(tmp_path, rows), ALL)) == {"u": ["c", "a", "b"]}


def test_parquet_keeps_types(tmp_path):
    items = pd.DataFrame(
        {"item": [3, 10, 2], "title": ["x", None, "z"], "categories": [["A", "B"], ["C"], []]}
    )
    rows = [(1, 10, "2024-01-02"), (1, 3, "2024-01-01"), (1, 2, "2024-01-03")]
    spec = write_shop(tmp_path, rows, items, ".parquet")
    frame = pd.read_parquet(spec).assign(timestamp=lambda f: pd.to_datetime(f.timestamp))
    frame.to_parquet(spec)
    made = load_dataset(spec, ALL)
    assert made.item_ids == ["2", "3", "10"] and read(made) == {"1": ["3", "10", "2"]}
    assert made.items.title.tolist() == ["z", "x", ""] and made.items.categories.tolist() == ["", "A,B", "C"]


def test_float_ids_of_a_column_with_a_hole_are_integers(tmp_path):
    spec = write_shop(tmp_path, [(1.0, 2.0, 1), (1.0, 2.0, 2), (1.0, 3.0, 3)], ITEMS, ".parquet")
    ITEMS.head(2).assign(item=["2", "3"]).to_parquet(tmp_path / "shop.items.parquet")
    assert read(load_dataset(spec, ALL)) == {"1": ["2", "2", "3"]}


def test_byte_order_mark_and_quotes(tmp_path):
    spec = write_shop(tmp_path)
    (tmp_path / "shop.items.csv").write_text(
        'item,title\na,"Amp, loud ""12"""\nb,Gitarre für Anfänger\nc,Кабель\n', encoding="utf-8-sig"
    )
    titles = load_dataset(spec, ALL).items.title.tolist()
    assert titles == ['Amp, loud "12"', "Gitarre für Anfänger", "Кабель"]


# ---- amazon-2018


def test_2018_by_hand(tmp_path):
    inter = {"10": [7, "9", 7], "2": ["8", 9, 8]}
    item = {"7": {"title": "t7", "categories": ["A", "B"]}, "9": {"brand": None, "title": " t9 "}, "8": {}}
    made = load_dataset(write_2018(tmp_path, inter, item), ALL)
    assert made.name == "amazon-2018:X" and made.user_ids == ["2", "10"] and made.item_ids == ["7", "8", "9"]
    assert read(made) == {"2": ["8", "9", "8"], "10": ["7", "9", "7"]}
    assert made.items.title.tolist() == ["t7", "", "t9"] and made.items.categories.tolist() == ["A,B", "", ""]


@pytest.mark.skipif(not SCIENTIFIC.exists(), reason="the scientific-2018 data set is not here")
def test_scientific_2018():
    spec = f"amazon-2018:{SCIENTIFIC}"
    made = load_dataset(spec)
    assert (made.n_users, made.n_items, made.n_interactions) == (8_317, 4_344, 58_492)
    assert load_dataset(spec, ALL).fingerprint() == made.fingerprint()  # it is 5-core already
    raw = json.loads((SCIENTIFIC / "Scientific.inter.json").read_text())
    assert read(made) == {user: [str(item) for item in taken] for user, taken in raw.items()}
    assert (made.items.description == "").sum() == 123


# ---- amazon-2023, from a folder


def test_2023_by_hand(tmp_path):
    made = load_dataset(write_2023(tmp_path, RATINGS, META), ALL)
    assert read(made) == {"AE1": ["B003", "B001", "B002"], "AE2": ["B001", "B003", "B002"]}
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
    assert len(amazon_hub.CATEGORIES) == 27 and not set(amazon_hub.CATEGORIES) & set(amazon_hub.CATEGORIES_WITHOUT_5CORE)


def test_2023_offline_is_one_line(tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(BadInput, match="the hub must be reachable") as caught:
        load_dataset("amazon-2023:Musical_Instruments")
    assert "\n" not in str(caught.value) and "amazon-2023:CATEGORY@DIR" in str(caught.value)


# ---- order, k-core, hash


def test_order_of_ids():
    assert id_order(["10", "9", "-1"]).tolist() == [2, 1, 0]
    assert id_order(["10", "9", "x"]).tolist() == [0, 1, 2]
    assert id_order(["10", "010"]).tolist() == [1, 0]  # a leading zero: text


def brute_force_core(user, item, k) -> set[int]:
    """The largest subset of rows in which all counts reach k, by looking at every subset."""
    best: set[int] = set()
    for size in range(len(user), 0, -1):
        for rows in itertools.combinations(range(len(user)), size):
            counts = [np.bincount(codes[list(rows)]) for codes in (user, item)]
            if all((c[c > 0] >= k).all() for c in counts):
                return set(rows)
    return best


@pytest.mark.parametrize("seed", range(8))
def test_k_core_is_the_largest(seed):
    rng = np.random.default_rng(seed)
    user, item = rng.integers(0, 4, 11), rng.integers(0, 4, 11)
    for k in (2, 3):
        assert set(np.flatnonzero(k_core(user, item, k))) == brute_force_core(user, item, k)


def test_k_core_repeats_until_nothing_changes():
    """Item 2 falls, then user 1 with it, then item 1: one pass would stop too early."""
    user, item = np.array([0, 0, 1, 1, 2, 2]), np.array([0, 0, 1, 2, 1, 0])
    assert k_core(user, item, 2).tolist() == [True, True, False, False, False, False]
    assert k_core(user, item, 1).all() and k_core(user, item, 0).all()


def test_fingerprint_sees_content_alone(tmp_path):
    one = load_dataset(write_shop(tmp_path), ALL)
    base = one.fingerprint()
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    assert load_dataset(write_shop(moved, suffix=".parquet"), ALL).fingerprint() == base
    changes = [
        dict(rows=[*ROWS, ("u1", "a", 99)]),
        dict(items=ITEMS.assign(title=["Cable", "Amplifier", "Guitar", "String"])),
        dict(items=ITEMS.replace({"unused": "unusee"})),
        dict(items=ITEMS.assign(title=["CableA", "mplifier", "Guitar", "Strings"])),
    ]
    prints = {load_dataset(write_shop(tmp_path, **change), ALL).fingerprint() for change in changes}
    np.save(tmp_path / "shop.embeddings.npy", VECTORS)
    prints.add(load_dataset(write_shop(tmp_path), ALL).fingerprint())
    assert len(prints | {base}) == 6


def test_table_of_sources_names_every_kind():
    table = dataset_table()
    assert [row["spec"].split(":")[0] for row in table[:3]] == ["playground", "amazon-2018", "amazon-2023"]
    assert all(set(row) == {"spec", "what", "size", "download"} for row in table)
