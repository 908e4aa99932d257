"""Stage 3, one update: sample rollouts, compute their rewards, and the loss of an update on them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..common.device import autocast
from ..common.schemas import Prefixes
from ..config.reinforcement import GrpoConfig
from ..inference.beam_search import answer_beams, answer_log_probs, item_log_probs
from ..inference.step_decoder import StepDecoder
from ..model.backbone import Backbone, answer_inputs
from ..model.item_representation import represent_items
from ..tokenizer.semantic_ids import SemanticTokenizer
from .grpo import (
    Rollouts,
    grpo_loss,
    mean_decoder_state,
    reward_weights,
    rollout_advantages,
    rollout_log_probs,
    rollout_log_probs_and_entropy,
    sample_rollouts,
    token_advantages,
    total_reward,
)
from .rewards import (
    format_reward,
    likelihood_reward,
    match_reward,
    ranking_reward,
    reciprocal_reward,
    similarity_reward,
)

RECIPROCAL_TOP = 10  # the reciprocal reward looks for the target among so many answers, as N@10 does

Encoded = tuple[Tensor, Tensor | None]  # encoder states (B, S, d) and mask (B, S)


@torch.no_grad()
def compute_rewards(
    model: Backbone,
    tokenizer: SemanticTokenizer,
    batch: Prefixes,
    rollouts: Rollouts,
    after_thoughts: StepDecoder,
    reference: Tensor,
    negatives: Tensor,
    config: GrpoConfig,
) -> dict[str, Tensor]:
    """Every reward of each rollout, unweighted: name -> (R,). Costly rewards of weight 0 are left out.

    Args:
        model: the policy.
        tokenizer: gives the items' codes.
        batch: B users with their targets.
        rollouts: R = B*G of them.
        after_thoughts: the decoder as it was after the rollouts' thoughts; it is not changed.
        reference: (B,) log pi_ref of the targets.
        negatives: (B, K) items of similar text to the targets.
        config: which rewards have a weight.
    """
    user, target = rollouts.user, batch.target[rollouts.user]
    with torch.autocast(target.device.type, enabled=False):
        t = represent_items(model, tokenizer, batch.target)
        similarity = similarity_reward(rollouts.state, t, user)
    rewards = {
        "format": format_reward(rollouts.item),
        "match": match_reward(rollouts.answer, tokenizer.tokens[target]),
        "similarity": similarity,
    }
    hidden, decoder = rollouts.hidden, after_thoughts
    if config.ranking_weight > 0 or config.likelihood_weight > 0:
        log_prob = item_log_probs(decoder.copy(), tokenizer, hidden, target[:, None])[:, 0]
        rewards["likelihood"] = likelihood_reward(log_prob, reference[user], config.likelihood_bound)
        if config.ranking_weight > 0:  # negatives that fall below the target's log_prob stop early
            others = item_log_probs(decoder.copy(), tokenizer, hidden, negatives[user], log_prob)
            rewards["ranking"] = ranking_reward(log_prob, others)
    if config.reciprocal_weight > 0:
        beams = answer_beams(decoder.copy(), tokenizer.trie, hidden, RECIPROCAL_TOP, RECIPROCAL_TOP)
        rewards["reciprocal"] = reciprocal_reward(beams.item, target)
    return rewards


class RolloutBatch(NamedTuple):
    """A batch of rollouts with everything that updates on it need."""

    rollouts: Rollouts
    rewards: dict[str, Tensor]  # unweighted, (R,) each
    finetuned: Tensor  # (R, l + m) log-probabilities by the fine-tuned model, for the KL term
    old: Tensor | None  # (R, l + m) by the policy that sampled; None: the policy that is updated is the same


@torch.no_grad()
def collect_rollouts(
    model: Backbone,
    finetuned: Backbone,
    tokenizer: SemanticTokenizer,
    batch: Prefixes,
    reference: Tensor,
    negatives: Tensor,
    l: int,
    config: GrpoConfig,
    encoded: Encoded | None = None,
) -> RolloutBatch:
    """Let ``model`` sample G rollouts for each user of ``batch``, and compute their rewards.

    Both happen in ``config.rollout_precision``, which only changes which rollouts chance draws. The
    log-probabilities of ratios and of the KL term are not taken from there: they come from teacher-forced
    passes in one precision.

    Args:
        model: the policy, in ``eval`` mode.
        finetuned: the fine-tuned model, which the KL term refers to.
        tokenizer: gives the items' codes.
        batch: B users with their targets.
        reference: (B,) log pi_ref of the targets.
        negatives: (B, K) items of similar text to the targets.
        l: thoughts of each rollout.
        config: rewards, sizes, temperature and precision.
        encoded: ``model.encode_history`` of the histories, if it has been computed.
    """
    states, mask = encoded or model.encode_history(tokenizer, batch.history)
    temperature = config.temperature
    with autocast(batch.target.device, config.rollout_precision):
        rollouts, after_thoughts = sample_rollouts(model, tokenizer, states, mask, l, config.G, temperature)
        if config.similarity_state == "mean":
            rollouts = rollouts._replace(state=mean_decoder_state(model, states, mask, rollouts))
        rewards = compute_rewards(
            model, tokenizer, batch, rollouts, after_thoughts, reference, negatives, config
        )
    finetuned_encoded = finetuned.encode_history(tokenizer, batch.history)
    by_finetuned = rollout_log_probs(finetuned, tokenizer, *finetuned_encoded, rollouts, temperature)
    old = None
    if config.updates_per_batch > 1 or config.dropout == "on":
        old = rollout_log_probs(model, tokenizer, states, mask, rollouts, temperature)
    return RolloutBatch(rollouts, rewards, by_finetuned, old)


def update_losses(
    model: Backbone,
    tokenizer: SemanticTokenizer,
    batch: Prefixes,
    collected: RolloutBatch,
    config: GrpoConfig,
    encoded: Encoded | None = None,
) -> dict[str, Tensor]:
    """The loss of one update on collected rollouts (eq. 20), and statistics for the log.

    Args:
        model: the policy.
        tokenizer: gives the items' codes.
        batch: the B users of the rollouts.
        collected: their rollouts and rewards.
        config: weights, clip and KL term.
        encoded: ``model.encode_history`` of the histories, with gradients, if it has been computed.
    """
    states, mask = encoded or model.encode_history(tokenizer, batch.history)
    rollouts, tau = collected.rollouts, config.temperature
    log_prob, entropy = rollout_log_probs_and_entropy(model, tokenizer, states, mask, rollouts, tau)
    l, m = rollouts.thought.shape[1], rollouts.answer.shape[1]
    advantage = token_advantages(collected.rewards, l, m, config)
    old = log_prob.detach() if collected.old is None else collected.old
    by_finetuned, epsilon, beta = collected.finetuned, config.epsilon, config.beta
    losses = grpo_loss(log_prob, old, by_finetuned, advantage, epsilon, beta, config.ratio)
    if config.target_likelihood_weight > 0:
        nll = target_nll(model, tokenizer, batch, states, mask, rollouts, config)
        losses["loss"] = losses["loss"] + config.target_likelihood_weight * nll
        losses["answer"] = nll.detach()
    statistics = {"advantage std": advantage.std(correction=0), "entropy": entropy.mean()}
    return {**losses, **statistics, **reward_statistics(collected.rewards, config)}


def target_nll(
    model: Backbone,
    tokenizer: SemanticTokenizer,
    batch: Prefixes,
    states: Tensor,
    mask: Tensor | None,
    rollouts: Rollouts,
    config: GrpoConfig,
) -> Tensor:
    """Mean of -log P(c_j | c_<j, thoughts, history) of the targets' codes, after a quarter of the rollouts.

    The expected likelihood reward (eq. 26) depends on the weights in two ways: through the thoughts that
    are sampled, and through the target's probability after them. GRPO treats rewards as constants, so its
    gradient follows the first way alone. This term follows the second one (ours).

    Args:
        model: the policy.
        tokenizer: gives the items' codes.
        batch: B users with their targets.
        states: (B, S, d) encoder states of the histories.
        mask: (B, S), True = real, or None.
        rollouts: R = B*G of them; their thoughts are read.
        config: G and the temperature.
    """
    count = max(1, config.G // 4)
    thought = rollouts.thought.view(batch.n_examples, config.G, -1)[:, :count].flatten(0, 1)
    items = batch.target.repeat_interleave(count)
    inputs = answer_inputs(model, thought, tokenizer.tokens[items])
    hidden = model.decode_groups(inputs, model.cross_keys_values(states, "thinking", mask), mask)
    return -answer_log_probs(model, tokenizer, hidden[:, -tokenizer.m :], items, config.temperature).mean()


def reward_statistics(rewards: dict[str, Tensor], config: GrpoConfig) -> dict[str, Tensor]:
    """For the log: each reward, unweighted and weighted, their total, and groups without a signal."""
    weights, total = reward_weights(config), total_reward(rewards, config)
    groups = total.view(-1, config.G)
    spread = groups.max(dim=1).values - groups.min(dim=1).values
    log = {f"reward {name}": value.mean() for name, value in rewards.items()}
    log |= {f"weighted {name}": weights[name] * value.mean() for name, value in rewards.items()}
    log |= {f"reward {name} std": value.std(correction=0) for name, value in rewards.items()}
    return log | {
        "reward": total.mean(),
        "reward std": total.std(correction=0),
        "frac_reward_zero_std": (spread == 0).float().mean(),
        "invalid": (rewards["format"] < 0).float().mean(),
        "match depth": rewards["match"].mean(),
    }


def rollout_table(batch: Prefixes, collected: RolloutBatch, config: GrpoConfig) -> list[dict]:
    """One entry a rollout: its thoughts (tokens), answer (item), rewards and advantage."""
    rollouts = collected.rollouts
    advantage = rollout_advantages(collected.rewards, config).tolist()
    total = total_reward(collected.rewards, config).tolist()
    return [
        {
            "user": int(batch.user[row]),
            "target": int(batch.target[row]),
            "thoughts": rollouts.thought[i].tolist(),
            "item": int(rollouts.item[i]),
            **{name: round(float(value[i]), 4) for name, value in collected.rewards.items()},
            "reward": round(total[i], 4),
            "advantage": round(advantage[i], 4),
        }
        for i, row in enumerate(rollouts.user.tolist())
    ]
