"""The reward explorer without a browser: what is moved in Python changes what is shown."""

from __future__ import annotations

import nbformat
import numpy as np
import pytest
import torch
from places import NOTEBOOKS
from tiny_world import catalogue, small_world

from streamrec_lite.config.reinforcement import GrpoConfig
from streamrec_lite.tutorial.tables import reinforcement as tables
from streamrec_lite.tutorial.widgets import reinforcement as widgets

NOTEBOOK = NOTEBOOKS / "08_reinforcement.ipynb"
CONFIG = GrpoConfig(G=4, K=6)


def explorer_of(dataset):
    model, tokenizer, users = small_world()
    near = (torch.arange(40)[:, None] + torch.arange(1, 7)) % 40
    models = tables.RolloutModels(model, model, tokenizer, near, 2)
    rollouts = {}
    for block in (0, 1):
        found = models.collect(model, users, CONFIG, block)
        table = tables.rollout_table(users, found, CONFIG)
        rollouts[block] = tables.named_rollouts(table, tokenizer, dataset)
    return widgets.RewardExplorer(rollouts, dataset)


@pytest.fixture
def explorer():
    return explorer_of(catalogue())


def test_shows_all_rollouts_and_the_users_own(explorer):
    bars, every, one = explorer.figure.data
    table = explorer.rollouts[0]
    assert np.allclose(bars.x, table["reward"]) and np.allclose(every.y, table["advantage"])
    own = table[table["user"] == explorer.user.value]
    assert np.allclose(one.x, own["reward"]) and len(explorer.rows) == 4
    assert explorer.rows["advantage"].is_monotonic_decreasing
    assert f"<b>thing {own['target'].iloc[0]}</b>" in explorer.text.value


def test_moving_each_control_changes_what_is_shown(explorer):
    first = (explorer.figure.layout.title.text, explorer.text.value, tuple(explorer.figure.data[0].x))
    explorer.block.value = 1
    assert "After 1 blocks" in explorer.figure.layout.title.text
    assert tuple(explorer.figure.data[0].x) != first[2] and explorer.text.value != first[1]
    explorer.reward.value = "likelihood"
    assert np.allclose(explorer.figure.data[1].x, explorer.rollouts[1]["likelihood"])
    assert explorer.figure.layout.xaxis2.title.text == "likelihood of a rollout"
    explorer.user.value = widgets.ALL_USERS
    assert len(explorer.figure.data[2].x) == 0 and "8 best rollouts" in explorer.text.value


def test_titles_are_escaped():
    view = explorer_of(catalogue(title="<script>alert({})</script>"))
    assert "<script>" not in view.text.value and "&lt;script&gt;" in view.text.value
    assert not any("<script>" in text for text in view.figure.data[2].text)


def test_a_figure_and_a_table_follow_the_widget():
    cells = [c.source for c in nbformat.read(NOTEBOOK, as_version=4).cells if c.cell_type == "code"]
    at = next(i for i, source in enumerate(cells) if "RewardExplorer(" in source and "import" not in source)
    assert "save_figure" in cells[at + 1]
    assert "save_figure" not in cells[at + 2]
