"""Errors of one line, and suggestions."""

from __future__ import annotations

import copy

from streamrec_lite.common.errors import BadInput, did_you_mean


def test_bad_input_is_one_line_and_survives_a_pool():
    error = BadInput("a\nb", "rule", "remedy")
    assert str(error) == "a b: rule; remedy"
    assert str(copy.copy(error)) == str(error)
    assert did_you_mean("lite ", ["smoke", "lite"]) == "did you mean 'lite'? choose one of lite, smoke"
