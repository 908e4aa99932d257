"""Widgets without a browser: sliders are moved in Python, and what is shown must follow."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from streamrec_lite.tutorial.tables import items as tables
from streamrec_lite.tutorial.widgets import items as widgets


@pytest.fixture
def explorer(ids, shop):
    return widgets.SemanticIdExplorer(ids, shop, item=4)


def test_explorer_agrees_with_the_static_table(explorer, ids):
    levels = tables.quantisation_table(ids, 4)
    assert explorer.figure.get_state()["_widget_data"], "a page without a kernel shows the first level"
    assert explorer.table.equals(levels)
    assert np.allclose(explorer.figure.data[0].y, [levels["before"][0], *levels["after"]])
    assert explorer.level.value == 1 and len(explorer.peers) == levels["items"][0] - 1


def test_moving_the_level_changes_what_is_shown(explorer, ids):
    titles, texts = set(), set()
    for level in range(1, ids.m + 1):
        explorer.level.value = level
        assert explorer.peers.tolist() == tables.items_with_prefix(ids, 4, level).tolist()
        assert explorer.figure.data[0].text[level].endswith("%")
        assert all(t == "" for t in explorer.figure.data[0].text[level + 1 :])
        titles.add(explorer.figure.layout.title.text)
        texts.add(explorer.text.value)
    assert len(titles) == len(texts) == ids.m


def test_choosing_and_searching_items(explorer, shop):
    explorer.item.value = 9
    assert explorer.table.equals(tables.quantisation_table(explorer.tokenizer, 9))
    word = shop.items["title"].iloc[20].split()[-1].lower()
    explorer.search.value = word
    assert word in shop.items["title"].iloc[explorer.item.value].lower()
    assert all(word in label.lower() for label, _ in explorer.item.options)
    chosen = explorer.item.value
    explorer.search.value = "<b>no such thing</b>"
    assert "&lt;b&gt;no such thing" in explorer.text.value and explorer.item.value == chosen


def test_titles_are_escaped(ids, shop):
    import dataclasses

    items = shop.items.assign(title="<script>alert(1)</script>")
    view = widgets.SemanticIdExplorer(ids, dataclasses.replace(shop, items=items), 0)
    view.level.value = 1
    assert "<script>" not in view.text.value and "&lt;script&gt;" in view.text.value


def test_item_map_has_every_item_once():
    points = np.random.default_rng(0).normal(size=(20, 2))
    labels = ["a"] * 12 + ["b"] * 5 + ["other"] * 3
    figure = widgets.interactive_item_map(points, labels, [f"item {i}" for i in range(20)])
    assert sum(len(t.x) for t in figure.data) == 20
    assert [t.name for t in figure.data] == ["a", "b", "other"]
    assert len({t.marker.symbol for t in figure.data}) == 3


def test_a_tokenizer_on_another_device_is_read_from_the_cpu(ids, shop):
    if torch.cuda.is_available():
        view = widgets.SemanticIdExplorer(ids.to("cuda"), shop, 0)
        assert len(view.table) == ids.m
        ids.to("cpu")
