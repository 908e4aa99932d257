"""Caser (Tang and Wang, 2018): convolutions over the last few items.

The newest ``WINDOW`` items are a picture of WINDOW x d. Horizontal filters of every height look for
what stands together ("this, then that, whatever lies between"), vertical ones weigh the places.

Two departures from the paper. It scores with an output table of its own; here the items' table serves,
as in every baseline. And it adds a vector for each user, which is left out: with four training targets
a user, as on scientific-2018, that vector learns these by heart instead of the pattern (validation
N@10 0.0396 with it, 0.0655 without, at learning rate 0.003 and dropout 0.5).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..common.schemas import PAD_ITEM, Prefixes
from .sequence import ItemModel, newest_last, start_small

WINDOW = 5  # the paper's L
HORIZONTAL, VERTICAL = 16, 4  # filters of each height; weighted sums over the places


class Caser(ItemModel):
    """Args: as SASRec's."""

    def __init__(self, n_items: int, settings, places: int):
        d = settings.d
        super().__init__(n_items, d)
        self.horizontal = nn.ModuleList(
            nn.Conv2d(1, HORIZONTAL, (height, d)) for height in range(1, WINDOW + 1)
        )
        self.vertical = nn.Conv2d(1, VERTICAL, (WINDOW, 1))
        self.dropout = nn.Dropout(settings.dropout)
        self.mix = nn.Linear(HORIZONTAL * WINDOW + VERTICAL * d, d)
        self.out = nn.Linear(d, d)
        self.apply(start_small)

    def state(self, prefixes: Prefixes) -> Tensor:
        """The last state of each history (B, d)."""
        history = newest_last(prefixes.history, prefixes.length)[:, -WINDOW:]
        history = nn.functional.pad(history, (WINDOW - history.shape[1], 0), value=PAD_ITEM)
        picture = self.items(history.clamp_min(0)).masked_fill((history == PAD_ITEM)[..., None], 0.0)
        picture = picture[:, None]  # (B, 1, WINDOW, d)
        found = [torch.relu(filters(picture)).squeeze(3).amax(dim=2) for filters in self.horizontal]
        parts = torch.cat([*found, self.vertical(picture).flatten(1)], dim=1)
        return self.out(torch.relu(self.mix(self.dropout(parts))))
