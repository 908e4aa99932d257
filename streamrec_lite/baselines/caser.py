"""Caser (Tang and Wang, 2018): convolutions over the last few items, and who the user is.

The newest ``WINDOW`` items are a picture of WINDOW x d. Horizontal filters of every height look for
what stands together ("this, then that, whatever lies between"), vertical ones weigh the places. The
paper scores with an output table of its own; here the items' table serves, as in every baseline.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..schemas import PAD_ITEM, Prefixes
from .sequence import ItemModel, newest_last, start_small

WINDOW = 5  # the paper's L
HORIZONTAL, VERTICAL = 16, 4  # filters of each height; weighted sums over the places


class Caser(ItemModel):
    """Args: as SASRec's, and ``n_users``: a user without a training prefix keeps the zero vector."""

    def __init__(self, n_items: int, settings, places: int, n_users: int):
        d = settings.d
        super().__init__(n_items, d)
        self.users = nn.Embedding(n_users, d)
        self.horizontal = nn.ModuleList(
            nn.Conv2d(1, HORIZONTAL, (height, d)) for height in range(1, WINDOW + 1)
        )
        self.vertical = nn.Conv2d(1, VERTICAL, (WINDOW, 1))
        self.dropout = nn.Dropout(settings.dropout)
        self.mix = nn.Linear(HORIZONTAL * WINDOW + VERTICAL * d, d)
        self.out = nn.Linear(2 * d, d)
        self.apply(start_small)
        nn.init.zeros_(self.users.weight)

    def state(self, prefixes: Prefixes) -> Tensor:
        history = newest_last(prefixes.history, prefixes.length)[:, -WINDOW:]
        history = nn.functional.pad(history, (WINDOW - history.shape[1], 0), value=PAD_ITEM)
        picture = self.items(history.clamp_min(0)).masked_fill((history == PAD_ITEM)[..., None], 0.0)
        picture = picture[:, None]  # (B, 1, WINDOW, d)
        found = [torch.relu(filters(picture)).squeeze(3).amax(dim=2) for filters in self.horizontal]
        parts = torch.cat([*found, self.vertical(picture).flatten(1)], dim=1)
        z = torch.relu(self.mix(self.dropout(parts)))
        return self.out(torch.cat([z, self.users(prefixes.user)], dim=1))
