"""BERT4Rec (Sun et al., 2019): predict masked items from both sides; for an answer, mask the next item.

A training prefix and its target are one sequence. A share ``MASK_SHARE`` of the history is masked, and the
target always is. So at least one item is predicted, and the mean over masked positions is never 0/0.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..common.schemas import PAD_ITEM, Prefixes
from ..config.training import BaselineConfig
from .sequence import ItemModel, ItemTransformer, init_weights, pad_left

MASK_SHARE = 0.2  # the share of a history's items; the paper tunes it for each data set, 0.2 to 0.6


class BERT4Rec(ItemModel):
    """A bidirectional transformer with an embedding for masked items.

    Args:
        n_items: N.
        settings: the section ``baselines``.
        max_length: of a history, in items.
    """

    def __init__(self, n_items: int, settings: BaselineConfig, max_length: int):
        super().__init__(n_items, settings.d)
        s = settings
        self.mask = nn.Parameter(torch.zeros(s.d))
        self.reader = ItemTransformer(s.d, s.num_layers, s.num_heads, s.dropout, max_length + 1, causal=False)
        self.out = nn.Sequential(nn.Linear(s.d, s.d), nn.GELU(), nn.LayerNorm(s.d))
        self.bias = nn.Parameter(torch.zeros(n_items))
        self.apply(init_weights)
        nn.init.normal_(self.mask, std=self.items.weight.std().item())

    def states(self, sequence: Tensor, masked: Tensor) -> Tensor:
        """States (B, L, d) of items (B, L), newest last; items where ``masked`` (B, L) is True are hidden."""
        x = torch.where(masked[..., None], self.mask, self.items(sequence.clamp_min(0)))
        return self.out(self.reader(x, (sequence != PAD_ITEM) | masked))

    def scores(self, prefixes: Prefixes) -> Tensor:
        """Scores of all items after each history: (B, N)."""
        history = pad_left(prefixes.history, prefixes.length)
        sequence = F.pad(history, (0, 1), value=PAD_ITEM)
        masked = torch.zeros_like(sequence, dtype=torch.bool)
        masked[:, -1] = True
        return self.states(sequence, masked)[:, -1] @ self.items.weight.T + self.bias

    def loss(self, prefixes: Prefixes) -> Tensor:
        """Mean of -log P(item | items that are not masked) over all masked positions of the batch."""
        history = pad_left(prefixes.history, prefixes.length)
        sequence = torch.cat([history, prefixes.target[:, None]], dim=1)
        masked = (torch.rand(sequence.shape, device=sequence.device) < MASK_SHARE) & (sequence != PAD_ITEM)
        masked[:, -1] = True
        states = self.states(sequence, masked)[masked]
        return F.cross_entropy((states @ self.items.weight.T + self.bias).float(), sequence[masked])
