"""Trajectories agree with the annotator, with greedy thinking, and with sampled trains of thought."""

from __future__ import annotations

import pytest
import torch
from tiny_world import small_world

from streamrec_lite.common.device import derive_seed
from streamrec_lite.data.sequences import iterate_batches
from streamrec_lite.inference.recommender import StreamRec
from streamrec_lite.inference.step_decoder import StepDecoder
from streamrec_lite.inference.thinking import generate_thoughts
from streamrec_lite.model.item_representation import represent_items
from streamrec_lite.training.annotator import STRATEGIES, annotate
from streamrec_lite.tutorial.tables.trajectory import (
    annotated_trajectory,
    item_representations,
    mean_sampled_trajectory,
    own_trajectory,
)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_trajectories_agree_with_the_annotator(strategy):
    model, ids, users = small_world()
    neighbours = torch.arange(1, 41)[:, None].repeat(1, 3) % 40
    traces = annotate(model, ids, users, 5, strategy, neighbours)
    trajectory = annotated_trajectory(
        model, ids, users, 5, strategy=strategy, neighbours=neighbours, batch_size=4
    )
    assert torch.equal(trajectory.thought, traces.thought)
    assert torch.equal(trajectory.rank, traces.rank)
    torch.testing.assert_close(trajectory.norm, traces.norm, atol=1e-5, rtol=0)


def test_gaps_ranks_and_residuals_are_those_of_the_states():
    model, ids, users = small_world()
    trajectory = annotated_trajectory(model, ids, users, 4)
    with torch.no_grad():
        table = represent_items(model, ids, torch.arange(40))
        r = model.residual_head(table[users.target][:, None] - trajectory.s[:, :-1])
    assert torch.equal(item_representations(model, ids), table)
    torch.testing.assert_close(trajectory.r, r, atol=1e-5, rtol=0)
    for row in range(6):
        for i in range(5):
            gap = table[users.target[row]] - trajectory.s[row, i]
            order = (table @ trajectory.s[row, i]).argsort(descending=True).tolist()
            assert float(trajectory.norm[row, i]) == pytest.approx(float(gap.norm()), abs=1e-5)
            assert int(trajectory.rank[row, i]) == 1 + order.index(int(users.target[row]))


@torch.inference_mode()
def test_own_thoughts_are_the_models_greedy_ones():
    model, ids, users = small_world()
    trajectory = own_trajectory(model, ids, users, 4, batch_size=4)
    _, thoughts = StreamRec(model, ids, l=4).answer(users.history, think="greedy")
    assert torch.equal(trajectory.thought, thoughts.token[:, 0])
    states, mask = model.encode_history(ids, users.history)
    thoughts = generate_thoughts(StepDecoder(model, states, mask, "thinking"), 4, "greedy")
    torch.testing.assert_close(trajectory.s, model.states(thoughts.hidden[:, 0]), atol=1e-5, rtol=0)


def test_targets_have_no_part_in_own_thoughts():
    model, ids, users = small_world()
    other = users._replace(target=(users.target + 7) % 40)
    mine, its = (own_trajectory(model, ids, part, 4) for part in (users, other))
    assert torch.equal(mine.thought, its.thought) and torch.equal(mine.s, its.s)
    assert not torch.equal(mine.norm, its.norm)
    known = annotated_trajectory(model, ids, users, 4)
    assert torch.equal(mine.norm[:, 0], known.norm[:, 0])  # nothing is written yet
    assert not torch.equal(known.thought, annotated_trajectory(model, ids, other, 4).thought)


@torch.inference_mode()
def test_sampled_trajectories_are_the_mean_of_their_states():
    model, ids, users = small_world()
    trajectory = mean_sampled_trajectory(model, ids, users, 3, n=4, batch_size=2, seed=5)
    again = mean_sampled_trajectory(model, ids, users, 3, n=4, batch_size=2, seed=5)
    assert torch.equal(trajectory.s, again.s) and torch.equal(trajectory.thought, again.thought)
    one = own_trajectory(model, ids, users, 3)
    torch.testing.assert_close(trajectory.s[:, 0], one.s[:, 0], atol=1e-5, rtol=0)  # nothing is drawn yet
    assert not torch.allclose(trajectory.s[:, 3], one.s[:, 3], atol=1e-5)
    torch.manual_seed(derive_seed(5, "own together"))
    rows, batch = next(iterate_batches(users, 2))
    states, mask = model.encode_history(ids, batch.history)
    drawn = generate_thoughts(StepDecoder(model, states, mask, "thinking"), 3, "sample", 4)
    mean = torch.stack([model.states(drawn.hidden[:, j]) for j in range(4)]).mean(dim=0)
    torch.testing.assert_close(trajectory.s[rows], mean, atol=1e-5, rtol=0)
    table = item_representations(model, ids)
    scores = trajectory.s[0, 3] @ table.T
    assert int(trajectory.rank[0, 3]) == 1 + int((scores > scores[users.target[0]]).sum())
