"""Ranking metrics with one relevant item per user, and tests of whether a difference is significant.

With one relevant item, Recall@k is 1 if the item is among the first k, and NDCG@k is
``1 / log2(1 + rank)`` if it is, since the ideal DCG is 1. Both are computed from the rank (1 is best).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ..common.errors import BadInput, did_you_mean

if TYPE_CHECKING:
    from numpy.typing import ArrayLike
    from torch import Tensor

METRIC_NAMES = ("R@5", "R@10", "N@5", "N@10")
LEFT_OUT = -1  # the rank of a user who counts in no mean: a protocol leaves the target out


def rank_of_target(topk: Tensor, target: Tensor) -> Tensor:
    """Rank of the target in a list of items: (B,) int64, 1 is best, 0 if the target is not in the list.

    ``topk`` (B, k) items, -1 where the list is shorter; ``target`` (B,). If a list names an item
    twice, its first position counts.
    """
    hit = topk == target[:, None]
    rank = hit.long().argmax(dim=1) + 1
    return rank * (hit.any(dim=1) & (target >= 0))


def recall_at(ranks: Tensor, k: int) -> Tensor:
    """Recall@k: 1.0 where the target is among the first k, else 0.0. ``ranks`` (B,) -> (B,) float64."""
    return ((ranks >= 1) & (ranks <= k)).double()


def ndcg_at(ranks: Tensor, k: int) -> Tensor:
    """NDCG@k: ``1 / log2(1 + rank)`` for ranks up to k, else 0.0. ``ranks`` (B,) -> (B,) float64."""
    return recall_at(ranks, k) / (1 + ranks.clamp_min(1).double()).log2()


def metric_per_user(ranks: Tensor, metric: str) -> Tensor:
    """One of ``METRIC_NAMES`` for every user: ``ranks`` (B,) -> (B,) float64."""
    if metric not in METRIC_NAMES:
        raise BadInput(f"metric {metric!r}", "unknown metric", did_you_mean(metric, METRIC_NAMES))
    kind, k = metric.split("@")
    return {"R": recall_at, "N": ndcg_at}[kind](ranks, int(k))


def mean_metrics(
    ranks: Tensor, ks: tuple[int, ...] = (5, 10), group_size: Tensor | None = None
) -> dict[str, float]:
    """Means over users: ``{"R@5", "R@10", "N@5", "N@10"}`` for ``ks=(5, 10)``; zeros without users.

    ``ranks`` (B,) as from ``rank_of_target``; users with rank ``LEFT_OUT`` do not count.
    ``group_size`` (B,): the number g of items that share the target's ID. A model that ranks IDs cannot
    tell those items apart, so a hit counts only 1/g; otherwise ID collisions would increase the metrics.
    """
    weight = 1.0 if group_size is None else 1.0 / group_size.clamp_min(1).double()
    values = {f"R@{k}": recall_at(ranks, k) * weight for k in ks}
    values |= {f"N@{k}": ndcg_at(ranks, k) * weight for k in ks}
    counted = ranks != LEFT_OUT
    if not bool(counted.any()):
        return dict.fromkeys(values, 0.0)
    return {name: float(value[counted].mean()) for name, value in values.items()}


def paired_bootstrap(
    a: ArrayLike, b: ArrayLike, resamples: int = 2000, seed: int = 0
) -> dict[str, float | None]:
    """Tests whether model a is better than model b on the same users, by a paired bootstrap.

    Users are drawn with replacement, and both values of a user are drawn together. The mean of a
    resample depends only on how often each distinct difference occurs in it. So these counts are
    drawn, by one multinomial draw per resample: the same distribution, but fast for many users.

    Args:
        a: (n,) the metric of model a for each user.
        b: (n,) the metric of model b for the same users; ``ValueError`` for another number of users.
        resamples: number of bootstrap resamples.
        seed: of the random draws.

    Returns:
        ``mean_difference`` (a minus b), ``low`` and ``high`` (the 95 % percentile interval),
        ``relative`` (the difference divided by b's mean; None if that is 0), the two-sided ``p``.
    """
    import numpy as np

    a, b = (np.asarray(x, dtype=np.float64).reshape(-1) for x in (a, b))
    if a.shape != b.shape or not len(a):
        raise ValueError(f"a has {len(a)} users and b has {len(b)}; both need the same users, at least one")
    difference = a - b
    values, counts = np.unique(difference, return_counts=True)
    generator = np.random.default_rng(seed)
    draws = generator.multinomial(len(difference), counts / len(difference), size=resamples)
    means = draws @ values / len(difference)
    low, high = np.percentile(means, (2.5, 97.5))
    tail = min((means <= 0).mean(), (means >= 0).mean())
    base = float(b.mean())
    return {
        "mean_difference": float(difference.mean()),
        "low": float(low),
        "high": float(high),
        "relative": float(difference.mean()) / base if base else None,
        "p": float(min(1.0, 2 * max(tail, 1 / resamples))),
    }


def gain_in_std_errors(a: Tensor, b: Tensor) -> float:
    """The mean of a - b, in units of its standard error; ``a``, ``b``: (n,) values of the same users.

    0 if the mean difference is 0; infinite if the difference is the same for all users.
    """
    difference = (a - b).double()
    gain, error = difference.mean(), difference.std() / len(difference) ** 0.5
    return float(gain / error) if gain != 0 else 0.0


def mean_and_deviation(rows: list[dict[str, float]]) -> dict[str, dict[str, float | None]]:
    """Mean and sample standard deviation over seeds (one row per seed), for each key.

    ``[{"N@10": 0.1}, {"N@10": 0.3}]`` gives ``{"N@10": {"mean": 0.2, "sd": 0.1414}}``. With a single
    row the deviation is None. ``ValueError`` unless all rows have the same keys.
    """
    if not rows or any(row.keys() != rows[0].keys() for row in rows):
        raise ValueError("mean_and_deviation needs at least one row, all with the same keys")
    summary: dict[str, dict[str, float | None]] = {}
    for key in rows[0]:
        values = [row[key] for row in rows]
        mean = math.fsum(values) / len(values)
        spread = math.fsum((v - mean) ** 2 for v in values)
        deviation = math.sqrt(spread / (len(values) - 1)) if len(values) > 1 else None
        summary[key] = {"mean": mean, "sd": deviation}
    return summary


def rank_by_score(items: Tensor, scores: Tensor) -> Tensor:
    """Rank of each user's item (B,) among all items by its scores (B, N): (B,) int64, 1 is best."""
    import torch

    own_score = scores.gather(1, items[:, None])
    # torch sums booleans eight times as fast into 32 bits as into 64
    return 1 + (scores > own_score).sum(dim=1, dtype=torch.int32).long()
