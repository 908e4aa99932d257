"""Batches and shape checks."""

from __future__ import annotations

import pytest
import torch

from streamrec_lite.common.errors import BadInput, did_you_mean
from streamrec_lite.common.schemas import PAD_ITEM, Prefixes, check_shape


def prefixes() -> Prefixes:
    history = torch.tensor([[1, 2, 3], [4, PAD_ITEM, PAD_ITEM], [5, 6, PAD_ITEM]])
    return Prefixes(history, torch.tensor([3, 1, 2]), torch.tensor([7, 8, 9]), torch.arange(3))


def test_take_cuts_to_the_longest():
    some = prefixes().select(torch.tensor([2, 1]))
    assert some.history.tolist() == [[5, 6], [4, PAD_ITEM]]
    assert (some.length.tolist(), some.target.tolist(), some.user.tolist()) == ([2, 1], [9, 8], [2, 1])
    assert some.n_examples == 2
    assert prefixes().select(torch.tensor([], dtype=torch.long)).n_examples == 0


def test_to_moves_every_field():
    assert all(field.device.type == "meta" for field in prefixes().to("meta"))


def test_check_shape():
    check_shape("x", torch.zeros(2, 3), 2, None)
    for expected in [(2,), (3, None), (2, 3, 1)]:
        with pytest.raises(ValueError, match="x has shape"):
            check_shape("x", torch.zeros(2, 3), *expected)


def test_bad_input_is_one_line_and_survives_a_pool():
    import copy

    error = BadInput("a\nb", "rule", "remedy")
    assert str(error) == "a b: rule; remedy"
    assert str(copy.copy(error)) == str(error)
    assert did_you_mean("lite ", ["smoke", "lite"]) == "did you mean 'lite'? choose one of lite, smoke"


def test_public_names_are_what_they_say():
    import streamrec_lite

    for name in streamrec_lite.__all__:
        value = getattr(streamrec_lite, name)
        assert callable(value), name
        assert value.__name__ == name
    with pytest.raises(AttributeError, match="thinkk"):
        _ = streamrec_lite.thinkk
