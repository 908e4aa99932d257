"""Sequential rules: what followed what, within a few steps. It only counts.

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

from ..common.schemas import Prefixes, Splits
from .counting import Popularity


@dataclass(frozen=True)
class SequentialRules:
    """Items by fade**(steps between) summed over what happened in the training parts.

    Args of ``fit``: ``window``, the most steps between two items of a rule; ``reach``, how many of a
    history's newest items vote; ``fade``, what each further step is worth, in both. The defaults were
    chosen on validation users of scientific-2018.
    """

    rules: sparse.csr_matrix  # (N, N) float64, from item to item
    rare: Tensor  # (N,) float64, popularity, all below the smallest vote: it orders what no rule reaches
    reach: int
    fade: float

    @classmethod
    def fit(cls, splits: Splits, n_items: int, window: int = 3, reach: int = 5, fade: float = 0.4):
        row, before, weight = _newest(splits.train, window, fade)
        after = splits.train.target.cpu().numpy()[row]
        rules = sparse.coo_matrix((weight, (before, after)), shape=(n_items, n_items)).tocsr()
        counts = Popularity.fit(splits, n_items).counts.double().cpu()
        rare = 1e-3 * fade ** (window + reach) * counts / counts.max().clamp_min(1)
        rare -= 1e-10 * torch.arange(n_items) / n_items  # of equals the lower index
        return cls(rules, rare, reach, fade)

    def scores(self, prefixes: Prefixes) -> Tensor:
        """(B, N) float64: the votes of each history's newest items, and a trace of popularity."""
        row, item, weight = _newest(prefixes, self.reach, self.fade)
        shape = (prefixes.n_examples, self.rules.shape[0])
        votes = sparse.coo_matrix((weight, (row, item)), shape=shape).tocsr()
        return torch.from_numpy((votes @ self.rules).toarray()) + self.rare

    def topk(self, prefixes: Prefixes, k: int) -> Tensor:
        """(B, k) items by score, then by popularity, then by lower index; -1 where there are fewer than k."""
        items = self.scores(prefixes).topk(min(k, self.rules.shape[0]), dim=1).indices
        return torch.nn.functional.pad(items, (0, k - items.shape[1]), value=-1).to(prefixes.target.device)


def _newest(prefixes: Prefixes, reach: int, fade: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows, items and weights of each history's newest ``reach`` items; a weight is fade**(steps back)."""
    rows, items, weights = [], [], []
    length, history = prefixes.length.cpu(), prefixes.history.cpu()
    for steps in range(reach):
        row = (length > steps).nonzero()[:, 0]
        rows.append(row.numpy())
        items.append(history[row, length[row] - 1 - steps].numpy())
        weights.append(np.full(len(row), fade**steps))
    return np.concatenate(rows), np.concatenate(items), np.concatenate(weights)
