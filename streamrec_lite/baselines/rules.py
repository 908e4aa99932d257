"""Sequential rules: what followed what, within a few steps. A baseline, and a memory to recall from.

After Ludewig and Jannach, "Evaluation of session-based recommendation algorithms" (2018): an item that
comes d steps after another counts less the larger d is. Here the last few items of a history vote,
not only the last one, and the older ones count less.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from ..schemas import Prefixes, Splits
from .counting import Popularity


@dataclass(frozen=True)
class SequentialRules:
    """Items by fade**(steps between) summed over what happened in the training parts.

    Args of ``fit``: ``window``, the most steps between two items of a rule; ``reach``, how many of a
    history's newest items vote; ``fade``, what each further step is worth, in both.
    """

    rules: sparse.csr_matrix  # (N, N) float64, from item to item
    rare: Tensor  # (N,) float64, popularity, all below the smallest vote: it orders what no rule reaches
    reach: int
    fade: float
    pairs: tuple[np.ndarray, ...]  # user, from, to, weight, row: the single events, in the order of rows

    @classmethod
    def fit(cls, splits: Splits, n_items: int, window: int = 3, reach: int = 5, fade: float = 0.4):
        train, events = splits.train, []
        for steps in range(window):
            row = (train.length > steps).nonzero()[:, 0]
            before = train.history[row, train.length[row] - 1 - steps]
            weight = torch.full((len(row),), fade**steps, dtype=torch.float64)
            events.append([train.user[row], before, train.target[row], weight, row])
        pairs = tuple(torch.cat(column).cpu().numpy() for column in zip(*events, strict=True))
        _, before, after, weight, _ = pairs
        rules = sparse.coo_matrix((weight, (before, after)), shape=(n_items, n_items)).tocsr()
        counts = Popularity.fit(splits, n_items).counts.double().cpu()
        rare = 1e-3 * fade ** (window + reach) * counts / counts.max().clamp_min(1)
        rare -= 1e-10 * torch.arange(n_items) / n_items  # of equals the lower index
        return cls(rules, rare, reach, fade, pairs)

    def votes(self, prefixes: Prefixes) -> sparse.csr_matrix:
        """Who votes, and how much: (B, N), the newest items of each history."""
        row, item, weight = self._newest(prefixes)
        shape = (prefixes.rows, self.rules.shape[0])
        return sparse.coo_matrix((weight, (row, item)), shape=shape).tocsr()

    def _newest(self, prefixes: Prefixes) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        rows, items, weights = [], [], []
        length, history = prefixes.length.cpu(), prefixes.history.cpu()
        for steps in range(self.reach):
            row = (length > steps).nonzero()[:, 0]
            rows.append(row.numpy())
            items.append(history[row, length[row] - 1 - steps].numpy())
            weights.append(np.full(len(row), self.fade**steps))
        return np.concatenate(rows), np.concatenate(items), np.concatenate(weights)

    def own_future(self, train: Prefixes) -> sparse.csr_matrix:
        """What the training prefixes' own users add to their scores from the target on: (B, N).

        A training example must not recall its own target, nor what its user did after it. ``train``:
        all training prefixes, whose row numbers are the time of ``pairs``.
        """
        import pandas as pd

        row, item, weight = self._newest(train)
        asked = pd.DataFrame({"row": row, "item": item, "vote": weight})
        asked["user"] = train.user.cpu().numpy()[row]
        names = ("user", "item", "after", "weight", "time")
        found = asked.merge(pd.DataFrame(dict(zip(names, self.pairs, strict=True))), on=["user", "item"])
        found = found[found["time"] >= found["row"]]
        value = (found["vote"] * found["weight"]).to_numpy()
        place = (found["row"].to_numpy(), found["after"].to_numpy())
        return sparse.coo_matrix((value, place), shape=(train.rows, self.rules.shape[0])).tocsr()

    def best(self, scores: sparse.csr_matrix, k: int) -> Tensor:
        """(B, k) items by score, then by popularity, then by lower index; k at most N."""
        rows, n_items = scores.shape
        found, chunk = [], max(1, 2**24 // n_items)
        for low in range(0, rows, chunk):
            dense = torch.from_numpy(scores[low : low + chunk].toarray())
            dense = dense.masked_fill(dense < 1e-9, 0.0) + self.rare  # what a subtraction left is 0
            found.append(dense.topk(min(k, n_items), dim=1).indices)
        return torch.cat(found) if found else torch.empty(0, k, dtype=torch.long)

    def topk(self, prefixes: Prefixes, k: int) -> Tensor:
        """(B, k) items, -1 where the catalogue has fewer than k."""
        items = self.best(self.votes(prefixes) @ self.rules, k)
        return torch.nn.functional.pad(items, (0, k - items.shape[1]), value=-1).to(prefixes.target.device)
