"""SASRec (Kang and McAuley, 2018): a causal transformer over the history; its last state scores the items.

The paper trains with one sampled negative. Here the loss is the cross-entropy over the whole catalogue, as
for all baselines; it makes SASRec much stronger (Klenitskiy and Vasilev, 2023).
"""

from __future__ import annotations

from torch import Tensor

from ..common.schemas import PAD_ITEM, Prefixes
from ..config.training import BaselineConfig
from .sequence import ItemModel, ItemTransformer, init_weights, pad_left


class SASRec(ItemModel):
    """A causal transformer over the history.

    Args:
        n_items: N.
        settings: the section ``baselines``.
        max_length: of a history, in items.
    """

    def __init__(self, n_items: int, settings: BaselineConfig, max_length: int):
        super().__init__(n_items, settings.d)
        s = settings
        self.reader = ItemTransformer(s.d, s.num_layers, s.num_heads, s.dropout, max_length, causal=True)
        self.apply(init_weights)

    def state(self, prefixes: Prefixes) -> Tensor:
        """The state at the newest item of each history (B, d)."""
        history = pad_left(prefixes.history, prefixes.length)
        x = self.items(history.clamp_min(0))
        return self.reader(x, history != PAD_ITEM)[:, -1]
