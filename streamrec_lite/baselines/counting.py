"""Three baselines that only count: Popularity, Markov and SequentialRules. Trained models should beat them.

They count in the training parts alone: all items but the last two of every user.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from ..common.schemas import Prefixes, Splits
from ..evaluation.new_items import best_items, first_allowed


@dataclass(frozen=True)
class Popularity:
    """The same list for all users: items by how often they occur in the training parts.

    Ties are broken by the lower item index.
    """

    counts: Tensor  # (N,) int64, interactions of the training parts
    order: Tensor  # (N,) int64, items, most frequent first

    @classmethod
    def fit(cls, splits: Splits, n_items: int) -> Popularity:
        """Count the items of the training parts.

        Every item of a training part is the target of one prefix, except the first item. That one is the
        oldest item of the user's first prefix. A user of three interactions has no training prefix, and
        the only training item is in the validation history.
        """
        train, valid = splits.train, splits.valid
        first = _first_rows(train.user)
        without_prefix = ~torch.isin(valid.user, train.user)
        items = torch.cat([train.target, train.history[first, 0], valid.history[without_prefix, 0]])
        counts = torch.bincount(items, minlength=n_items)
        return cls(counts, counts.argsort(descending=True, stable=True))

    def topk(self, prefixes: Prefixes, k: int, exclude: Tensor | None = None) -> Tensor:
        """(B, k) items without ``exclude`` (B, E), -1 where there are fewer than k."""
        ranked = self.order[: _length(k, exclude)].expand(prefixes.n_examples, -1)
        return first_allowed(ranked, k, exclude).to(prefixes.target.device)


@dataclass(frozen=True)
class Markov:
    """Items by how often they followed the user's last item in the training parts.

    Ties are broken by popularity in the training parts, then by the lower item index. After the items that
    have followed come the others, by popularity.
    """

    popularity: Popularity
    start: Tensor  # (N + 1,) int64, the followers of item i are follower[start[i]:start[i + 1]]
    follower: Tensor  # (pairs,) int64, best first within each item

    @classmethod
    def fit(cls, splits: Splits, n_items: int) -> Markov:
        """Count which item followed which, and sort each item's followers."""
        train = splits.train
        popularity = Popularity.fit(splits, n_items)
        last = train.history.gather(1, train.length[:, None] - 1).squeeze(1)
        pairs, counts = torch.unique(last * n_items + train.target, return_counts=True)  # sorted by pair
        item, follower = pairs // n_items, pairs % n_items
        rank = torch.empty_like(popularity.order)  # of each item, by popularity
        rank[popularity.order] = torch.arange(n_items, device=rank.device)
        # Stable sorts, the least important key first.
        order = rank[follower].argsort(stable=True)
        order = order[counts[order].argsort(descending=True, stable=True)]
        order = order[item[order].argsort(stable=True)]
        start = torch.zeros(n_items + 1, dtype=torch.int64, device=item.device)
        start[1:] = torch.bincount(item, minlength=n_items).cumsum(0)
        return cls(popularity, start, follower[order])

    def topk(self, prefixes: Prefixes, k: int, exclude: Tensor | None = None) -> Tensor:
        """(B, k) items without ``exclude`` (B, E), -1 where there are fewer than k."""
        ranked = self._ranked(prefixes, _length(k, exclude))
        return first_allowed(ranked, k, exclude).to(prefixes.target.device)

    def _ranked(self, prefixes: Prefixes, k: int) -> Tensor:
        """The first k items of each ranking, or all N: (B, k or N)."""
        device = self.start.device
        last = prefixes.history.gather(1, prefixes.length[:, None] - 1).squeeze(1).to(device)
        begin, end = self.start[last], self.start[last + 1]
        index = begin[:, None] + torch.arange(k, device=device)
        exists = index < end[:, None]
        items = torch.full_like(index, -1)
        items[exists] = self.follower[index[exists]]
        # The 2k most popular items: at most k of them are among the followers already.
        popular = self.popularity.order[: 2 * k].expand(prefixes.n_examples, -1)
        row = torch.arange(prefixes.n_examples, device=device)[:, None] * len(self.popularity.order)
        repeated = torch.isin(row + popular, (row + items)[exists])
        candidates = torch.cat([items, popular.masked_fill(repeated, -1)], dim=1)
        order = (candidates < 0).long().argsort(dim=1, stable=True)[:, :k]
        return candidates.gather(1, order)


