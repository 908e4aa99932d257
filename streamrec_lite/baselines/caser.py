"""Caser (Tang and Wang, 2018): convolutions over the last few items.

The embeddings of the newest ``WINDOW`` items are an image of WINDOW x d. Horizontal filters of every height
find patterns of items ("this one, then that one"), vertical filters are weighted sums over the positions.

Two departures from the paper. The paper scores items with a separate output table; here it is the input
table, as in every baseline. And the paper adds a vector for each user, which is left out: users of
scientific-2018 have about four training targets, and the vector memorises them instead of learning
patterns (validation N@10 0.0396 with it, 0.0655 without, at learning rate 0.003 and dropout 0.5).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..common.schemas import PAD_ITEM, Prefixes
from ..config.training import BaselineConfig
from .sequence import ItemModel, init_weights, pad_left

WINDOW = 5  # the paper's L
N_HORIZONTAL, N_VERTICAL = 16, 4  # filters of each height; vertical filters


class Caser(ItemModel):
    """Horizontal and vertical convolutions; a linear layer maps their results to one state.

    Args:
        n_items: N.
        settings: the section ``baselines``.
        max_length: of a history; not used, as only ``WINDOW`` items are read.
    """

    def __init__(self, n_items: int, settings: BaselineConfig, max_length: int):
        d = settings.d
        super().__init__(n_items, d)
        self.horizontal = nn.ModuleList(
            nn.Conv2d(1, N_HORIZONTAL, (height, d)) for height in range(1, WINDOW + 1)
        )
        self.vertical = nn.Conv2d(1, N_VERTICAL, (WINDOW, 1))
        self.dropout = nn.Dropout(settings.dropout)
        self.mix = nn.Linear(N_HORIZONTAL * WINDOW + N_VERTICAL * d, d)
        self.out = nn.Linear(d, d)
        self.apply(init_weights)

    def state(self, prefixes: Prefixes) -> Tensor:
        """The state after each history: (B, d)."""
        history = pad_left(prefixes.history, prefixes.length)[:, -WINDOW:]
        history = nn.functional.pad(history, (WINDOW - history.shape[1], 0), value=PAD_ITEM)
        image = self.items(history.clamp_min(0)).masked_fill((history == PAD_ITEM)[..., None], 0.0)
        image = image[:, None]  # (B, 1, WINDOW, d)
        horizontal = [torch.relu(filters(image)).squeeze(3).amax(dim=2) for filters in self.horizontal]
        parts = torch.cat([*horizontal, self.vertical(image).flatten(1)], dim=1)
        return self.out(torch.relu(self.mix(self.dropout(parts))))
