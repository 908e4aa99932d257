"""New items only: rankings and scores of all items, without the items of each user's history.

For models that score or rank the whole catalogue this is exact: the order of the other items stays the same.
A beam search leaves items out while it searches (``inference.exclusion``).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def best_items(scores: Tensor, k: int, exclude: Tensor | None = None) -> Tensor:
    """The k items with the highest scores (B, N): (B, k) int64, best first, -1 where there are fewer.

    ``exclude`` (B, E) items that are left out, -1 is no item; None: all items are ranked.
    """
    if exclude is not None:
        exclude = exclude.to(scores.device)
        row, column = (exclude >= 0).nonzero(as_tuple=True)
        scores = scores.index_put((row, exclude[row, column]), scores.new_tensor(-torch.inf))
    value, item = scores.topk(min(k, scores.shape[1]), dim=1)
    if exclude is not None:
        item = item.masked_fill(value == -torch.inf, -1)
    return F.pad(item, (0, k - item.shape[1]), value=-1)


def first_allowed(ranked: Tensor, k: int, exclude: Tensor | None = None) -> Tensor:
    """The first k items of a ranking (B, n) that are not left out: (B, k) int64, -1 where there are fewer.

    ``exclude`` (B, E) items that are left out, or None. A ranking of n >= k + E items is long enough.
    """
    if exclude is not None:
        left_out = (ranked[..., None] == exclude.to(ranked.device)[:, None]).any(dim=2)
        ranked = ranked.masked_fill(left_out, -1)
        ranked = ranked.gather(1, (ranked < 0).long().argsort(dim=1, stable=True))
    return F.pad(ranked[:, :k], (0, max(0, k - ranked.shape[1])), value=-1)
