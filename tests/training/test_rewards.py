"""Each reward against a table worked out by hand, boundaries included."""

from __future__ import annotations

import pytest
import torch

from streamrec_lite.training.rewards import (
    format_reward,
    likelihood_reward,
    match_reward,
    ranking_reward,
    reciprocal_reward,
    similarity_reward,
)


def test_format_punishes_what_names_no_item():
    assert format_reward(torch.tensor([0, 7, -1])).tolist() == [0, 0, -1]


def test_match_counts_up_to_the_first_wrong_code():
    target = torch.tensor([[1, 2, 3, 4]]).expand(6, -1)
    codes = torch.tensor([[1, 2, 3, 4], [1, 2, 3, 0], [1, 2, 0, 4], [1, 0, 3, 4], [0, 2, 3, 4], [0, 0, 0, 0]])
    assert match_reward(codes, target).tolist() == [4, 3, 2, 1, 0, 0]
    with pytest.raises(ValueError, match="target"):
        match_reward(codes, target[:, :3])


def test_similarity_has_the_papers_steps_and_counts_equals():
    """With B = 200 targets on a line, the share g of those not above the own one is exact."""
    t = torch.arange(200.0)[:, None]  # S_ij = j: g_i = (i + 1) / 200
    user = torch.tensor([199, 198, 197, 196, 189, 188, 99, 98, 0])
    states = torch.ones(len(user), 1)
    reward = similarity_reward(states, t, user).tolist()
    shares = [200 / 200, 199 / 200, 198 / 200, 197 / 200, 190 / 200, 189 / 200, 100 / 200, 99 / 200, 1 / 200]
    assert shares[2] == 0.99 and shares[4] == 0.95 and shares[6] == 0.5  # the boundaries themselves
    assert reward == pytest.approx([0.5, 0.5, 0.5, 0.1, 0.1, 0.05, 0.05, -0.1, -0.1])


def test_similarity_of_equal_targets_and_of_one_user():
    same = torch.ones(4, 2)
    assert similarity_reward(torch.ones(4, 2), same, torch.arange(4)).tolist() == [0.5] * 4  # <= in eq. 25
    assert (
        similarity_reward(torch.ones(3, 2), same[:1], torch.zeros(3, dtype=torch.long)).tolist() == [0.5] * 3
    )


def test_likelihood_is_a_difference_in_nats_and_can_be_bounded():
    log_prob, reference = torch.tensor([-1.0, -9.0, -2.0]), torch.tensor([-3.0, -2.0, -2.0])
    assert likelihood_reward(log_prob, reference).tolist() == [2, -7, 0]
    assert likelihood_reward(log_prob, reference, bound=1.5).tolist() == [1.5, -1.5, 0]


@pytest.mark.parametrize(
    "place, reward",
    [
        (1, 0.2),
        (2, 0.1),
        (4, 0.1),
        (5, 0.05),
        (9, 0.05),
        (10, 0),
        (24, 0),
        (25, -0.1),
        (50, -0.1),
        (51, -0.1),
    ],
)
def test_ranking_has_every_branch_and_boundary_of_eq_27(place: int, reward: float):
    """K = 50: 0.1 K = 5, 0.2 K = 10, 0.5 K = 25."""
    negatives = torch.where(torch.arange(50) < place - 1, 1.0, -1.0)[None]
    assert float(ranking_reward(torch.zeros(1), negatives)) == pytest.approx(reward)


def test_an_equal_negative_does_not_push_the_target_down():
    negatives = torch.tensor([[-1.0, -1.0, -torch.inf], [0.0, -1.0, -2.0]])
    assert ranking_reward(torch.tensor([-1.0, -1.0]), negatives).tolist() == pytest.approx([0.2, -0.1])


def test_reciprocal_rank_in_the_list():
    items = torch.tensor([[5, 6, 7], [5, 6, 7], [5, 6, 7], [-1, -1, -1]])
    assert reciprocal_reward(items, torch.tensor([5, 7, 8, 2])).tolist() == pytest.approx([1, 1 / 3, 0, 0])
