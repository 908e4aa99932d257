"""GRU4Rec (Hidasi et al., 2016): a recurrent network over the history; its last state scores the items.

The paper trains with in-batch negatives; here the loss is over the whole catalogue (Hidasi and
Karatzoglou, 2018, show that more negatives help).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..common.schemas import Prefixes
from ..config.training import BaselineConfig
from .sequence import ItemModel, init_weights


class GRU4Rec(ItemModel):
    """One GRU layer of width 2d, and a linear layer to the width d of the items.

    Args:
        n_items: N.
        settings: the section ``baselines``.
        max_length: of a history; not used.
    """

    def __init__(self, n_items: int, settings: BaselineConfig, max_length: int):
        super().__init__(n_items, settings.d)
        self.dropout = nn.Dropout(settings.dropout)
        self.gru = nn.GRU(settings.d, 2 * settings.d, batch_first=True)
        self.out = nn.Linear(2 * settings.d, settings.d)
        self.apply(init_weights)
        for name, parameter in self.gru.named_parameters():
            nn.init.zeros_(parameter) if "bias" in name else nn.init.xavier_uniform_(parameter)

    def state(self, prefixes: Prefixes) -> Tensor:
        """The last hidden state of each history (B, d)."""
        x = self.dropout(self.items(prefixes.history.clamp_min(0)))
        states, _ = self.gru(x)  # states of padding are computed and ignored
        row = torch.arange(prefixes.n_examples, device=x.device)
        return self.out(states[row, prefixes.length - 1])
