"""Stage 3, reinforcement (section 2.4): rollouts, advantages, and the clipped objective of eq. 20.

For each of B users the policy samples G rollouts, each of l thoughts and an answer of m codes. A rollout's
advantage is its reward relative to the mean of its group, so no critic has to be trained. The policy makes
rollouts of positive advantage likelier. Two terms keep the update small: the clip, relative to the policy
that sampled, and the KL term, relative to the fine-tuned model.
"""

from __future__ import annotations

import operator
from functools import reduce
from typing import NamedTuple

import torch
from torch import Tensor

from ..common.schemas import FIRST_CODE
from ..config.reinforcement import GrpoConfig
from ..inference.beam_search import answer_log_probs
from ..inference.sampling import sample_answers
from ..inference.step_decoder import StepDecoder
from ..inference.thinking import earlier_codes, generate_thoughts
from ..model.backbone import Backbone, answer_inputs
from ..tokenizer.semantic_ids import SemanticTokenizer
from .rewards import ANSWER_REWARDS, REWARD_NAMES


class Rollouts(NamedTuple):
    """R = B*G rollouts, a user's G side by side."""

    user: Tensor  # (R,) int64, row of the batch
    thought: Tensor  # (R, l) int64, code tokens
    answer: Tensor  # (R, m) int64, tokens
    item: Tensor  # (R,) int64, the item that the answer names; -1: none
    log_prob: Tensor  # (R, l + m) of each token, by the policy that sampled it
    state: Tensor  # (R, d) s_l, or what the similarity reward compares in its place
    hidden: Tensor  # (R, d), predicts the answer's first code


@torch.no_grad()
def sample_rollouts(
    model: Backbone,
    tokenizer: SemanticTokenizer,
    states: Tensor,
    mask: Tensor | None,
    l: int,
    G: int,
    temperature: float = 1.0,
) -> tuple[Rollouts, StepDecoder]:
    """Sample G rollouts for each user, with one encoder pass a user and a key-value cache.

    Args:
        model: the policy, in ``eval`` mode.
        tokenizer: gives the items' codes.
        states: (B, S, d) encoder states of the histories.
        mask: (B, S), True = real, or None.
        l: thoughts of each rollout.
        G: rollouts of each user.
        temperature: of the sampling.

    Returns:
        the rollouts, and the decoder as it was after the thoughts, to score other answers with.
    """
    decoder = StepDecoder(model, states, mask, "thinking")
    thoughts = generate_thoughts(decoder, l, "sample", G, temperature)
    after_thoughts = decoder.copy()
    last = thoughts.answer_hidden.flatten(0, 1)
    answer, item, log_prob = sample_answers(decoder, tokenizer.trie, last, temperature)
    with torch.autocast(states.device.type, enabled=False):  # the state's scores are too close for bfloat16
        state = model.state(thoughts.hidden.flatten(0, 1).float().sum(dim=1), l)  # s_l
    user = torch.arange(len(states), device=states.device).repeat_interleave(G)
    log_prob = torch.cat([thoughts.token_log_prob.flatten(0, 1), log_prob], dim=1)
    rollouts = Rollouts(user, thoughts.token.flatten(0, 1), answer, item, log_prob, state, last)
    return rollouts, after_thoughts


@torch.no_grad()
def mean_decoder_state(model: Backbone, states: Tensor, mask: Tensor | None, rollouts: Rollouts) -> Tensor:
    """The mean of the decoder's hidden states of each rollout, thoughts and answer (eq. 24): (R, d) float32.

    Args:
        model: the policy, in ``eval`` mode.
        states: (B, S, d) encoder states of the histories.
        mask: (B, S), True = real, or None.
        rollouts: R = B*G of them.
    """
    inputs = answer_inputs(model, rollouts.thought, rollouts.answer)
    hidden = model.decode_groups(inputs, model.cross_keys_values(states, "thinking", mask), mask)
    return hidden.float().mean(dim=1)


