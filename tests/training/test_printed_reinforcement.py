"""Equations 20 to 27 with ``--method printed``, by hand and by passes of their own."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from finetuning import pretrained
from printed import PRINTED, printed_users
from tiny_world import SIZES

from streamrec_lite.common.files import RunLog
from streamrec_lite.common.schemas import BOS
from streamrec_lite.model.item_representation import represent_items
from streamrec_lite.training import loop as training_loop
from streamrec_lite.training.grpo import grpo_loss, token_advantages
from streamrec_lite.training.loop import TrainingJob
from streamrec_lite.training.reinforce import reinforce
from streamrec_lite.training.rewards import (
    format_reward,
    likelihood_reward,
    match_reward,
    ranking_reward,
    similarity_reward,
)
from streamrec_lite.training.rollout_batch import collect_rollouts, update_losses

STAGE_3 = PRINTED.grpo
FLOAT = dataclasses.replace(STAGE_3, rollout_precision="float32", G=3, K=6)


@pytest.mark.parametrize(
    "ratios, advantage, objective, moves",
    [
        ((1.1, 1.05), 2.0, 2.31, True),  # the rollout's ratio is 1.155, within the clip
        ((1.3, 1.2), 2.0, 2.4, False),  # 1.56: clipped at 1.2
        ((1.3, 1.2), -2.0, -3.12, True),  # a bad one that became likelier: the full penalty
        ((1.3, 0.5), -2.0, -1.6, False),  # 0.65: clipped at 0.8, though a token is far above it
    ],
)
def test_eq_20_has_one_ratio_a_rollout(ratios, advantage, objective, moves):
    log_prob = torch.tensor([ratios]).log().requires_grad_()
    old = torch.zeros(1, 2)
    found = grpo_loss(
        log_prob, old, log_prob.detach(), torch.full((1, 2), advantage), 0.2, 0.0, STAGE_3.ratio
    )
    assert float(found["surrogate"]) == pytest.approx(objective)
    assert float(found["ratio"]) == pytest.approx(ratios[0] * ratios[1])
    found["loss"].backward()
    want = -ratios[0] * ratios[1] * advantage if moves else 0.0
    assert log_prob.grad.tolist() == [pytest.approx([want, want])]  # both tokens move alike


def test_eq_20_weighs_the_kl_of_a_whole_rollout_by_beta():
    """Two tokens whose k3 terms are e - 2 and exp(-1): their sum, by the chain rule."""
    log_prob, reference = torch.tensor([[-2.0, -1.0]]), torch.tensor([[-1.0, -2.0]])
    found = grpo_loss(log_prob, log_prob, reference, torch.zeros(1, 2), 0.2, STAGE_3.beta, STAGE_3.ratio)
    kl = (math.e - 2) + math.exp(-1)
    assert float(found["kl"]) == pytest.approx(kl)
    assert float(found["loss"]) == pytest.approx(STAGE_3.beta * kl)


def test_eq_20_is_a_mean_over_rollouts_of_one_advantage_each():
    """Rewards are summed, then normalised in the group: 3 and 5 become -1 and 1, for every token."""
    rewards = {"match": torch.tensor([3.0, 1.0]), "likelihood": torch.tensor([0.0, 4.0])}
    advantage = token_advantages(rewards, 2, 1, dataclasses.replace(STAGE_3, G=2))
    assert advantage.tolist() == [[-1, -1, -1], [1, 1, 1]]
    log_prob = torch.tensor([[0.1, 0.0, 0.0], [0.0, 0.0, 0.1]])
    found = grpo_loss(log_prob, torch.zeros(2, 3), log_prob, advantage, 0.2, 0.0, STAGE_3.ratio)
    assert float(found["surrogate"]) == pytest.approx(0.0, abs=1e-6)  # (-e^0.1 + e^0.1) / 2


def test_eqs_21_to_23_punish_what_names_no_item_and_count_correct_codes():
    """With the softmax over the vocabulary most samples of an untrained model name nothing."""
    assert format_reward(torch.tensor([7, -1])).tolist() == [0, -1]
    codes, target = torch.tensor([[5, 6, 7], [5, 9, 7], [4, 6, 7]]), torch.tensor([[5, 6, 7]]).expand(3, 3)
    assert match_reward(codes, target).tolist() == [3, 1, 0]
    found = small_collection()[-1]
    assert (found.rollouts.item < 0).any()
    assert torch.equal(found.rewards["format"] < 0, found.rollouts.item < 0)


def small_collection():
    model, tokenizer, users, *_ = printed_users()
    torch.manual_seed(2)
    near = (users.target[:, None] + torch.arange(1, 7)) % 40
    reference = torch.tensor([-3.0, -4.0])
    found = collect_rollouts(model, model, tokenizer, users, reference, near, 2, FLOAT)
    return model, tokenizer, users, near, reference, found


@torch.no_grad()
def test_eqs_24_to_27_of_rollouts_by_passes_of_their_own():
    model, tokenizer, users, near, reference, found = small_collection()
    t, rollouts = represent_items(model, tokenizer, users.target), found.rollouts
    for row in range(6):
        user = row // 3
        states, mask = model.encode_history(tokenizer, users.history[user : user + 1])
        thought, answer = rollouts.thought[row], rollouts.answer[row]
        read = torch.cat([torch.tensor([BOS]), thought, answer[:-1]])[None]
        mean = model.decode(read, states, mask, "thinking")[0].mean(dim=0)  # d_0..d_4
        assert torch.allclose(rollouts.state[row], mean, atol=1e-4)
        score = mean @ t.T
        g = (score <= score[user]).float().mean().item()  # 1 or 1/2
        assert found.rewards["similarity"][row].item() == pytest.approx(0.5 if g == 1 else 0.05)
        log_prob = []
        for item in (users.target[user], *near[user]):
            read = torch.cat([torch.tensor([BOS]), thought, tokenizer.tokens[item][:-1]])[None]
            hidden = model.decode(read, states, mask, "thinking")[0, 2:]
            p = (hidden @ model.shared.weight.T / 16**0.5).log_softmax(-1)
            log_prob.append(p[torch.arange(3), tokenizer.tokens[item]].sum().item())
        gain = log_prob[0] - reference[user].item()
        assert found.rewards["likelihood"][row].item() == pytest.approx(gain, abs=1e-4)
        p = 1 + sum(value > log_prob[0] for value in log_prob[1:])
        want = 0.2 if p == 1 else 0.05 if 0.6 <= p < 1.2 else -0.1 if p >= 3 else 0.0
        assert found.rewards["ranking"][row].item() == pytest.approx(want)


def test_eqs_24_and_25_by_hand():
    """Of 100 users' targets 100, 96, 60 and 30 are no more similar than the own one."""
    t = torch.arange(100.0)[:, None]
    user = torch.tensor([99, 95, 59, 29])
    assert similarity_reward(torch.ones(4, 1), t, user).tolist() == pytest.approx([0.5, 0.1, 0.05, -0.1])


