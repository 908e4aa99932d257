"""Batches and shape checks."""

from __future__ import annotations

import pytest
import torch

from streamrec_lite.common.schemas import PAD_ITEM, Prefixes, check_shape


def prefixes() -> Prefixes:
    history = torch.tensor([[1, 2, 3], [4, PAD_ITEM, PAD_ITEM], [5, 6, PAD_ITEM]])
    return Prefixes(history, torch.tensor([3, 1, 2]), torch.tensor([7, 8, 9]), torch.arange(3))


def test_select_cuts_to_the_longest():
    chosen = prefixes().select(torch.tensor([2, 1]))
    assert chosen.history.tolist() == [[5, 6], [4, PAD_ITEM]]
    assert (chosen.length.tolist(), chosen.target.tolist(), chosen.user.tolist()) == ([2, 1], [9, 8], [2, 1])
    assert chosen.n_examples == 2
    assert prefixes().select(torch.tensor([], dtype=torch.long)).n_examples == 0


def test_to_moves_every_field():
    assert all(field.device.type == "meta" for field in prefixes().to("meta"))


def test_check_shape():
    check_shape("x", torch.zeros(2, 3), 2, None)
    for expected in [(2,), (3, None), (2, 3, 1)]:
        with pytest.raises(ValueError, match="x has shape"):
            check_shape("x", torch.zeros(2, 3), *expected)
