"""Tables of reinforcement: one update, the ablation of rewards, recorded rollouts, the log."""

from __future__ import annotations

import dataclasses

import pandas as pd
import pytest
import torch
from tiny_world import catalogue, small_world

from streamrec_lite.common.files import write_json
from streamrec_lite.config.reinforcement import GrpoConfig
from streamrec_lite.tutorial.figures import reinforcement as figures
from streamrec_lite.tutorial.tables import reinforcement as tables

CONFIG = GrpoConfig(G=4, K=6, batch_size=3)


@pytest.fixture
def world():
    model, tokenizer, users = small_world()
    near = (torch.arange(40)[:, None] + torch.arange(1, 7)) % 40
    return tables.RolloutModels(model, model, tokenizer, near, 2), users


def test_one_update_moves_good_rollouts_up_and_bad_ones_down(world):
    models, users = world
    row = tables.user_with_mixed_rollouts(models, users, CONFIG)
    before = {name: value.clone() for name, value in models.model.state_dict().items()}
    table = tables.one_update_table(models, users.select(torch.tensor([row])), catalogue(), CONFIG, lr=1e-3)
    assert len(table) == 4 and table["reward"].nunique() > 1
    few = dataclasses.replace(CONFIG, G=4)
    alone = [users.select(torch.tensor([r])) for r in range(users.n_examples)]
    spread = [float(models.collect(models.model, user, few, 0).rewards["match"].std()) for user in alone]
    assert table["match"].std() == pytest.approx(max(spread))  # what is shown is what was looked for
    assert table["change"].tolist() == pytest.approx((table["log P after"] - table["log P before"]).tolist())
    best, worst = table["advantage"].idxmax(), table["advantage"].idxmin()
    assert table["change"][best] > 0 > table["change"][worst]
    parts = table[["format", "match", "similarity", "likelihood", "ranking"]].sum(axis=1)
    assert table["reward"].tolist() == pytest.approx(parts.tolist(), abs=1e-3)
    for name, value in models.model.state_dict().items():
        assert torch.equal(value, before[name]), name  # the model itself is not changed


def test_ablation_has_a_row_for_each_choice_and_no_change_without_updates(world):
    models, users = world
    table = tables.reward_ablation(models, users, users, CONFIG, updates=0)
    assert (table == 0).all().all()
    assert list(table.index[:3]) == ["all", "without match", "without similarity"]
    assert "ranking alone" in table.index and "format alone" not in table.index
    many = dataclasses.replace(CONFIG, batch_size=6, G=16)
    moved = tables.reward_ablation(models, users, users, many, updates=12, lr=3e-3)
    assert moved.loc["likelihood alone", "likelihood"] > 0.05
    assert moved.loc["match alone", "match"] > 0.05
    figure = figures.plot_reward_ablation(moved)
    assert figure.axes[0].get_title()


def test_rollouts_come_back_with_names_in_the_order_of_blocks(tmp_path, world):
    models, users = world
    found = models.collect(models.model, users, CONFIG, 0)
    rows = tables.rollout_table(users, found, CONFIG)
    rows[0]["item"] = -1
    for block in (10, 0, 2):
        write_json(tmp_path / f"rollouts-{block}.json", rows)
    rollouts = tables.read_rollouts(tmp_path, models.tokenizer, catalogue())
    assert list(rollouts) == [0, 2, 10]
    table = rollouts[0]
    assert table["answer"][0] == "(no item)" and table["answer"][1] == f"thing {table['item'][1]}"
    assert table["thoughts"][0].count(":") == 2
    assert (table["right"] == (table["item"] == table["target"])).all()


def test_the_log_as_a_table_and_a_figure():
    rows = [{"epoch": 0, "valid N@10": 0.2}]
    for block in (1, 2):
        row = {"epoch": block, "valid N@10": 0.2 + 0.01 * block, "reward": 1.0 * block, "reward std": 0.5}
        row |= {"weighted match": 0.8, "kl": 0.01, "entropy": 3.0, "samples_per_second": 10.0}
        rows.append(row)
    table = tables.block_table(rows, tokens=128)
    assert table["rollout tokens/s"].tolist()[1:] == [1280, 1280]
    assert pd.isna(table["reward"][0])
    figure = figures.plot_reinforcement(rows, best=2)
    valid = figure.axes[0].get_lines()[0]
    assert list(valid.get_ydata()) == pytest.approx([0.2, 0.21, 0.22])
    assert all(axes.get_xlabel() for axes in figure.axes[:4])
