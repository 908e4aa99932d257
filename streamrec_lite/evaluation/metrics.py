"""Ranking metrics with one right answer a user, and what tells a difference from luck.

Leave-one-out has a single relevant item, so Recall@k is whether it stands in the first k places and
NDCG@k is ``1 / log2(1 + rank)`` of it: the ideal DCG is 1. Everything is computed from the rank.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ..common.errors import BadInput, did_you_mean

if TYPE_CHECKING:
    from torch import Tensor

METRIC_NAMES = ("R@5", "R@10", "N@5", "N@10")


def rank_of_target(topk: Tensor, target: Tensor) -> Tensor:
    """Place of the target in a list: ``topk`` (B, k) items, -1 where nothing; ``target`` (B,).

    Returns (B,) int64, 1-based; 0 means that the target is not in the list. An item that a list
    names twice counts at its first place.
    """
    hit = topk == target[:, None]
    place = hit.long().argmax(dim=1) + 1
    return place * (hit.any(dim=1) & (target >= 0))


def recall_at(ranks: Tensor, k: int) -> Tensor:
    """1.0 where the target stands in the first k places, else 0.0: ``ranks`` (B,) -> (B,) float64."""
    return ((ranks >= 1) & (ranks <= k)).double()


def ndcg_at(ranks: Tensor, k: int) -> Tensor:
    """``1 / log2(1 + rank)`` in the first k places, else 0.0: ``ranks`` (B,) -> (B,) float64."""
    return recall_at(ranks, k) / (1 + ranks.clamp_min(1).double()).log2()


def metric_per_user(ranks: Tensor, metric: str) -> Tensor:
    """A metric by its name, for every user: ``ranks`` (B,), one of ``METRIC_NAMES`` -> (B,) float64."""
    if metric not in METRIC_NAMES:
        raise BadInput(f"metric {metric!r}", "unknown metric", did_you_mean(metric, METRIC_NAMES))
    kind, k = metric.split("@")
    return {"R": recall_at, "N": ndcg_at}[kind](ranks, int(k))


def mean_metrics(
    ranks: Tensor, ks: tuple[int, ...] = (5, 10), group_size: Tensor | None = None
) -> dict[str, float]:
    """Means over users: ``{"R@5", "R@10", "N@5", "N@10"}`` for ``ks=(5, 10)``.

    ``group_size`` (B,): how many items share the ID that was ranked for the target. A model that
    ranks IDs cannot tell those items apart, so a hit counts 1/g at the level of items; without
    this, collisions would pass for skill. No users gives zeros.
    """
    weight = 1.0 if group_size is None else 1.0 / group_size.clamp_min(1).double()
    values = {f"R@{k}": recall_at(ranks, k) * weight for k in ks}
    values |= {f"N@{k}": ndcg_at(ranks, k) * weight for k in ks}
    return {name: float(value.mean()) if len(ranks) else 0.0 for name, value in values.items()}


def paired_bootstrap(a, b, resamples: int = 2000, seed: int = 0) -> dict:
    """Is model a better than model b on the same users? ``a``, ``b``: (n,) values a user.

    Users are drawn with replacement, and each keeps both of its values. Returns
    ``mean_difference`` (a minus b), ``low`` and ``high`` (the 95 % percentile interval), ``relative``
    (the difference as a share of b's mean; None if that is 0) and the two-sided ``p``.

    The mean of a resample depends only on how often each distinct difference was drawn, so those
    counts are drawn (one multinomial a resample): the same distribution, whatever the users' number.
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
    """By how many of its standard errors the mean of a - b lies above 0: (n,) values a user, the same users.

    0 where a and b are equal, whatever the users; infinite where all users differ by the same amount.
    """
    difference = (a - b).double()
    gain, error = difference.mean(), difference.std() / len(difference) ** 0.5
    return float(gain / error) if gain != 0 else 0.0


def mean_and_deviation(rows: list[dict[str, float]]) -> dict[str, dict[str, float | None]]:
    """Mean and sample standard deviation over seeds, a key at a time.

    ``[{"N@10": 0.1}, {"N@10": 0.3}]`` gives ``{"N@10": {"mean": 0.2, "sd": 0.1414}}``; a single row
    has no deviation (None). The rows must have the same keys.
    """
    if not rows or any(row.keys() != rows[0].keys() for row in rows):
        raise ValueError("mean_and_deviation needs at least one row, all with the same keys")
    summary = {}
    for key in rows[0]:
        values = [row[key] for row in rows]
        mean = math.fsum(values) / len(values)
        spread = math.fsum((v - mean) ** 2 for v in values)
        deviation = math.sqrt(spread / (len(values) - 1)) if len(values) > 1 else None
        summary[key] = {"mean": mean, "sd": deviation}
    return summary


def rank_by_score(items: Tensor, scores: Tensor) -> Tensor:
    """The place of each row's item (B,) by its scores (B, N): (B,) int64, 1 is best.

    Counted in 32 bits: torch adds up truth values so eight times as fast as in 64.
    """
    import torch

    own = scores.gather(1, items[:, None])
    return 1 + (scores > own).sum(dim=1, dtype=torch.int32).long()
