"""Tables of the two protocols, all items and new items only (notebooks 01 and 09)."""

from __future__ import annotations

import pandas as pd
import torch
from torch import Tensor

from ...common.schemas import Splits
from ...data.dataset import Dataset
from ...data.sequences import items_before_test, repeat_shares
from ...evaluation.evaluate import Recommender
from ...evaluation.metrics import LEFT_OUT, metric_per_user

ALL, SAME_USERS, NEW = "all items", "all items, new targets", "new items only"


def repeat_table(dataset: Dataset) -> pd.DataFrame:
    """How often the target is an item that the user has taken before, a row for each split."""
    names = {"train": "training", "valid": "validation", "test": "test"}
    shares = repeat_shares(dataset.sequences, dataset.split)
    return pd.DataFrame({"targets that are repeats (%)": {names[s]: 100 * x for s, x in shares.items()}})


@torch.no_grad()
def history_places(model: Recommender, splits: Splits, k: int = 10) -> float:
    """The share of the first k places that items of the test users' own histories take, all items ranked."""
    topk, history = model.topk(splits.test, k), items_before_test(splits)
    return float((topk[..., None] == history[:, None]).any(dim=2).double().mean())


def protocol_table(
    ranks: dict[str, list[Tensor]], new_ranks: dict[str, list[Tensor]], metric: str = "N@10"
) -> pd.DataFrame:
    """A metric in both protocols, a row for each model, the mean over seeds.

    The columns: all items; all items, but only the users that count for new items; new items only, with the
    same users; what the second gains by that; and the model's place in each protocol.

    Args:
        ranks: model -> ranks (users,) of each seed, all items.
        new_ranks: the same, new items only; -1 for users that do not count.
        metric: of ``METRIC_NAMES``.
    """

    def mean(values: list[Tensor], users: Tensor | slice) -> float:
        return float(torch.stack([metric_per_user(r, metric)[users].mean() for r in values]).mean())

    rows = {}
    for model, every in ranks.items():
        counted = new_ranks[model][0] != LEFT_OUT
        new = mean(new_ranks[model], counted)
        same_users = mean(every, counted)
        rows[model] = {
            ALL: mean(every, slice(None)),
            SAME_USERS: same_users,
            NEW: new,
            "gain": new - same_users,
        }
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis(metric)
    for column in (ALL, NEW):
        table[f"place ({column})"] = table[column].rank(ascending=False, method="min").astype("Int64")
    return table