def rollout_log_probs(
    model: Backbone,
    tokenizer: SemanticTokenizer,
    states: Tensor,
    mask: Tensor | None,
    rollouts: Rollouts,
    temperature: float = 1.0,
) -> Tensor:
    """log pi(token | tokens before, history) of the sampled tokens by teacher forcing: (R, l + m).

    Args:
        model: the policy.
        tokenizer: gives the items' codes.
        states: (B, S, d) encoder states of the histories.
        mask: (B, S), True = real, or None.
        rollouts: R = B*G of them.
        temperature: of the sampling.
    """
    return _teacher_forced(model, tokenizer, states, mask, rollouts, temperature)[0]


def rollout_log_probs_and_entropy(
    model: Backbone,
    tokenizer: SemanticTokenizer,
    states: Tensor,
    mask: Tensor | None,
    rollouts: Rollouts,
    temperature: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """``rollout_log_probs``, and the entropy of the thoughts' distributions in nats, (R, l), no gradient.

    Args:
        model: the policy.
        tokenizer: gives the items' codes.
        states: (B, S, d) encoder states of the histories.
        mask: (B, S), True = real, or None.
        rollouts: R = B*G of them.
        temperature: of the sampling.
    """
    log_prob, distributions = _teacher_forced(model, tokenizer, states, mask, rollouts, temperature)
    with torch.no_grad():
        entropy = -(distributions.exp() * distributions.clamp_min(-1e30)).sum(-1)
    return log_prob, entropy


def _teacher_forced(
    model: Backbone,
    tokenizer: SemanticTokenizer,
    states: Tensor,
    mask: Tensor | None,
    rollouts: Rollouts,
    temperature: float,
) -> tuple[Tensor, Tensor]:
    """Log-probabilities of the tokens (R, l + m), and of all codes at each thought (R, l, m*K)."""
    l, m = rollouts.thought.shape[1], rollouts.answer.shape[1]
    inputs = answer_inputs(model, rollouts.thought, rollouts.answer)
    hidden = model.decode_groups(inputs, model.cross_keys_values(states, "thinking", mask), mask)
    if model.config.softmax == "trie":
        answer = answer_log_probs(model, tokenizer, hidden[:, -m:], rollouts.item, temperature)
    else:
        vocabulary = (model.logits(hidden[:, -m:]).float() / temperature).log_softmax(-1)
        answer = vocabulary.gather(-1, rollouts.answer[..., None])[..., 0]
    excluded = None if model.may_repeat_thoughts else earlier_codes(rollouts.thought, model.vocab_size)
    codes = model.thought_log_probs(hidden[:, :l], temperature, excluded)
    thought = codes.gather(-1, (rollouts.thought - FIRST_CODE)[..., None])[..., 0]
    return torch.cat([thought, answer], dim=1), codes


def group_advantages(rewards: Tensor, min_deviation: float = 1e-3) -> Tensor:
    """Rewards (B, G) normalised in each group: mean 0 and standard deviation 1.

    A group of equal rewards, or of one rollout, has advantages of exactly 0. A deviation below
    ``min_deviation`` is replaced by it, so that tiny differences are not magnified.
    """
    centred = rewards - rewards.mean(dim=1, keepdim=True)
    deviation = centred.square().mean(dim=1, keepdim=True).sqrt()
    equal = rewards.max(dim=1, keepdim=True).values == rewards.min(dim=1, keepdim=True).values
    return torch.where(equal, 0.0, centred / deviation.clamp_min(min_deviation))


def reward_weights(config: GrpoConfig) -> dict[str, float]:
    """The weight of each reward, by name."""
    return {name: getattr(config, f"{name}_weight") for name in REWARD_NAMES}


def total_reward(rewards: dict[str, Tensor], config: GrpoConfig) -> Tensor:
    """The weighted sum of rewards of any one shape."""
    weights = reward_weights(config)
    return reduce(operator.add, [weights[name] * value for name, value in rewards.items()])


def rollout_advantages(rewards: dict[str, Tensor], config: GrpoConfig) -> Tensor:
    """The advantage of each rollout, (R,), from its unweighted rewards by name, each (R,).

    ``reward_order``: "sum-first" is the paper's: rewards are added, then normalised in the group.
    "normalise-first" (ours) normalises each reward first, so that none dominates by its scale.
    """
    groups = {name: value.view(-1, config.G) for name, value in rewards.items()}
    if config.reward_order == "sum-first":
        return group_advantages(total_reward(groups, config)).flatten()
    normalised = {name: group_advantages(value) for name, value in groups.items()}
    return total_reward(normalised, config).flatten()


def token_advantages(rewards: dict[str, Tensor], l: int, m: int, config: GrpoConfig) -> Tensor:
    """The advantage of each token, (R, l + m).

    ``credit_assignment``: "rollout" is the paper's: all tokens have the advantage of their rollout.
    "later-rewards" (ours): the tokens of an answer have the advantage of the rewards that depend on it
    (``ANSWER_REWARDS``). The other rewards are fixed by the thoughts, so for the answer they are noise.
    Since the answer's rewards are divided by their own deviation in the group, answers also get larger
    advantages than with "rollout".

    Args:
        rewards: unweighted, by name, each (R,).
        l: thoughts of a rollout.
        m: codes of an answer.
        config: weights, order and credit assignment.
    """
    thought = rollout_advantages(rewards, config)
    answer = thought
    if config.credit_assignment == "later-rewards":
        answer = rollout_advantages({name: rewards[name] for name in ANSWER_REWARDS}, config)
    return torch.cat([thought[:, None].expand(-1, l), answer[:, None].expand(-1, m)], dim=1)


def kl_k3(log_prob: Tensor, reference: Tensor) -> Tensor:
    """The k3 estimate of KL(pi || ref) for tokens sampled from pi: ref/pi - log(ref/pi) - 1, never negative.

    Schulman, "Approximating KL divergence" (2020). Both are log-probabilities of the tokens, of one shape.
    """
    log_ratio = reference - log_prob
    return log_ratio.exp() - log_ratio - 1


def grpo_loss(
    log_prob: Tensor,
    old: Tensor,
    reference: Tensor,
    advantage: Tensor,
    epsilon: float,
    beta: float,
    of: str = "token",
) -> dict[str, Tensor]:
    """Minus the objective of eq. 20, and statistics of its ratios.

    Eq. 20 has one ratio for a whole rollout (``of="rollout"``): the product of its tokens' ratios. Its KL
    term is the sum of the tokens' terms, by the chain rule. The default is the form of its source (Shao et
    al., 2024), one ratio and one KL term for each token, and a mean over all tokens. At the first update on
    a batch the gradients are equal, up to the number of tokens.

    Args:
        log_prob: (R, T) of the tokens, by the policy.
        old: (R, T) by the policy that sampled them.
        reference: (R, T) by the fine-tuned model.
        advantage: (R, T) of the tokens, equal in a rollout if ratios are "rollout"'s.
        epsilon: ratios are clipped to 1 - epsilon and 1 + epsilon.
        beta: weight of the KL term.
        of: "token" or "rollout": what has a ratio.
    """
    log_ratio, kl = log_prob - old, kl_k3(log_prob, reference)
    if of == "rollout":
        log_ratio, advantage, kl = log_ratio.sum(dim=1), advantage[:, 0], kl.sum(dim=1)
    ratio, kl = log_ratio.exp(), kl.mean()
    clipped = ratio.clamp(1 - epsilon, 1 + epsilon)
    surrogate = torch.minimum(ratio * advantage, clipped * advantage).mean()
    low = ((ratio < 1 - epsilon) & (advantage < 0)).float().mean()  # where the clip stops the gradient
    high = ((ratio > 1 + epsilon) & (advantage > 0)).float().mean()
    return {
        "loss": -surrogate + beta * kl,
        "surrogate": surrogate.detach(),
        "kl": kl.detach(),
        "ratio": ratio.detach().mean(),
        "clip_ratio low": low,
        "clip_ratio high": high,
    }