@dataclass(frozen=True)
class SequentialRules:
    """Items by how often they followed a history's newest items within a few steps.

    After Ludewig and Jannach, "Evaluation of session-based recommendation algorithms" (2018): an item that
    came d steps after another one counts decay**(d - 1). Here the newest ``n_recent`` items of a history
    vote, not the last one alone, and the vote of an item that is d steps older counts decay**d.
    """

    rules: sparse.csr_matrix  # (N, N) float64, from item to item
    fallback: Tensor  # (N,) float64, popularity, scaled below the smallest vote: orders items without votes
    n_recent: int
    decay: float

    @classmethod
    def fit(
        cls, splits: Splits, n_items: int, max_gap: int = 3, n_recent: int = 5, decay: float = 0.4
    ) -> SequentialRules:
        """Count in the training parts. The defaults were chosen on validation users of scientific-2018.

        Args:
            splits: the training prefixes are counted.
            n_items: N.
            max_gap: the most steps between the two items of a rule.
            n_recent: how many of a history's newest items vote.
            decay: the factor for each further step, in rules and in votes.
        """
        row, before, weight = _newest_items(splits.train, max_gap, decay)
        after = splits.train.target.cpu().numpy()[row]
        rules = sparse.coo_matrix((weight, (before, after)), shape=(n_items, n_items)).tocsr()
        counts = Popularity.fit(splits, n_items).counts.double().cpu()
        fallback = 1e-3 * decay ** (max_gap + n_recent) * counts / counts.max().clamp_min(1)
        fallback -= 1e-10 * torch.arange(n_items) / n_items  # breaks ties by the lower index
        return cls(rules, fallback, n_recent, decay)

    def scores(self, prefixes: Prefixes) -> Tensor:
        """(B, N) float64: the votes of each history's newest items, plus the fallback by popularity."""
        row, item, weight = _newest_items(prefixes, self.n_recent, self.decay)
        shape = (prefixes.n_examples, self.rules.shape[0])
        votes = sparse.coo_matrix((weight, (row, item)), shape=shape).tocsr()
        return torch.from_numpy((votes @ self.rules).toarray()) + self.fallback

    def topk(self, prefixes: Prefixes, k: int, exclude: Tensor | None = None) -> Tensor:
        """(B, k) items by score, then by popularity, then by lower index; -1 where there are fewer than k.

        ``exclude`` (B, E) items that are left out, -1 is no item; None: none.
        """
        return best_items(self.scores(prefixes), k, exclude).to(prefixes.target.device)


def _newest_items(prefixes: Prefixes, count: int, decay: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows, items and weights of each history's newest ``count`` items: decay**d for d steps back."""
    rows, items, weights = [], [], []
    length, history = prefixes.length.cpu(), prefixes.history.cpu()
    for steps in range(count):
        row = (length > steps).nonzero()[:, 0]
        rows.append(row.numpy())
        items.append(history[row, length[row] - 1 - steps].numpy())
        weights.append(np.full(len(row), decay**steps))
    return np.concatenate(rows), np.concatenate(items), np.concatenate(weights)


def _first_rows(user: Tensor) -> Tensor:
    """The row of each user's first prefix; prefixes are sorted by user, then by time."""
    if not len(user):
        return user
    new = torch.ones_like(user, dtype=torch.bool)
    new[1:] = user[1:] != user[:-1]
    return new.nonzero().squeeze(1)


def _length(k: int, exclude: Tensor | None) -> int:
    """The length of a ranking that has k items left without ``exclude`` (B, E)."""
    return k if exclude is None else k + exclude.shape[1]
