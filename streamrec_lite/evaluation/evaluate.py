"""One evaluator for every model: full ranking over all items, with the history not excluded.

A model returns its k best items for each user; a target outside that list is a miss.
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
    """A model that can be evaluated: it has a method ``topk``."""

    def topk(self, prefixes: Prefixes, k: int) -> Tensor:
        """The k best items for each user, best first: (B, k) int64, -1 where there are fewer than k."""
        ...


class Evaluation(NamedTuple):
    """The result of ``evaluate`` for n examples."""

    metrics: dict[str, float]  # R@5, R@10, N@5, N@10
    ranks: Tensor  # (n,) int64 on the CPU, in the order of the prefixes; 1 is best, 0: not among the first k
    users_per_second: float


@torch.no_grad()
def evaluate(
    recommender: Recommender,
    prefixes: Prefixes,
    k: int = 10,
    batch_size: int = 256,
    progress: bool = False,
) -> Evaluation:
    """The metrics of a recommender on ``prefixes``, and the rank of every target.

    Batches hold histories of similar length, so that little padding is computed.

    Args:
        recommender: the model; ``ValueError`` if its lists have another shape or name an item twice.
        prefixes: n examples, histories (n, L) and targets (n,), on the device of the model.
        k: length of the lists. With k < 10 the metrics are those of a list of k items.
        batch_size: examples per call of the model.
        progress: show a progress bar.
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


def check_topk(topk: Tensor, users: int, k: int) -> None:
    """Raise ``ValueError`` unless ``topk`` is (users, k) with no item twice in a list (-1 may repeat)."""
    check_shape("topk", topk, users, k)
    ordered = topk.sort(dim=1).values
    twice = (ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)
    if bool(twice.any()):
        row = int(twice.any(dim=1).nonzero()[0, 0])
        raise ValueError(f"topk names an item twice for row {row} of the batch: {topk[row].tolist()}")
