"""Stage 3, reinforcement (section 2.4): rollouts, advantages, and the clipped objective of eq. 20.

For each of B users the policy writes G rollouts, l thoughts and an answer of m codes. A rollout is as
good as its reward is above the mean of its group: no critic has to be learned. The policy moves
towards the better ones, not far from where it wrote them (the clip), and not far from the fine-tuned
model (the KL term).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..common.schemas import FIRST_CODE
from ..inference.beam_search import answer_log_probs
from ..inference.sampling import sample_answers
from ..inference.step_decoder import StepDecoder
from ..inference.thinking import said_before, think_ahead
from ..model.backbone import Backbone, answer_inputs
from .rewards import ANSWERS


class Rollouts(NamedTuple):
    """R = B*G rollouts, a user's G side by side."""

    user: Tensor  # (R,) int64, row of the batch
    thought: Tensor  # (R, l) int64, code tokens
    answer: Tensor  # (R, m) int64, tokens
    item: Tensor  # (R,) int64, what the answer names; -1: nothing
    log_prob: Tensor  # (R, l + m) of each token, by the policy that wrote it
    state: Tensor  # (R, d) s_l
    hidden: Tensor  # (R, d), predicts the answer's first code


@torch.no_grad()
def write_rollouts(
    model: Backbone,
    tokenizer,
    states: Tensor,
    mask: Tensor | None,
    l: int,
    G: int,
    temperature: float = 1.0,
) -> tuple[Rollouts, StepDecoder]:
    """Draw G rollouts for each user: the encoder has run once a user, keys and values are cached.

    Args:
        states, mask: what ``Backbone.encode`` made of the histories, (B, S, d) and (B, S).

    Returns:
        the rollouts, and the decoder as it was after the thoughts, to score other answers with.
    """
    stepper = StepDecoder(model, states, mask, "thinking")
    thoughts = think_ahead(stepper, l, "sample", G, temperature)
    after = stepper.copy()
    last = thoughts.answer.flatten(0, 1)
    answer, item, log_prob = sample_answers(stepper, tokenizer.trie, last, temperature)
    with torch.autocast(states.device.type, enabled=False):  # its scores lie too close for bfloat16
        state = model.state(thoughts.hidden.flatten(0, 1).float().sum(dim=1))  # s_l
    user = torch.arange(len(states), device=states.device).repeat_interleave(G)
    log_prob = torch.cat([thoughts.each.flatten(0, 1), log_prob], dim=1)
    return Rollouts(user, thoughts.token.flatten(0, 1), answer, item, log_prob, state, last), after


def rollout_log_probs(
    model: Backbone,
    tokenizer,
    states: Tensor,
    mask: Tensor | None,
    rollouts: Rollouts,
    temperature: float = 1.0,
    entropy: bool = True,
) -> tuple[Tensor, Tensor | None]:
    """log pi(token | tokens before, history) of what was written, teacher-forced: (R, l + m).

    And the entropy of the thoughts' distributions, (R, l), in nats; None if it is not asked for.
    """
    l, m = rollouts.thought.shape[1], rollouts.answer.shape[1]
    inputs = answer_inputs(model, rollouts.thought, rollouts.answer)
    hidden = model.decode_groups(inputs, model.cross(states, "thinking", mask), mask)
    if model.config.softmax == "trie":
        answered = answer_log_probs(model, tokenizer, hidden[:, -m:], rollouts.item, temperature)
    else:
        every = (model.logits(hidden[:, -m:]).float() / temperature).log_softmax(-1)
        answered = every.gather(-1, rollouts.answer[..., None])[..., 0]
    said = None if model.repeats else said_before(rollouts.thought, model.vocab_size)
    every = model.thought_log_probs(hidden[:, :l], temperature, said)
    thought = every.gather(-1, (rollouts.thought - FIRST_CODE)[..., None])[..., 0]
    with torch.no_grad():  # it is only looked at
        spread = -(every.exp() * every.clamp_min(-1e30)).sum(-1) if entropy else None
    return torch.cat([thought, answered], dim=1), spread


