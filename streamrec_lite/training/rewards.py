"""Stage 3, the rewards of a rollout (section 2.4.2, eqs 21-27): pure functions of batched tensors.

A rollout is l thoughts and an answer; R rollouts are judged at once. Rewards are (R,) float32. The constants
are the paper's.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..common.schemas import check_shape

REWARD_NAMES = ("format", "match", "similarity", "likelihood", "ranking", "reciprocal")
ANSWER_REWARDS = ("format", "match")  # depend on the sampled answer; the others on the thoughts alone


def format_reward(item: Tensor) -> Tensor:
    """Eq. 21: 0 if the answer names an item, -1 if it names none (``item`` (R,) is -1)."""
    return torch.where(item < 0, -1.0, 0.0)


def match_reward(codes: Tensor, target: Tensor) -> Tensor:
    """Eqs 22, 23: the number of correct codes before the first wrong one.

    ``codes`` and ``target`` are (R, m); the result lies in 0..m.
    """
    check_shape("target", target, *codes.shape)
    return (codes == target).long().cumprod(dim=1).sum(dim=1).float()


def similarity_reward(states: Tensor, t: Tensor, user: Tensor) -> Tensor:
    """Eqs 24, 25: is the state more similar to its own user's target than to other users' targets?

    The similarity is the scalar product that L_State (eq. 14) trains. ``g`` is the share of the batch's
    users j with S_ij <= S_ii, the user i included. A batch has B different users: all G rollouts of a user
    are compared with the same B targets.

    Args:
        states: (R, d), s_l of each rollout.
        t: (B, d), the targets of the batch's users.
        user: (R,), each rollout's user, a row of ``t``.
    """
    scores = states @ t.T  # (R, B)
    own = scores.gather(1, user[:, None])
    g = (scores <= own).float().mean(dim=1)
    reward = torch.full_like(g, -0.1)
    for threshold, value in ((0.50, 0.05), (0.95, 0.1), (0.99, 0.5)):
        reward = torch.where(g >= threshold - 1e-6, torch.full_like(g, value), reward)
    return reward


def likelihood_reward(log_prob: Tensor, reference: Tensor, bound: float = 0.0) -> Tensor:
    """Eq. 26: the target's log-probability after the thoughts, minus pi_ref's without thoughts, in nats.

    ``log_prob`` and ``reference`` are (R,). With ``bound`` > 0 the result is clamped to +-bound (ours):
    without a bound one unlikely target can outweigh all other rewards.
    """
    gain = log_prob - reference
    return gain.clamp(-bound, bound) if bound > 0 else gain


def ranking_reward(log_prob: Tensor, negatives: Tensor) -> Tensor:
    """Eq. 27: by the target's rank p among itself and K items of similar text; 1 is the best.

    The equation leaves out 0.2 K <= p < 0.5 K; there the reward is 0. A negative as likely as the target
    does not lower its rank.

    Args:
        log_prob: (R,) of the target after the thoughts.
        negatives: (R, K) of the negatives; -inf where a user has fewer.
    """
    K = negatives.shape[1]
    p = 1 + (negatives > log_prob[:, None]).sum(dim=1)
    reward = torch.zeros_like(log_prob)
    reward = torch.where(p >= 0.5 * K, -0.1, reward)
    reward = torch.where((p >= 0.1 * K) & (p < 0.2 * K), 0.05, reward)
    reward = torch.where((p > 1) & (p < 0.1 * K), 0.1, reward)
    return torch.where(p == 1, 0.2, reward)


def reciprocal_reward(items: Tensor, target: Tensor) -> Tensor:
    """Ours: 1 / rank of the target (R,) in the beam's answers (R, k) after the thoughts, 0 if not there.

    It follows the metric N@10 more closely than the likelihood of one sampled answer.
    """
    hit = items == target[:, None]
    rank = 1 + hit.float().argmax(dim=1)
    return torch.where(hit.any(dim=1), 1.0 / rank, 0.0)
