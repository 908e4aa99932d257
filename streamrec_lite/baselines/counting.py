"""Two baselines that only count: Popularity and Markov. A trained model has to beat both.

They count in the training parts alone: all items but the last two of every user.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..common.schemas import Prefixes, Splits


@dataclass(frozen=True)
class Popularity:
    """The same list for everybody: items by how often they occur in the training parts.

    Ties stand by lower item index.
    """

    counts: Tensor  # (N,) int64, interactions of the training parts
    order: Tensor  # (N,) int64, items, most frequent first

    @classmethod
    def fit(cls, splits: Splits, n_items: int) -> Popularity:
        """Count. Every item of a training part is the target of one prefix, except the first one.

        The first one is the oldest item of the user's first prefix; a user of three interactions
        has no training prefix, and its one training item is its validation history.
        """
        train, valid = splits.train, splits.valid
        first = _first_rows(train.user)
        without = ~torch.isin(valid.user, train.user)
        items = torch.cat([train.target, train.history[first, 0], valid.history[without, 0]])
        counts = torch.bincount(items, minlength=n_items)
        return cls(counts, counts.argsort(descending=True, stable=True))

    def topk(self, prefixes: Prefixes, k: int) -> Tensor:
        """(B, k) items, -1 where the catalogue has fewer than k."""
        return _widen(self.order[:k], k).expand(prefixes.n_examples, k).to(prefixes.target.device)


@dataclass(frozen=True)
class Markov:
    """Items by how often they followed the user's last item in the training parts.

    Ties stand by popularity in the training parts, then by lower item index; after the items that
    ever followed come the others, by popularity.
    """

    popularity: Popularity
    start: Tensor  # (N + 1,) int64: the followers of item i are follower[start[i]:start[i + 1]]
    follower: Tensor  # (pairs,) int64, best first within each item

    @classmethod
    def fit(cls, splits: Splits, n_items: int) -> Markov:
        train = splits.train
        popularity = Popularity.fit(splits, n_items)
        last = train.history.gather(1, train.length[:, None] - 1).squeeze(1)
        pairs, counts = torch.unique(last * n_items + train.target, return_counts=True)  # sorted by pair
        item, follower = pairs // n_items, pairs % n_items
        place = torch.empty_like(popularity.order)
        place[popularity.order] = torch.arange(n_items, device=place.device)
        # Stable sorts, the least important key first.
        order = place[follower].argsort(stable=True)
        order = order[counts[order].argsort(descending=True, stable=True)]
        order = order[item[order].argsort(stable=True)]
        start = torch.zeros(n_items + 1, dtype=torch.int64, device=item.device)
        start[1:] = torch.bincount(item, minlength=n_items).cumsum(0)
        return cls(popularity, start, follower[order])

    def topk(self, prefixes: Prefixes, k: int) -> Tensor:
        """(B, k) items, -1 where the catalogue has fewer than k."""
        device = self.start.device
        last = prefixes.history.gather(1, prefixes.length[:, None] - 1).squeeze(1).to(device)
        begin, end = self.start[last], self.start[last + 1]
        at = begin[:, None] + torch.arange(k, device=device)
        there = at < end[:, None]
        items = torch.full_like(at, -1)
        items[there] = self.follower[at[there]]
        # Popular items that are not among the followers already; at most k of 2k are.
        popular = self.popularity.order[: 2 * k].expand(prefixes.n_examples, -1)
        row = torch.arange(prefixes.n_examples, device=device)[:, None] * len(self.popularity.order)
        fresh = ~torch.isin(row + popular, (row + items)[there])
        candidates = torch.cat([items, popular.masked_fill(~fresh, -1)], dim=1)
        order = (candidates < 0).long().argsort(dim=1, stable=True)[:, :k]
        return _widen(candidates.gather(1, order), k).to(prefixes.target.device)


def _first_rows(user: Tensor) -> Tensor:
    """Row of each user's first prefix: prefixes stand in the order of users, then of time."""
    if not len(user):
        return user
    new = torch.ones_like(user, dtype=torch.bool)
    new[1:] = user[1:] != user[:-1]
    return new.nonzero().squeeze(1)


def _widen(items: Tensor, k: int) -> Tensor:
    """Fill the last dimension up to k with -1."""
    return torch.nn.functional.pad(items, (0, k - items.shape[-1]), value=-1)
