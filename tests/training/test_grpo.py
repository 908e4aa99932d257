"""Rollouts, advantages, clip and KL: hand-computed values, and a world with a known best answer."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from tiny_world import small_world

from streamrec_lite.common.schemas import FIRST_CODE
from streamrec_lite.config.reinforcement import GrpoConfig
from streamrec_lite.model.sequences import history_tokens
from streamrec_lite.training.grpo import (
    group_advantages,
    grpo_loss,
    kl_k3,
    rollout_advantages,
    rollout_log_probs,
    rollout_log_probs_and_entropy,
    sample_rollouts,
    token_advantages,
)
from streamrec_lite.training.rewards import match_reward


def test_advantages_by_hand():
    found = group_advantages(torch.tensor([[1.0, 3.0, 5.0, 7.0], [2.0, 2.0, 2.0, 2.0]]))
    deviation = math.sqrt(5)  # of 1, 3, 5, 7
    assert found[0].tolist() == pytest.approx([-3 / deviation, -1 / deviation, 1 / deviation, 3 / deviation])
    assert found[1].tolist() == [0, 0, 0, 0]


def test_advantages_of_one_rollout_of_tiny_and_of_large_equal_rewards():
    assert group_advantages(torch.tensor([[5.0]])).tolist() == [[0]]
    assert group_advantages(torch.full((1, 3), 0.1)).tolist() == [[0, 0, 0]]  # 0.1 is no exact float
    small = group_advantages(torch.tensor([[0.0, 2e-5]]), min_deviation=1e-3)
    assert small[0].tolist() == pytest.approx([-0.01, 0.01])  # 1e-5 / 1e-3: not blown up to 1


def test_sum_then_normalise_and_normalise_then_sum():
    rewards = {"match": torch.tensor([0.0, 4.0]), "ranking": torch.tensor([0.2, -0.1])}

    def found(**changes) -> list[float]:
        return rollout_advantages(rewards, GrpoConfig(G=2, match_weight=1.0, **changes)).tolist()

    assert found(ranking_weight=1.0) == pytest.approx([-1, 1])  # 0.2 and 3.9: match decides
    assert found(ranking_weight=1.0, reward_order="normalise-first") == pytest.approx([0, 0])
    assert found(ranking_weight=0.0, reward_order="normalise-first") == pytest.approx([-1, 1])


def test_with_later_rewards_answers_have_the_advantage_of_the_answers_rewards_alone():
    rewards = {
        "format": torch.zeros(4),
        "match": torch.tensor([0.0, 2.0, 1.0, 1.0]),
        "likelihood": torch.tensor([3.0, -3.0, 0.0, 4.0]),
    }
    ones = {f"{name}_weight": 1.0 for name in rewards}
    config = GrpoConfig(G=2, reward_order="sum-first", credit_assignment="rollout", **ones)
    every = token_advantages(rewards, 2, 1, config)
    assert every.tolist() == [[1, 1, 1], [-1, -1, -1], [-1, -1, -1], [1, 1, 1]]
    config = dataclasses.replace(config, credit_assignment="later-rewards")
    later = token_advantages(rewards, 2, 1, config)
    assert later.tolist() == [[1, 1, -1], [-1, -1, 1], [-1, -1, 0], [1, 1, 0]]


def test_k3_by_hand():
    found = kl_k3(torch.tensor([-1.0, -1.0, -2.0]), torch.tensor([-1.0, -2.0, -1.0]))
    assert found.tolist() == pytest.approx([0, math.exp(-1) + 1 - 1, math.e - 1 - 1])
    assert (kl_k3(torch.randn(100), torch.randn(100)) >= 0).all()


@pytest.mark.parametrize(
    "ratio, advantage, objective, moves",
    [
        (1.0, 2.0, 2.0, True),
        (1.5, 2.0, 2.4, False),  # too far up for a good one: clipped at 1.2
        (1.5, -2.0, -3.0, True),  # a bad one that became likelier: the full penalty
        (0.5, 2.0, 1.0, True),  # a good one that became rarer: pulled back in full
        (0.5, -2.0, -1.6, False),  # too far down for a bad one: clipped at 0.8
    ],
)
def test_clip_on_both_sides_and_for_both_signs(ratio, advantage, objective, moves):
    log_prob = torch.tensor([[math.log(ratio)]], requires_grad=True)
    zero = torch.zeros(1, 1)
    found = grpo_loss(log_prob, zero, log_prob.detach(), torch.tensor([[advantage]]), epsilon=0.2, beta=0.0)
    assert float(found["surrogate"]) == pytest.approx(objective)
    found["loss"].backward()
    assert (float(log_prob.grad) != 0) == moves
    if moves:
        assert float(log_prob.grad) == pytest.approx(-ratio * advantage)
    assert float(found["clip_ratio high"]) == (ratio == 1.5 and advantage > 0)
    assert float(found["clip_ratio low"]) == (ratio == 0.5 and advantage < 0)


def test_the_kl_term_pulls_towards_the_reference():
    log_prob = torch.tensor([[-1.0]], requires_grad=True)
    found = grpo_loss(log_prob, log_prob.detach(), torch.tensor([[-2.0]]), torch.zeros(1, 1), 0.2, beta=0.5)
    found["loss"].backward()
    assert float(found["kl"]) == pytest.approx(math.exp(-1))
    assert float(log_prob.grad) == pytest.approx(0.5 * (1 - math.exp(-1)))  # d k3 = 1 - ref/pi


@pytest.mark.parametrize("softmax", ["trie", "vocabulary"])
@pytest.mark.parametrize("mark", [False, True])
@pytest.mark.parametrize("repeats", [False, True])
def test_what_was_drawn_has_the_probability_of_a_teacher_forced_pass(softmax, mark, repeats):
    model, tokenizer, users = small_world()
    model.config.__dict__["softmax"] = softmax
    try:
        model.reads_answer_token, model.may_repeat_thoughts = mark, repeats
        torch.manual_seed(3)
        states, mask = model.encode_history(tokenizer, users.history)
        rollouts, _ = sample_rollouts(model, tokenizer, states, mask, l=3, G=5, temperature=1.3)
        again, entropy = rollout_log_probs_and_entropy(
            model, tokenizer, states, mask, rollouts, temperature=1.3
        )
    finally:
        model.config.__dict__["softmax"] = "trie"
    assert torch.allclose(again, rollouts.log_prob, atol=1e-5)
    assert (rollouts.thought >= FIRST_CODE).all()
    assert ((entropy > 0) & (entropy < math.log(18) + 1e-5)).all()
    named = rollouts.item >= 0
    assert named.all() == (softmax == "trie")
    assert torch.equal(tokenizer.tokens[rollouts.item[named]], rollouts.answer[named])
    if not repeats:
        assert all(len(set(row)) == 3 for row in rollouts.thought.tolist())


def test_groups_are_decoded_as_if_each_sequence_had_its_own_encoder():
    model, tokenizer, users = small_world()
    states, mask = model.encode_history(tokenizer, users.history)
    inputs = torch.randint(0, model.vocab_size, (18, 5))
    together = model.decode_groups(inputs, model.cross_keys_values(states, "thinking"), mask)
    apart = model.decode(inputs, states.repeat_interleave(3, 0), mask.repeat_interleave(3, 0), "thinking")
    assert torch.allclose(together, apart, atol=1e-5)


@pytest.mark.parametrize("seed", range(10))
def test_the_one_good_answer_is_found_from_a_uniform_policy(seed: int):
    """Eight items, one is right; at first all answers are equally likely. Thoughts come before them."""
    model, tokenizer, users = small_world(n_items=8, m=3, K=2, seed=seed)
    with torch.no_grad():
        model.shared.weight[FIRST_CODE:] = 0.01 * torch.randn_like(model.shared.weight[FIRST_CODE:])
    tokens = history_tokens(tokenizer.tokens, users.history[:1])
    best = tokenizer.tokens[seed % 8].expand(16, -1)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)

    def chance() -> float:
        states, mask = model.encode(tokens)
        rollouts, _ = sample_rollouts(model, tokenizer, states, mask, l=1, G=256)
        return float((rollouts.item == seed % 8).float().mean())

    torch.manual_seed(seed)
    assert chance() == pytest.approx(1 / 8, abs=0.1)
    for _ in range(40):
        states, mask = model.encode(tokens)
        rollouts, _ = sample_rollouts(model, tokenizer, states.detach(), mask, l=1, G=16)
        advantage = group_advantages(match_reward(rollouts.answer, best)[None]).flatten()
        for _ in range(2):
            states, mask = model.encode(tokens)
            log_prob = rollout_log_probs(model, tokenizer, states, mask, rollouts)
            loss = grpo_loss(log_prob, rollouts.log_prob, rollouts.log_prob, advantage[:, None], 0.2, 0.0)[
                "loss"
            ]
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    assert chance() > 0.9
