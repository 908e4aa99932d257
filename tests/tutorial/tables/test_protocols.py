"""Tables of the two protocols, each number worked out by hand."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from streamrec_lite.baselines.counting import Popularity
from streamrec_lite.common.schemas import Prefixes, Splits
from streamrec_lite.tutorial.tables import protocols as tables


def test_shares_of_repeats():
    dataset = SimpleNamespace(sequences=[np.array([5, 1, 5, 3, 4]), np.array([0, 1, 1])], split=None)
    table = tables.repeat_table(dataset)["targets that are repeats (%)"]
    assert table.to_dict() == {"training": 50.0, "validation": 0.0, "test": 50.0}


def test_places_that_the_history_takes():
    history, two = torch.tensor([[0, 1], [2, 5]]), torch.tensor([2, 2])
    valid = Prefixes(history[:, :1], two - 1, history[:, 1], torch.arange(2))
    splits = Splits(valid.select(torch.arange(0)), valid, Prefixes(history, two, two, torch.arange(2)))
    model = Popularity(torch.zeros(6, dtype=torch.long), torch.arange(6))
    assert tables.history_places(model, splits, k=4) == pytest.approx(3 / 8)  # 0, 1 and 2 of 0 to 3


def test_both_protocols_on_the_same_users():
    ranks = {"Markov": [torch.tensor([1, 0, 6])], "TIGER": [torch.tensor([2, 1, 0]), torch.tensor([1, 1, 1])]}
    new = {
        "Markov": [torch.tensor([1, -1, 5])],
        "TIGER": [torch.tensor([1, -1, 0]), torch.tensor([1, -1, 1])],
    }
    table = tables.protocol_table(ranks, new, "R@5")
    assert table.loc["Markov"].tolist() == pytest.approx([1 / 3, 1 / 2, 1, 1 / 2, 2, 1])
    assert table.loc["TIGER"].tolist() == pytest.approx([5 / 6, 3 / 4, 3 / 4, 0, 1, 2])
