"""Reinforcement in slow motion: what the tables say is what happened."""

from __future__ import annotations

import dataclasses

import pandas as pd
import pytest
import torch
from tiny_world import catalogue, small_world

from streamrec_lite.common.files import write_json
from streamrec_lite.config.sections import GrpoConfig
from streamrec_lite.tutorial.figures import reinforcement as figures_rl
from streamrec_lite.tutorial.tables import reinforcement as lessons_rl

CONFIG = GrpoConfig(G=4, K=6, batch_size=3)


@pytest.fixture
def school():
    model, tokenizer, users = small_world()
    near = (torch.arange(40)[:, None] + torch.arange(1, 7)) % 40
    return lessons_rl.School(model, model, tokenizer, near, 2), users


def test_one_update_moves_good_rollouts_up_and_bad_ones_down(school):
    school, users = school
    row = lessons_rl.mixed_user(school, users, CONFIG)
    before = {name: value.clone() for name, value in school.model.state_dict().items()}
    table = lessons_rl.by_hand(school, users.select(torch.tensor([row])), catalogue(), CONFIG, lr=1e-3)
    assert len(table) == 4 and table["reward"].nunique() > 1
    few = dataclasses.replace(CONFIG, G=4)
    alone = [users.select(torch.tensor([r])) for r in range(users.n_examples)]
    spread = [float(school.collect(school.model, user, few, 0).rewards["match"].std()) for user in alone]
    assert table["match"].std() == pytest.approx(max(spread))  # what is shown is what was looked for
    assert table["moved"].tolist() == pytest.approx((table["log P after"] - table["log P before"]).tolist())
    best, worst = table["advantage"].idxmax(), table["advantage"].idxmin()
    assert table["moved"][best] > 0 > table["moved"][worst]
    parts = table[["format", "match", "similarity", "likelihood", "ranking"]].sum(axis=1)
    assert table["reward"].tolist() == pytest.approx(parts.tolist(), abs=1e-3)
    for name, value in school.model.state_dict().items():
        assert torch.equal(value, before[name]), name  # lessons leave the model alone


def test_ablation_has_a_row_a_mix_and_no_change_without_updates(school):
    school, users = school
    table = lessons_rl.ablation(school, users, users, CONFIG, updates=0)
    assert (table == 0).all().all()
    assert list(table.index[:3]) == ["all", "without match", "without similarity"]
    assert "ranking alone" in table.index and "format alone" not in table.index
    many = dataclasses.replace(CONFIG, batch_size=6, G=16)
    moved = lessons_rl.ablation(school, users, users, many, updates=12, lr=3e-3)
    assert moved.loc["likelihood alone", "likelihood"] > 0.05
    assert moved.loc["match alone", "match"] > 0.05
    figure = figures_rl.ablation(moved)
    assert figure.axes[0].get_title()


def test_sheets_come_back_with_names_in_the_order_of_blocks(tmp_path, school):
    school, users = school
    found = school.collect(school.model, users, CONFIG, 0)
    sheet = lessons_rl.rollout_table(users, found, CONFIG)
    sheet[0]["item"] = -1
    for block in (10, 0, 2):
        write_json(tmp_path / f"rollouts-{block}.json", sheet)
    sheets = lessons_rl.sheets(tmp_path, school.tokenizer, catalogue())
    assert list(sheets) == [0, 2, 10]
    table = sheets[0]
    assert table["answer"][0] == "(no item)" and table["answer"][1] == f"thing {table['item'][1]}"
    assert table["thoughts"][0].count(":") == 2
    assert (table["right"] == (table["item"] == table["target"])).all()


def test_the_log_as_a_table_and_a_picture():
    rows = [{"epoch": 0, "valid N@10": 0.2}]
    for block in (1, 2):
        row = {"epoch": block, "valid N@10": 0.2 + 0.01 * block, "reward": 1.0 * block, "reward std": 0.5}
        row |= {"weighted match": 0.8, "kl": 0.01, "entropy": 3.0, "samples_per_second": 10.0}
        rows.append(row)
    table = lessons_rl.log_table(rows, tokens=128)
    assert table["rollout tokens/s"].tolist()[1:] == [1280, 1280]
    assert pd.isna(table["reward"][0])
    figure = figures_rl.training(rows, best=2)
    valid = figure.axes[0].get_lines()[0]
    assert list(valid.get_ydata()) == pytest.approx([0.2, 0.21, 0.22])
    assert all(axes.get_xlabel() for axes in figure.axes[:4])


def test_shares_and_spread_draw(school):
    school, users = school
    found = school.collect(school.model, users, CONFIG, 0)
    sheet = lessons_rl.rollout_table(users, found, dataclasses.replace(CONFIG))
    frame = lessons_rl.sheet_frame(sheet, school.tokenizer, catalogue())
    assert figures_rl.spread({0: frame, 3: frame}).axes[1].get_title()
    values = {"0.0": {"N@10": 0.1}, "0.5": {"N@10": 0.3}, "1.0": {"N@10": 0.2}}
    figure = figures_rl.shares({"TIGER": values}, {"TIGER": 0.5})
    assert [line.get_ydata() for line in figure.axes[0].get_lines()][1] == [0.3]
