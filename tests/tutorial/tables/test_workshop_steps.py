"""Errands and the steps of models, by hand and against the functions that they are made of."""

from __future__ import annotations

import pytest
import torch
from small_workshop import CATALOGUE, IDS, WORLD, prefixes_of, thinker

from streamrec_lite.common.schemas import Splits
from streamrec_lite.inference.thinking import write_thoughts
from streamrec_lite.training.channel import answers_after
from streamrec_lite.tutorial.tables import workshop_steps as tables
from streamrec_lite.tutorial.tables.trajectory import item_representations, trajectory_of


def test_an_errand_by_hand():
    # Pile from the top: A, B; start at 1: A leads 1 to 2, B leads 2 to 3.
    table = tables.errand_table(WORLD, CATALOGUE, prefixes_of([6, 5, 4, 1]))
    assert table["step"].tolist() == [0, 1, 2]
    assert table["guide"].tolist() == ["-", "guide A", "guide B"]
    assert table["part"].tolist() == ["part 1", "part 2", "part 3"]


def test_the_guides_in_a_table():
    table = tables.guide_table(WORLD, CATALOGUE, 2)
    assert table.index.tolist() == ["part 0", "part 1"]
    assert table["guide A"].tolist() == ["part 1", "part 2"]
    assert table["guide B"].tolist() == ["part 2", "part 0"]


def test_combinations_are_counted_once():
    train = prefixes_of([4, 0], [6, 4, 0], [5, 0], [4, 5, 1])
    test = prefixes_of([4, 0], [5, 4, 1], [4, 5, 1])
    table = tables.combination_table(WORLD, Splits(train, train, test))
    assert table.loc[1].tolist() == [8, 2, 1, 1]
    assert table.loc[2].tolist() == [16, 1, 2, 1]
    assert table.loc[4].tolist() == [64, 0, 0, 0]


def test_steps_taken_by_hand():
    item = torch.tensor([[2, 2, 2], [2, 3, 3], [2, 3, 2], [1, 1, 0]])
    assert tables.steps_taken(item).tolist() == [1, 2, 3, 3]
    assert tables.steps_taken(item[:, :0]).tolist() == [0] * 4
    table = tables.steps_taken_table(item, torch.tensor([1, 1, 2, 1]))
    assert table.loc[1].tolist() == pytest.approx([100 / 3, 100 / 3, 100 / 3])
    assert table.loc[2].tolist() == [0, 0, 100]


def test_a_walk_holds_thoughts_states_and_answers():
    model, users = thinker(3), prefixes_of([6, 5, 4, 1], [4, 0], [5, 5, 4, 2])
    walk = tables.walk_of(model, WORLD, users._replace(target=torch.tensor([0, 0, 0])))
    assert walk.steps.tolist() == [2, 1, 3]
    assert walk.path.tolist() == [[2, 3, 3], [1, 1, 1], [3, 1, 0]]
    thought = write_thoughts(model.model, IDS, users, 3)
    assert torch.equal(walk.item, IDS.items_of(thought[..., None]))
    assert torch.equal(tables.named_items(model, users), walk.item)
    s, t = trajectory_of(model.model, IDS, users, thought).s, item_representations(model.model, IDS)
    assert torch.allclose(walk.residual[:, 0], (t[walk.path[:, 0]] - s[:, 0]).norm(dim=-1))
    assert torch.allclose(walk.residual[:, 3], (t[torch.tensor([3, 1, 0])] - s[:, 3]).norm(dim=-1))
    assert torch.equal(walk.state_item, (s @ t.T).argmax(dim=-1))
    # The goals count, whatever the users bought.
    one = answers_after(model.model, IDS, users, {"one": thought[:, :1]}, 7)["one"]
    assert torch.allclose(walk.probability[:, 1], one.nats.neg().exp())
    assert (walk.probability > 0).all() and (walk.probability < 1).all()


def test_states_that_point_at_the_next_step():
    walk = tables.Walk(
        item=torch.zeros(2, 2, dtype=torch.long),
        path=torch.tensor([[2, 3], [1, 1]]),
        steps=torch.tensor([2, 1]),
        state_item=torch.tensor([[2, 0, 3], [1, 0, 0]]),
        residual=torch.zeros(2, 3),
        probability=torch.zeros(2, 3),
    )
    assert tables.state_share(walk) == 2 / 3  # 2 of 2, not 3, and 1; what follows the goal does not count


def test_a_walk_as_a_table():
    walk = tables.Walk(
        item=torch.tensor([[2, -1]]),
        path=torch.tensor([[2, 3]]),
        steps=torch.tensor([2]),
        state_item=torch.tensor([[6, 0, 3]]),
        residual=torch.tensor([[2.0, 1.5, 0.5]]),
        probability=torch.tensor([[0.125, 0.25, 0.5]]),
    )
    table = tables.walk_table(walk, 0, CATALOGUE)
    assert table["thoughts"].tolist() == [0, 1, 2]
    assert table["thought"].tolist() == ["-", "part 2", "-"]
    assert table["true step"].tolist() == ["-", "part 2", "part 3"]
    assert table["right"].tolist() == ["-", "yes", "no"]
    assert table["state"].tolist() == ["glue", "part 0", "part 3"]
    assert table["residual"].tolist() == [2, 1.5, 0.5] and table["P(goal)"].tolist() == [0.125, 0.25, 0.5]