def advantages(rewards: Tensor, floor: float = 1e-3) -> Tensor:
    """How much better than its group each rollout is: (B, G) -> (B, G), of mean 0 and deviation 1.

    A group of equal rewards, or of one rollout, teaches nothing: its advantages are exactly 0. The
    deviation is at least ``floor``, so that tiny differences are not blown up.
    """
    apart = rewards - rewards.mean(dim=1, keepdim=True)
    deviation = apart.square().mean(dim=1, keepdim=True).sqrt()
    equal = rewards.max(dim=1, keepdim=True).values == rewards.min(dim=1, keepdim=True).values
    return torch.where(equal, 0.0, apart / deviation.clamp_min(floor))


def combine(parts: dict[str, Tensor], weights: dict[str, float], G: int, order: str = "sum-first") -> Tensor:
    """Advantages (R,) of the weighted rewards ``parts``, each (R,).

    "sum-first" is the paper's: rewards are added, then normalised in the group. "normalise-first" does it the
    other way round, so that no reward drowns the others by its scale.
    """
    if order == "sum-first":
        total = sum(weights[name] * value for name, value in parts.items())
        return advantages(total.view(-1, G)).flatten()
    total = sum(weights[name] * advantages(value.view(-1, G)) for name, value in parts.items())
    return total.flatten()


def credit(parts: dict[str, Tensor], weights: dict[str, float], l: int, m: int, G: int, order: str, who: str):
    """The advantage of every token, (R, l + m).

    "rollout" is the paper's: each token has its rollout's. "later-rewards" (ours): an answer's tokens have
    only what the answer earned (``ANSWERS``), since what thoughts earn was settled before the answer was
    drawn: to its tokens that is noise. As the answer's part is divided by its own deviation in the group,
    not by that of all rewards together, answers also weigh more against thoughts than by "rollout".
    """
    whole = combine(parts, weights, G, order)
    answer = whole
    if who == "later-rewards":
        answer = combine({name: parts[name] for name in ANSWERS}, weights, G, order)
    return torch.cat([whole[:, None].expand(-1, l), answer[:, None].expand(-1, m)], dim=1)


def k3(log_prob: Tensor, reference: Tensor) -> Tensor:
    """An estimate of KL(pi || ref) from tokens that pi drew: ref/pi - log(ref/pi) - 1, never negative."""
    gap = reference - log_prob
    return gap.exp() - gap - 1


def grpo_loss(
    log_prob: Tensor, old: Tensor, reference: Tensor, advantage: Tensor, epsilon: float, beta: float
) -> dict[str, Tensor]:
    """Minus the objective of eq. 20, a mean over all tokens, and what became of the ratios.

    Eq. 20 writes one ratio for a whole rollout; this is the form of its source (Shao et al., 2024), a
    ratio for each token. At the first update after a rollout both have the same gradient, up to the
    number of tokens.

    Args:
        log_prob, old, reference: (R, T) of the policy, of the policy that wrote, of the fine-tuned model.
        advantage: (R, T), of each token.
    """
    ratio, A = (log_prob - old).exp(), advantage
    plain, clipped = ratio * A, ratio.clamp(1 - epsilon, 1 + epsilon) * A
    kl = k3(log_prob, reference).mean()
    gain = torch.minimum(plain, clipped).mean()
    low = ((ratio < 1 - epsilon) & (A < 0)).float().mean()  # where the clip stops the gradient
    high = ((ratio > 1 + epsilon) & (A > 0)).float().mean()
    return {
        "loss": -gain + beta * kl,
        "surrogate": gain.detach(),
        "kl": kl.detach(),
        "ratio": ratio.detach().mean(),
        "clip_ratio low": low,
        "clip_ratio high": high,
    }
