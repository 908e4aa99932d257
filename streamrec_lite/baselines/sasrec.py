"""SASRec (Kang and McAuley, 2018): a causal transformer over the history; its last state answers.

With the cross-entropy over the whole catalogue in the place of the paper's one sampled negative: the
same loss for every baseline here, and a much stronger SASRec (Klenitskiy and Vasilev, 2023).
"""

from __future__ import annotations

from torch import Tensor

from ..common.schemas import PAD_ITEM, Prefixes
from .sequence import ItemModel, Reader, newest_last, start_small


class SASRec(ItemModel):
    """Args: n_items N; ``settings``: the section ``baselines``; ``places``: L, longest history."""

    def __init__(self, n_items: int, settings, places: int):
        super().__init__(n_items, settings.d)
        s = settings
        self.reader = Reader(s.d, s.num_layers, s.num_heads, s.dropout, places, causal=True)
        self.apply(start_small)

    def state(self, prefixes: Prefixes) -> Tensor:
        """The state at the newest item of each history (B, d)."""
        history = newest_last(prefixes.history, prefixes.length)
        x = self.items(history.clamp_min(0))
        return self.reader(x, history != PAD_ITEM)[:, -1]
