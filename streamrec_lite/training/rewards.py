"""Stage 3, what a rollout earns (section 2.4.2, eqs 21-27): pure functions of batched tensors.

A rollout is l thoughts and an answer; R of them are judged at once. Rewards are float32 and come one a
rollout. The constants are the paper's.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..common.schemas import check_shape

NAMES = ("format", "match", "similarity", "likelihood", "ranking", "reciprocal")
ANSWERS = ("format", "match")  # what the drawn answer earns; the others are settled by the thoughts


def format_reward(item: Tensor) -> Tensor:
    """Eq. 21: 0 where the answer names an item, -1 where it names none (``item`` (R,) is -1)."""
    return torch.where(item < 0, -1.0, 0.0)


def match_reward(codes: Tensor, target: Tensor) -> Tensor:
    """Eqs 22, 23: how many codes are right, counted from the first one up to the first wrong one.

    ``codes`` and ``target`` are (R, m); the result lies in 0..m.
    """
    check_shape("target", target, *codes.shape)
    return (codes == target).long().cumprod(dim=1).sum(dim=1).float()


def similarity_reward(states: Tensor, t: Tensor, user: Tensor) -> Tensor:
    """Eqs 24, 25: does the state resemble its own user's target more than other users' targets?

    The similarity is the scalar product that L_State (eq. 14) trains. ``g`` is the share of the batch's
    users j with S_ij <= S_ii, the own one included. The users of a batch are distinct: G rollouts of
    one user are compared with B targets, not with B*G.

    Args:
        states: (R, d), one a rollout.
        t: (B, d), the targets of the batch's users.
        user: (R,), whose rollout it is: a row of ``t``.
    """
    scores = states @ t.T  # (R, B)
    own = scores.gather(1, user[:, None])
    g = (scores <= own).float().mean(dim=1)
    reward = torch.full_like(g, -0.1)
    for least, value in ((0.50, 0.05), (0.95, 0.1), (0.99, 0.5)):
        reward = torch.where(g >= least - 1e-6, torch.full_like(g, value), reward)
    return reward


def likelihood_reward(log_prob: Tensor, reference: Tensor, bound: float = 0.0) -> Tensor:
    """Eq. 26, in nats: how much likelier the target is after the thoughts than to pi_ref without any.

    ``log_prob`` and ``reference`` are (R,). With ``bound`` > 0 the result is kept within +-bound: the
    paper's has no limits, and one unlikely target can outweigh all else.
    """
    gain = log_prob - reference
    return gain.clamp(-bound, bound) if bound > 0 else gain


def ranking_reward(log_prob: Tensor, negatives: Tensor) -> Tensor:
    """Eq. 27: the target's place p among itself and K items of similar text; 1 is the best.

    The equation says nothing of 0.2 K <= p < 0.5 K; there the reward is 0. A negative that is as
    likely as the target does not push it down.

    Args:
        log_prob: (R,) of the target after the thoughts.
        negatives: (R, K); -inf where a user has fewer.
    """
    K = negatives.shape[1]
    p = 1 + (negatives > log_prob[:, None]).sum(dim=1)
    reward = torch.zeros_like(log_prob)
    reward = torch.where(p >= 0.5 * K, -0.1, reward)
    reward = torch.where((p >= 0.1 * K) & (p < 0.2 * K), 0.05, reward)
    reward = torch.where((p > 1) & (p < 0.1 * K), 0.1, reward)
    return torch.where(p == 1, 0.2, reward)


def reciprocal_reward(items: Tensor, target: Tensor) -> Tensor:
    """Ours: 1 / rank of the target (R,) in the answers (R, k) that follow the thoughts, 0 if not there.

    It is what N@10 looks at, in place of the likelihood of one sampled answer.
    """
    hit = items == target[:, None]
    rank = 1 + hit.float().argmax(dim=1)
    return torch.where(hit.any(dim=1), 1.0 / rank, 0.0)
