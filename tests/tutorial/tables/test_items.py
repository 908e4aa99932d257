"""The tables behind figures and widgets: hand-made values, and the beam against the real one."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from streamrec_lite.common.schemas import Prefixes
from streamrec_lite.data.dataset import Dataset
from streamrec_lite.tutorial.tables import items as tables


def frame(categories):
    n = len(categories)
    return pd.DataFrame(
        {"title": [f"item {i}" for i in range(n)], "brand": "b", "categories": categories, "description": ""}
    )


def dataset_of(categories):
    n = len(categories)
    return Dataset("t", ["u"], [str(i) for i in range(n)], [np.arange(n)], frame(categories))


def test_categories_take_the_first_level_that_tells_items_apart():
    data = dataset_of(["Shop,A,x", "Shop,A,y", "Shop,B", "Shop,B", "Shop"])
    assert tables.categories(data) == ["A", "A", "B", "B", "other"]
    assert tables.categories(data, limit=1) == ["A", "A", "other", "other", "other"]
    assert set(tables.categories(dataset_of(["", "", ""]))) == {"all items"}


def test_history_table_names_the_parts(shop):
    user = tables.user_with_length(shop, 8)
    table = tables.history_table(shop, user)
    assert abs(len(table) - 8) == min(abs(len(s) - 8) for s in shop.sequences)
    assert table["part"].tolist() == ["train"] * (len(table) - 2) + ["validation", "test"]
    assert table["item"].iloc[-1] == shop.item_ids[shop.sequences[user][-1]]


def test_padding_shares_are_ordered_and_right_for_the_widest():
    length = torch.tensor([1, 4] * 8)
    history = torch.zeros(16, 4, dtype=torch.int64)
    table = tables.padding_shares(Prefixes(history, length, length, length), 4, seed=0)
    always, shuffled, bucketed = table["padding"]
    assert always == pytest.approx(1 - 40 / 64)
    assert always >= shuffled >= bucketed == 0


def test_similarities_by_hand():
    x = np.array([[1.0, 0.0], [2.0, 0.0], [0.0, 3.0], [0.0, 1.0]])
    within, between = tables.pair_similarities(x, ["a", "a", "b", "b"], pairs=200)
    assert np.allclose(within, 1) and np.allclose(between, 0)
    table = tables.category_table(x, ["a", "a", "b", "b"])
    assert table["within"].tolist() == [1.0, 1.0] and table["to others"].tolist() == [0.0, 0.0]
    near = tables.nearest_items(dataset_of(["a"] * 4), x, 0, k=2)
    assert near["title"].tolist() == ["item 1", "item 2"]
    assert near["cosine similarity"].tolist() == [1.0, 0.0]


def test_quantisation_by_hand(tiny):
    levels = tables.quantisation_table(tiny, 0)  # z = (4, 1): code 0 leaves (0, 1), code 0 leaves nothing
    assert levels["code"].tolist() == [0, 0] and levels["nearest"].tolist() == [0, 0]
    assert levels["before"].tolist() == pytest.approx([17**0.5, 1.0])
    assert levels["after"].tolist() == pytest.approx([1.0, 0.0])
    assert levels["error"].tolist() == pytest.approx([17**-0.5, 0.0])
    assert levels["items"].tolist() == [2, 1]
    moved = tables.quantisation_table(tiny, 2)  # z = (0, 5): the repair chose (1, 0) instead of (0, 1)
    assert moved["nearest"].tolist() == [1, 0] and moved["code"].tolist() == [1, 1]
    assert moved["after"].tolist() == pytest.approx([1.0, 2**0.5])


def test_partial_sums_and_items_with_a_prefix(tiny):
    assert tables.partial_sums(tiny, 1).tolist() == [[5, 0], [4, 0], [5, 0]]
    assert tables.items_with_prefix(tiny, 3, 1).tolist() == [2]
    assert tables.items_with_prefix(tiny, 3, 2).tolist() == []


def test_collisions_and_repairs(tiny):
    table = tables.collision_table({"before": tiny.raw_codes, "after": tiny.codes})
    assert table.loc["before"].tolist() == [4, 3, 2, 2]
    assert table.loc["after"].tolist() == [4, 4, 0, 1]
    repaired = tables.repaired_items(tiny, dataset_of(["a"] * 4))
    assert repaired.to_numpy().tolist() == [["item 2", "1·0", "1·1"]]


def test_code_usage(tiny):
    table = tables.code_usage(tiny.codes, 2)
    assert table["used"].tolist() == [2, 2] and table["perplexity"].tolist() == pytest.approx([2, 2])
    naive = tables.random_code_usage(tiny, 0)
    assert naive["used"].between(1, 2).all() and naive.equals(tables.random_code_usage(tiny, 0))


def test_project_posteriors_are_probabilities_and_none_without_a_world(shop):
    table = tables.project_posterior(shop, 3)
    assert table.shape[1] == len(shop.sequences[3]) + 1
    assert np.allclose(table.sum(), 1) and (table.to_numpy() >= -1e-12).all()
    prior = tables.project_posterior(shop, 3, limit=1000)[0]
    starts = shop.world.initial_slot[shop.world.initial_slot > 0]
    assert np.allclose(np.sort(prior[prior > 1e-12]), np.sort(starts))
    assert tables.project_posterior(dataset_of(["a"] * 5), 0) is None