def test_eq_26_by_hand_is_not_cut():
    found = likelihood_reward(
        torch.tensor([-1.0, -30.0]), torch.tensor([-3.0, -2.0]), STAGE_3.likelihood_bound
    )
    assert found.tolist() == [2, -28]


def test_eq_27_by_hand_for_50_negatives():
    """Ranks 1, 4, 5, 9, 10, 24, 25: the limits 0.1 K, 0.2 K and 0.5 K are 5, 10 and 25."""
    p = torch.tensor([1, 4, 5, 9, 10, 24, 25])
    negatives = torch.where(torch.arange(50) < p[:, None] - 1, 1.0, -1.0)
    found = ranking_reward(torch.zeros(7), negatives)
    assert found.tolist() == pytest.approx([0.2, 0.1, 0.05, 0.05, 0.0, 0.0, -0.1])


def test_an_update_has_dropout_and_rollouts_have_none():
    model, tokenizer, users, _, _, found = small_collection()
    assert found.old is not None and torch.allclose(found.old, found.rollouts.log_prob, atol=1e-4)
    still = update_losses(model.eval(), tokenizer, users, found, FLOAT)
    assert float(still["ratio"]) == pytest.approx(1.0, abs=1e-3)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.3
    assert abs(float(update_losses(model.train(), tokenizer, users, found, FLOAT)["ratio"]) - 1) > 0.01


def test_the_last_block_is_kept_though_validation_falls(tmp_path, monkeypatch):
    model, tokenizer, splits, near = pretrained()
    changes = {"batches_per_block": 2, "batch_size": 8, "G": 4, "K": 3, "max_epochs": 3, "lr": 1e-3}
    grpo = dataclasses.replace(STAGE_3, **changes)
    config = dataclasses.replace(PRINTED, grpo=grpo, backbone=SIZES)
    real, asked = training_loop.evaluate, []

    def worse(*args, **options):
        found = real(*args, **options)
        asked.append(1)
        return found._replace(metrics={**found.metrics, "N@10": 0.5 - 0.1 * len(asked)})

    monkeypatch.setattr(training_loop, "evaluate", worse)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    result = reinforce(
        model, model, TrainingJob(splits, config, 0, tmp_path, progress=False), tokenizer, near
    )
    assert result.epochs == 3 and result.best["epoch"] == 3
    assert any(not torch.equal(weight, before[name]) for name, weight in result.model.state_dict().items())
    rows = RunLog(tmp_path / "log.jsonl").rows()
    assert all(row["ratio"] != 1 for row in rows[1:])  # four updates a batch, and dropout
    assert 0 <= rows[1]["clip_ratio high"] <= 1
