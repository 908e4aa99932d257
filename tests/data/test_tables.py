"""CSV and Parquet files of small shops, with and without vectors."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from data_files import ALL, ITEMS, VECTORS, items_of_users, write_shop
from safetensors.torch import save_file

from streamrec_lite.common.errors import BadInput
from streamrec_lite.config.sections import DataConfig
from streamrec_lite.data.dataset import TEXT_COLUMNS
from streamrec_lite.data.sources import load_dataset


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_table_by_hand(tmp_path, suffix):
    made = load_dataset(write_shop(tmp_path, suffix=suffix), ALL)
    assert items_of_users(made) == {"u1": ["c", "a", "b"], "u2": ["a", "c", "b", "a"]}
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
    assert items_of_users(load_dataset(write_shop(tmp_path, rows), ALL)) == {"u": ["c", "a", "b"]}


def test_parquet_keeps_types(tmp_path):
    items = pd.DataFrame(
        {"item": [3, 10, 2], "title": ["x", None, "z"], "categories": [["A", "B"], ["C"], []]}
    )
    rows = [(1, 10, "2024-01-02"), (1, 3, "2024-01-01"), (1, 2, "2024-01-03")]
    spec = write_shop(tmp_path, rows, items, ".parquet")
    frame = pd.read_parquet(spec).assign(timestamp=lambda f: pd.to_datetime(f.timestamp))
    frame.to_parquet(spec)
    made = load_dataset(spec, ALL)
    assert made.item_ids == ["2", "3", "10"] and items_of_users(made) == {"1": ["3", "10", "2"]}
    assert made.items.title.tolist() == ["z", "x", ""] and made.items.categories.tolist() == ["", "A,B", "C"]


def test_float_ids_of_a_column_with_a_hole_are_integers(tmp_path):
    spec = write_shop(tmp_path, [(1.0, 2.0, 1), (1.0, 2.0, 2), (1.0, 3.0, 3)], ITEMS, ".parquet")
    ITEMS.head(2).assign(item=["2", "3"]).to_parquet(tmp_path / "shop.items.parquet")
    assert items_of_users(load_dataset(spec, ALL)) == {"1": ["2", "2", "3"]}


def test_byte_order_mark_and_quotes(tmp_path):
    spec = write_shop(tmp_path)
    (tmp_path / "shop.items.csv").write_text(
        'item,title\na,"Amp, loud ""12"""\nb,Gitarre für Anfänger\nc,Кабель\n', encoding="utf-8-sig"
    )
    titles = load_dataset(spec, ALL).items.title.tolist()
    assert titles == ['Amp, loud "12"', "Gitarre für Anfänger", "Кабель"]
