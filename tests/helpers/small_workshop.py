"""A workshop of four parts, small enough to follow by hand, with semantic IDs and a model."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import torch
from tiny_world import SIZES

from streamrec_lite.common.schemas import PAD_ITEM, Prefixes
from streamrec_lite.data.workshop_world import WorkshopWorld
from streamrec_lite.inference.recommender import StreamRec
from streamrec_lite.model.backbone import Backbone
from streamrec_lite.tokenizer.semantic_ids import SemanticTokenizer

# Four parts (0..3), two guides (4: A, 5: B) and one consumable (6).
WORLD = WorkshopWorld(
    leads_to=np.array([[3, 2, 1, 0], [1, 2, 3, 0], [2, 0, 3, 1]]), noise=0.1, n_items=7, guide_name=("A", "B")
)
NAMES = ("part 0", "part 1", "part 2", "part 3", "guide A", "guide B", "glue")
CATALOGUE = SimpleNamespace(
    items=pd.DataFrame({"title": NAMES}), n_items=7, name="workshop", world=WORLD, item_ids=list(NAMES)
)
# Item i has the code (3 i) mod 8, so that code 5 names no item: 3 * 7 = 21 = 5 modulo 8.
IDS = SemanticTokenizer.from_codes(3 * torch.arange(7)[:, None] % 8, 8)


def prefixes_of(*rows: list[int], target: list[int] | None = None) -> Prefixes:
    """Histories with their targets, by default the goals of the errands."""
    width = max(map(len, rows))
    history = torch.tensor([[*row, *[PAD_ITEM] * (width - len(row))] for row in rows])
    length = torch.tensor([len(row) for row in rows])
    users = Prefixes(history, length, torch.zeros(len(rows), dtype=torch.long), torch.arange(len(rows)))
    goal = WORLD.path(users, 4)[:, -1] if target is None else torch.tensor(target)
    return users._replace(target=goal)


def tokens_of(*rows: list[int]) -> torch.Tensor:
    """The thoughts that name these items."""
    return IDS.tokens[torch.tensor(rows), 0]


def thinker(l: int = 3, seed: int = 0) -> StreamRec:
    """An untrained model that thinks l thoughts."""
    torch.manual_seed(seed)
    model = Backbone(SIZES, IDS.vocab_size, ("direct", "thinking")).eval()
    return StreamRec(model, IDS, beams=7, l=l, think="greedy")
