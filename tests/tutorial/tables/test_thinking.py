"""Thinking step by step, as tables: they agree with the annotator, and with numbers worked out by hand."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny_world import catalogue, small_world

from streamrec_lite.common.device import derive_seed
from streamrec_lite.common.schemas import FIRST_CODE
from streamrec_lite.data import sequences
from streamrec_lite.data.sequences import iterate_batches
from streamrec_lite.inference.recommender import StreamRec
from streamrec_lite.inference.step_decoder import StepDecoder
from streamrec_lite.inference.thinking import think_ahead
from streamrec_lite.model.backbone import history_tokens
from streamrec_lite.model.item_representation import targets
from streamrec_lite.tokenizer.semantic_ids import token_name
from streamrec_lite.training.annotator import STRATEGIES, annotate, informativeness
from streamrec_lite.tutorial.tables import thinking as explain


def made_up(norm, rank, target=None) -> explain.Walk:
    """A walk of which only gaps (B, l + 1) and ranks matter."""
    norm, rank = torch.tensor(norm), torch.tensor(rank)
    B, steps = norm.shape
    thought = torch.full((B, steps - 1), FIRST_CODE)
    target = torch.zeros(B, dtype=torch.long) if target is None else target
    return explain.Walk(thought, torch.zeros(B, steps, 2), torch.zeros(B, steps - 1, 2), norm, rank, target)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_walks_agree_with_the_annotator(strategy):
    model, ids, users = small_world()
    neighbours = torch.arange(1, 41)[:, None].repeat(1, 3) % 40
    traces = annotate(model, ids, users, 5, strategy, neighbours)
    walk = explain.annotated(model, ids, users, 5, strategy=strategy, neighbours=neighbours, batch_size=4)
    assert torch.equal(walk.thought, traces.thought)
    assert torch.equal(walk.rank, traces.rank)
    torch.testing.assert_close(walk.norm, traces.norm, atol=1e-5, rtol=0)


def test_gaps_ranks_and_residuals_are_those_of_the_states():
    model, ids, users = small_world()
    walk = explain.annotated(model, ids, users, 4)
    with torch.no_grad():
        table = targets(model, ids, torch.arange(40))
        r = model.residual_head(table[users.target][:, None] - walk.s[:, :-1])
    assert torch.equal(explain.item_table(model, ids), table)
    torch.testing.assert_close(walk.r, r, atol=1e-5, rtol=0)
    for row in range(6):
        for i in range(5):
            gap = table[users.target[row]] - walk.s[row, i]
            order = (table @ walk.s[row, i]).argsort(descending=True).tolist()
            assert float(walk.norm[row, i]) == pytest.approx(float(gap.norm()), abs=1e-5)
            assert int(walk.rank[row, i]) == 1 + order.index(int(users.target[row]))


@torch.inference_mode()
def test_own_thoughts_are_the_models_greedy_ones():
    model, ids, users = small_world()
    walk = explain.own(model, ids, users, 4, batch_size=4)
    _, thoughts = StreamRec(model, ids, l=4).answer(users.history, think="greedy")
    assert torch.equal(walk.thought, thoughts.token[:, 0])
    states, mask = model.encode(history_tokens(ids.tokens, users.history))
    thoughts = think_ahead(StepDecoder(model, states, mask, "thinking"), 4, "greedy")
    torch.testing.assert_close(walk.s, model.states(thoughts.hidden[:, 0]), atol=1e-5, rtol=0)


def test_targets_have_no_part_in_own_thoughts():
    model, ids, users = small_world()
    other = users._replace(target=(users.target + 7) % 40)
    mine, its = (explain.own(model, ids, part, 4) for part in (users, other))
    assert torch.equal(mine.thought, its.thought) and torch.equal(mine.s, its.s)
    assert not torch.equal(mine.norm, its.norm)
    known = explain.annotated(model, ids, users, 4)
    assert torch.equal(mine.norm[:, 0], known.norm[:, 0])  # nothing is written yet
    assert not torch.equal(known.thought, explain.annotated(model, ids, other, 4).thought)


@torch.inference_mode()
def test_trains_together_are_the_mean_of_their_states():
    model, ids, users = small_world()
    walk = explain.own_together(model, ids, users, 3, n=4, batch_size=2, seed=5)
    again = explain.own_together(model, ids, users, 3, n=4, batch_size=2, seed=5)
    assert torch.equal(walk.s, again.s) and torch.equal(walk.thought, again.thought)
    one = explain.own(model, ids, users, 3)
    torch.testing.assert_close(walk.s[:, 0], one.s[:, 0], atol=1e-5, rtol=0)  # nothing is drawn yet
    assert not torch.allclose(walk.s[:, 3], one.s[:, 3], atol=1e-5)
    torch.manual_seed(derive_seed(5, "own together"))
    rows, batch = next(iterate_batches(users, 2))
    states, mask = model.encode(history_tokens(ids.tokens, batch.history))
    drawn = think_ahead(StepDecoder(model, states, mask, "thinking"), 3, "sample", 4)
    mean = torch.stack([model.states(drawn.hidden[:, j]) for j in range(4)]).mean(dim=0)
    torch.testing.assert_close(walk.s[rows], mean, atol=1e-5, rtol=0)
    table = explain.item_table(model, ids)
    scores = walk.s[0, 3] @ table.T
    assert int(walk.rank[0, 3]) == 1 + int((scores > scores[users.target[0]]).sum())


def test_step_table_says_what_the_walk_holds():
    model, ids, users = small_world()
    walk, table = explain.annotated(model, ids, users, 3), explain.item_table(model, ids)
    for row in range(6):
        steps = explain.step_table(walk, row, ids, catalogue(), table, k=4)
        assert steps["step"].tolist() == [0, 1, 2, 3]
        assert steps["thought"].tolist() == ["-", *(token_name(int(o), 6) for o in walk.thought[row])]
        assert steps["gap"].tolist() == walk.norm[row].tolist()
        assert steps["rank"].tolist() == walk.rank[row].tolist()
        assert np.isnan(steps["residual"][0])
        assert np.allclose(steps["residual"][1:], walk.r[row].norm(dim=1))
        for rank, near in zip(steps["rank"], steps["nearest"], strict=True):
            listed, target = near.split("; "), f"thing {int(users.target[row])}"
            assert len(listed) == 4
            assert (listed.index(target) + 1 if target in listed else 5) == min(rank, 5)


def test_walk_by_hand():
    codes = torch.tensor([[-2.0, 3.0], [-4.0, -1.0], [0.0, -3.0], [0.0, 1.0]])
    t = torch.tensor([[-1.0, 0.0], [-1.0, 2.0], [-2.0, 0.0]])
    walk = explain.hand_walk(torch.tensor([2.0, 3.0]), t, 2, codes, 3)
    assert walk["thought"].tolist() == [-1, 1, 2, 3]
    assert walk["state"].tolist() == [(2, 3), (-2, 2), (-2, -1), (-2, 0)]
    assert walk["left"].tolist() == [(-4, -3), (0, -2), (0, 1), (0, 0)]
    assert walk["gap"].tolist() == [5, 2, 1, 0]
    assert walk["rank"].tolist() == [3, 2, 1, 1]


def test_closest_by_hand():
    table = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 3.0]])
    assert explain.closest(torch.tensor([[1.0, -1.0], [0.0, 1.0]]), table, 2).tolist() == [[0, 2], [2, 1]]
    assert explain.closest(torch.tensor([1.0, 0.0]), table, 9).tolist() == [2, 0, 1]


def test_population_by_hand():
    walk = made_up([[4.0, 1.0], [2.0, 1.0], [3.0, 4.0], [3.0, 2.0]], [[30, 1], [10, 2], [11, 3], [20, 50]])
    table = explain.population(walk)
    assert table["step"].tolist() == [0, 1]
    assert table["mean gap"].tolist() == [3, 2]
    assert table["mean rank"].tolist() == [17.75, 14]
    assert table["median rank"].tolist() == [15.5, 2.5]
    assert table["in first 10 (%)"].tolist() == [25, 75]


def test_the_typical_example_lies_in_the_middle():
    walk = made_up([[9.0, 8.0], [5.0, 4.0], [1.0, 1.0]], [[90, 80], [9, 8], [1, 1]])
    assert explain.typical(walk) == 1
    assert explain.typical(made_up([[1.0, 1.0]], [[3, 3]])) == 0


def test_some_examples_are_the_same_every_time():
    _, _, users = small_world()
    drawn = sequences.sample_examples(users, 3, seed=1)
    assert (
        drawn.n_examples == 3
        and drawn.user.tolist() == sequences.sample_examples(users, 3, seed=1).user.tolist()
    )
    assert drawn.user.tolist() == sorted(set(drawn.user.tolist()))
    assert sequences.sample_examples(users, 99).user.tolist() == users.user.tolist()


def test_saying_has_a_row_a_way_and_step():
    model, ids, users = small_world()
    walks = explain.all_strategies(model, ids, users, 3, torch.arange(40)[:, None].repeat(1, 2))
    table = explain.saying(walks, ids)
    assert table["thoughts"].tolist() == [name for name in STRATEGIES for _ in range(3)]
    for name, part in table.groupby("thoughts"):
        report = informativeness(walks[name].thought, ids, users.target)
        for column, key in (("codes used", "used"), ("entropy",) * 2, ("information",) * 2, ("chance",) * 2):
            assert part[column].tolist() == pytest.approx(report[key])
        assert part["median rank"].tolist() == walks[name].rank[:, 1:].double().quantile(0.5, dim=0).tolist()
    whisper = table[table["thoughts"] == "own-codes"]
    first = whisper.iloc[0]  # the first code itself: it says all there is to say
    assert first["information"] == pytest.approx(first["entropy"])
    assert whisper["own code (%)"].tolist() == [100] * 3 and whisper["repeated (%)"].tolist() == [0] * 3


def test_own_codes_and_repetitions_by_hand():
    _, ids, users = small_world()
    right = ids.tokens[users.target[:2]]  # (2, 3)
    wrong = FIRST_CODE + (right[:, :1] - FIRST_CODE + 1) % 6  # another first code
    thought = torch.cat([right[:, :1], right[:, :1], wrong], dim=1)
    thought[1, 1] = right[1, 2]
    walk = made_up([[0.0] * 4] * 2, [[1] * 4] * 2, users.target[:2])._replace(thought=thought)
    table = explain.saying({"x": walk}, ids)
    assert table["own code (%)"].tolist() == [100, 100, 0]
    assert table["repeated (%)"].tolist() == [0, 50, 0]


class FirstTwo:
    """In place of UMAP, whose compiler takes seconds: the first two numbers, on too many threads."""

    def __init__(self, **settings):
        assert settings["random_state"] == 3 and settings["n_neighbors"] <= 20

    def fit_transform(self, x):
        return self.transform(x)

    def transform(self, x):
        torch.set_num_threads(torch.get_num_threads() + 1)
        return x[:, :2]


def test_plane_places_items_and_states(monkeypatch):
    monkeypatch.setitem(sys.modules, "umap", SimpleNamespace(UMAP=FirstTwo))
    threads = torch.get_num_threads()
    table = torch.randn(30, 4, generator=torch.Generator().manual_seed(0))
    plane = explain.Plane(table, most=12, seed=3)
    assert len(plane.rows) == 12 and sorted(set(plane.rows)) == plane.rows.tolist()
    for item in range(30):  # drawn or not
        assert np.allclose(plane.item(item), table[item, :2])
    assert np.allclose(plane.place(table[:5] + 1), table[:5, :2] + 1)
    assert torch.get_num_threads() == threads


@pytest.mark.slow
def test_plane_is_the_same_every_time():
    table = torch.randn(60, 8, generator=torch.Generator().manual_seed(0))
    one, two = explain.Plane(table), explain.Plane(table)
    assert np.array_equal(one.points, two.points)
    states = table[:4] + 0.1
    assert np.array_equal(one.place(states), two.place(states))
    assert np.isfinite(one.place(states)).all()
