"""Tables of thinking: they agree with the trajectories, and with numbers worked out by hand."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny_world import catalogue, small_world

from streamrec_lite.common.schemas import FIRST_CODE
from streamrec_lite.data import sequences
from streamrec_lite.tokenizer.semantic_ids import token_name
from streamrec_lite.training.annotator import STRATEGIES, informativeness
from streamrec_lite.tutorial.tables import thinking as tables
from streamrec_lite.tutorial.tables.trajectory import (
    Trajectory,
    annotated_trajectory,
    item_representations,
    trajectories_by_strategy,
)


def made_up(norm, rank, target=None) -> Trajectory:
    """A trajectory of which only gaps (B, l + 1) and ranks matter."""
    norm, rank = torch.tensor(norm), torch.tensor(rank)
    B, steps = norm.shape
    thought = torch.full((B, steps - 1), FIRST_CODE)
    target = torch.zeros(B, dtype=torch.long) if target is None else target
    return Trajectory(thought, torch.zeros(B, steps, 2), torch.zeros(B, steps - 1, 2), norm, rank, target)


def test_step_table_holds_the_values_of_the_trajectory():
    model, ids, users = small_world()
    trajectory, table = annotated_trajectory(model, ids, users, 3), item_representations(model, ids)
    for row in range(6):
        steps = tables.step_table(trajectory, row, ids, catalogue(), table, k=4)
        assert steps["step"].tolist() == [0, 1, 2, 3]
        assert steps["thought"].tolist() == ["-", *(token_name(int(o), 6) for o in trajectory.thought[row])]
        assert steps["gap"].tolist() == trajectory.norm[row].tolist()
        assert steps["rank"].tolist() == trajectory.rank[row].tolist()
        assert np.isnan(steps["residual"][0])
        assert np.allclose(steps["residual"][1:], trajectory.r[row].norm(dim=1))
        for rank, near in zip(steps["rank"], steps["nearest"], strict=True):
            listed, target = near.split("; "), f"thing {int(users.target[row])}"
            assert len(listed) == 4
            assert (listed.index(target) + 1 if target in listed else 5) == min(rank, 5)


def test_toy_example_by_hand():
    codes = torch.tensor([[-2.0, 3.0], [-4.0, -1.0], [0.0, -3.0], [0.0, 1.0]])
    t = torch.tensor([[-1.0, 0.0], [-1.0, 2.0], [-2.0, 0.0]])
    trajectory = tables.toy_example(torch.tensor([2.0, 3.0]), t, 2, codes, 3)
    assert trajectory["thought"].tolist() == [-1, 1, 2, 3]
    assert trajectory["state"].tolist() == [(2, 3), (-2, 2), (-2, -1), (-2, 0)]
    assert trajectory["left"].tolist() == [(-4, -3), (0, -2), (0, 1), (0, 0)]
    assert trajectory["gap"].tolist() == [5, 2, 1, 0]
    assert trajectory["rank"].tolist() == [3, 2, 1, 1]


def test_closest_items_by_hand():
    table = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 3.0]])
    assert tables.closest_items(torch.tensor([[1.0, -1.0], [0.0, 1.0]]), table, 2).tolist() == [
        [0, 2],
        [2, 1],
    ]
    assert tables.closest_items(torch.tensor([1.0, 0.0]), table, 9).tolist() == [2, 0, 1]


def test_mean_by_step_by_hand():
    trajectory = made_up(
        [[4.0, 1.0], [2.0, 1.0], [3.0, 4.0], [3.0, 2.0]], [[30, 1], [10, 2], [11, 3], [20, 50]]
    )
    table = tables.mean_by_step(trajectory)
    assert table["step"].tolist() == [0, 1]
    assert table["mean gap"].tolist() == [3, 2]
    assert table["mean rank"].tolist() == [17.75, 14]
    assert table["median rank"].tolist() == [15.5, 2.5]
    assert table["in first 10 (%)"].tolist() == [25, 75]


def test_the_median_example_lies_in_the_middle():
    trajectory = made_up([[9.0, 8.0], [5.0, 4.0], [1.0, 1.0]], [[90, 80], [9, 8], [1, 1]])
    assert tables.median_example(trajectory) == 1
    assert tables.median_example(made_up([[1.0, 1.0]], [[3, 3]])) == 0


def test_some_examples_are_the_same_every_time():
    _, _, users = small_world()
    drawn = sequences.sample_examples(users, 3, seed=1)
    assert (
        drawn.n_examples == 3
        and drawn.user.tolist() == sequences.sample_examples(users, 3, seed=1).user.tolist()
    )
    assert drawn.user.tolist() == sorted(set(drawn.user.tolist()))
    assert sequences.sample_examples(users, 99).user.tolist() == users.user.tolist()


def test_information_has_a_row_for_each_source_and_step():
    model, ids, users = small_world()
    trajectories = trajectories_by_strategy(model, ids, users, 3, torch.arange(40)[:, None].repeat(1, 2))
    table = tables.thought_information_table(trajectories, ids)
    assert table["thoughts"].tolist() == [name for name in STRATEGIES for _ in range(3)]
    for name, part in table.groupby("thoughts"):
        report = informativeness(trajectories[name].thought, ids, users.target)
        for column, key in (("codes used", "used"), ("entropy",) * 2, ("information",) * 2, ("chance",) * 2):
            assert part[column].tolist() == pytest.approx(report[key])
        assert (
            part["median rank"].tolist()
            == trajectories[name].rank[:, 1:].double().quantile(0.5, dim=0).tolist()
        )
    own_codes = table[table["thoughts"] == "own-codes"]
    first = own_codes.iloc[0]  # the first code itself: its information is its entropy
    assert first["information"] == pytest.approx(first["entropy"])
    assert own_codes["own code (%)"].tolist() == [100] * 3 and own_codes["repeated (%)"].tolist() == [0] * 3


def test_own_codes_and_repetitions_by_hand():
    _, ids, users = small_world()
    right = ids.tokens[users.target[:2]]  # (2, 3)
    wrong = FIRST_CODE + (right[:, :1] - FIRST_CODE + 1) % 6  # another first code
    thought = torch.cat([right[:, :1], right[:, :1], wrong], dim=1)
    thought[1, 1] = right[1, 2]
    trajectory = made_up([[0.0] * 4] * 2, [[1] * 4] * 2, users.target[:2])._replace(thought=thought)
    table = tables.thought_information_table({"x": trajectory}, ids)
    assert table["own code (%)"].tolist() == [100, 100, 0]
    assert table["repeated (%)"].tolist() == [0, 50, 0]


class FirstTwoDimensions:
    """In place of UMAP, whose compiler takes seconds: the first two numbers, on too many threads."""

    def __init__(self, **settings):
        assert settings["random_state"] == 3 and settings["n_neighbors"] <= 20

    def fit_transform(self, x):
        return self.transform(x)

    def transform(self, x):
        torch.set_num_threads(torch.get_num_threads() + 1)
        return x[:, :2]


def test_plane_places_items_and_states(monkeypatch):
    monkeypatch.setitem(sys.modules, "umap", SimpleNamespace(UMAP=FirstTwoDimensions))
    threads = torch.get_num_threads()
    table = torch.randn(30, 4, generator=torch.Generator().manual_seed(0))
    plane = tables.ItemPlane(table, limit=12, seed=3)
    assert len(plane.rows) == 12 and sorted(set(plane.rows)) == plane.rows.tolist()
    for item in range(30):  # drawn or not
        assert np.allclose(plane.item(item), table[item, :2])
    assert np.allclose(plane.place(table[:5] + 1), table[:5, :2] + 1)
    assert torch.get_num_threads() == threads


@pytest.mark.slow
def test_plane_is_the_same_every_time():
    table = torch.randn(60, 8, generator=torch.Generator().manual_seed(0))
    one, two = tables.ItemPlane(table), tables.ItemPlane(table)
    assert np.array_equal(one.points, two.points)
    states = table[:4] + 0.1
    assert np.array_equal(one.place(states), two.place(states))
    assert np.isfinite(one.place(states)).all()
