"""The health report: codebook usage by hand, and every reason to fail."""

from __future__ import annotations

import pytest
import torch
from small_codes import different_codes

from streamrec_lite.tokenizer.collisions import count_collisions
from streamrec_lite.tokenizer.health import codebook_usage, health_report


def test_codebook_usage_by_hand():
    used, perplexity = codebook_usage(torch.tensor([[0, 3], [1, 3], [0, 3], [1, 3]]), 4)
    assert used == [2, 1]
    assert perplexity == pytest.approx([2.0, 1.0])  # exp of ln 2, and of 0
    assert codebook_usage(torch.tensor([[0], [0], [0], [1]]), 4)[1][0] == pytest.approx(1.7547654, abs=1e-6)


def test_health_passes_even_codes_and_fails_a_collapsed_level():
    codes = different_codes(1000, 3, 16)
    good = health_report(codes, codes, 16)
    assert good["passed"]
    assert good["reasons"] == []
    assert good["used"] == [16, 16, 16]
    bad = codes.clone()
    bad[:, 0] %= 2  # what public code does: a first level with a few codes in use
    report = health_report(bad, codes, 16)
    assert not report["passed"]
    assert report["used"][0] == 2
    assert any("level 1 uses 2 of 16 codes" in reason for reason in report["reasons"])
    assert report["collisions_before"] == count_collisions(bad) > 0
    assert report["collisions_after"] == 0


def test_health_fails_skewed_codes_though_all_are_used():
    codes = different_codes(1000, 3, 16)
    skewed = codes.clone()
    skewed[200:, 1] = 0
    report = health_report(skewed, codes, 16)
    assert report["used"][1] == 16
    assert any("level 2 has perplexity" in reason for reason in report["reasons"])


def test_health_of_a_catalogue_smaller_than_K_says_so():
    codes = torch.tensor([[i, 0] for i in range(10)])
    report = health_report(codes, codes, 256)
    assert not report["passed"]
    assert report["used_share"] == [1.0, 0.1]
    assert "choose a smaller tokenizer.K" in report["reasons"][-1]


def test_health_fails_on_collisions_after():
    codes = different_codes(1000, 3, 16)
    codes[1] = codes[0]
    report = health_report(codes, codes, 16)
    assert report["reasons"] == ["1 items share another item's ID"]
