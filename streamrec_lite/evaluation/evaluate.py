"""One evaluator for every model, in two protocols; a model returns its k best items for each user.

*All items* (the paper's): every item is ranked, also those of the user's history. *New items only*: the
items of the user's history are left out of the ranking. A user whose target is in the history cannot be hit
there, so that user is left out of the means. In both a target outside the list is a miss.
"""

from __future__ import annotations

import time
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from ..common.schemas import Prefixes, check_shape
from ..data.sequences import iterate_batches
from .metrics import LEFT_OUT, mean_metrics, rank_of_target


class Recommender(Protocol):
    """A model that can be evaluated: it has a method ``topk``."""

    def topk(self, prefixes: Prefixes, k: int, exclude: Tensor | None = None) -> Tensor:
        """The k best items for each user, best first: (B, k) int64, -1 where there are fewer than k.

        ``exclude`` (B, E) items that are left out, -1 is no item; None: all items are ranked. The lists stay
        full: items are left out before the k best are taken.
        """
        ...


class Evaluation(NamedTuple):
    """The result of ``evaluate`` for n examples."""

    metrics: dict[str, float]  # R@5, R@10, N@5, N@10
    # (n,) int64 on the CPU, in the order of the prefixes; 1 is best, 0: not among the first k, -1: left out
    ranks: Tensor
    users_per_second: float


@torch.no_grad()
def evaluate(
    recommender: Recommender,
    prefixes: Prefixes,
    k: int = 10,
    batch_size: int = 256,
    progress: bool = False,
    exclude: Tensor | None = None,
) -> Evaluation:
    """The metrics of a recommender on ``prefixes``, and the rank of every target.

    Batches hold histories of similar length, so that little padding is computed.

    Args:
        recommender: the model; ``ValueError`` if its lists have another shape or name an item twice.
        prefixes: n examples, histories (n, L) and targets (n,), on the device of the model.
        k: length of the lists. With k < 10 the metrics are those of a list of k items.
        batch_size: examples per call of the model.
        progress: show a progress bar.
        exclude: (n, E) items that are left out of each ranking, -1 on the right is no item. A user whose
            target is among them has rank -1 and counts in no mean. None: all items are ranked.
    """
    ranks = torch.full((prefixes.n_examples,), LEFT_OUT, dtype=torch.int64)
    counted = torch.arange(prefixes.n_examples, device=prefixes.target.device)
    if exclude is not None:
        counted = (exclude != prefixes.target[:, None]).all(dim=1).nonzero()[:, 0]
        prefixes, exclude = prefixes.select(counted), exclude[counted]
    options: dict = {}
    bar = None
    if progress:
        from tqdm.auto import tqdm

        bar = tqdm(total=prefixes.n_examples, unit=" users", desc="evaluate", leave=False, mininterval=1.0)
    begin = time.perf_counter()
    for rows, batch in iterate_batches(prefixes, batch_size):
        if exclude is not None:
            left_out = exclude[rows]
            options = {"exclude": left_out[:, : int((left_out >= 0).sum(dim=1).max())]}
        topk = recommender.topk(batch, k, **options)
        check_topk(topk, batch.n_examples, k, **options)
        ranks[counted[rows].cpu()] = rank_of_target(topk, batch.target.to(topk.device)).cpu()
        if bar is not None:
            bar.update(batch.n_examples)
    seconds = time.perf_counter() - begin
    if bar is not None:
        bar.close()
    return Evaluation(mean_metrics(ranks), ranks, prefixes.n_examples / max(seconds, 1e-9))


def check_topk(topk: Tensor, users: int, k: int, exclude: Tensor | None = None) -> None:
    """Raise ``ValueError`` unless ``topk`` is (users, k) with no item twice in a list (-1 may repeat).

    Args:
        topk: the lists of a model.
        users: their number.
        k: items in a list.
        exclude: (users, E) items that no list may name, -1 is no item; or None.
    """
    check_shape("topk", topk, users, k)
    ordered = topk.sort(dim=1).values
    twice = (ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)
    if bool(twice.any()):
        row = int(twice.any(dim=1).nonzero()[0, 0])
        raise ValueError(f"topk names an item twice for row {row} of the batch: {topk[row].tolist()}")
    if exclude is not None:
        named = (topk[..., None] == exclude.to(topk.device)[:, None]).any(dim=2) & (topk >= 0)
        if bool(named.any()):
            row = int(named.any(dim=1).nonzero()[0, 0])
            raise ValueError(f"topk names an excluded item for row {row} of the batch: {topk[row].tolist()}")
