"""One evaluator for every model: full ranking over all items, the history not excluded.

A model hands out its k best items for each user; an item outside that list is a miss.
"""

from __future__ import annotations

import time
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from ..common.schemas import Prefixes, check_shape
from ..data.sequences import iterate_batches
from .metrics import mean_metrics, rank_of_target


class Recommender(Protocol):
    """Whatever can be evaluated."""

    def topk(self, prefixes: Prefixes, k: int) -> Tensor:
        """The k best items a user, best first: (B, k) int64, -1 where there is nothing more."""
        ...


class Evaluation(NamedTuple):
    metrics: dict[str, float]  # R@5, R@10, N@5, N@10
    ranks: Tensor  # (n,) int64 on the CPU, in the order of the prefixes; 0: not among the first k
    users_per_second: float


@torch.no_grad()
def evaluate(
    recommender: Recommender,
    prefixes: Prefixes,
    k: int = 10,
    batch_size: int = 256,
    progress: bool = False,
) -> Evaluation:
    """Rank all items for each of ``prefixes`` and score the place of the target.

    Users are taken in batches of similar history length, so that padding is not computed; ``ranks``
    is in the order of ``prefixes`` all the same. The metrics with k below 10 are those of a list of
    k items. A recommender that breaks its promise (shape, an item twice) is a ``ValueError``.
    """
    ranks = torch.zeros(prefixes.n_examples, dtype=torch.int64)
    bar = None
    if progress:
        from tqdm.auto import tqdm

        bar = tqdm(total=prefixes.n_examples, unit=" users", desc="evaluate", leave=False, mininterval=1.0)
    begin = time.perf_counter()
    for rows, batch in iterate_batches(prefixes, batch_size):
        topk = recommender.topk(batch, k)
        check_topk(topk, batch.n_examples, k)
        ranks[rows.cpu()] = rank_of_target(topk, batch.target.to(topk.device)).cpu()
        if bar is not None:
            bar.update(batch.n_examples)
    seconds = time.perf_counter() - begin
    if bar is not None:
        bar.close()
    return Evaluation(mean_metrics(ranks), ranks, prefixes.n_examples / max(seconds, 1e-9))


def check_topk(topk: Tensor, rows: int, k: int) -> None:
    """Raise ``ValueError`` unless ``topk`` is (rows, k) without an item twice in a row (-1 may repeat)."""
    check_shape("topk", topk, rows, k)
    ordered = topk.sort(dim=1).values
    twice = (ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)
    if bool(twice.any()):
        row = int(twice.any(dim=1).nonzero()[0, 0])
        raise ValueError(f"topk names an item twice for row {row} of the batch: {topk[row].tolist()}")
