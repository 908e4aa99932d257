"""The report: differences to TIGER by hand, and equal intervals for models that answer alike."""

from __future__ import annotations

import pytest
import torch

from streamrec_lite.evaluation.rows import versus


def test_differences_to_tiger_by_hand():
    tiger = [torch.tensor([1, 0, 2, 0]), torch.tensor([1, 0, 0, 0])]  # two seeds, four users
    other = [torch.tensor([0, 1, 2, 7]), torch.tensor([0, 1, 2, 7])]
    gap = versus({"TIGER": tiger, "SASRec": other}, "TIGER", 200)
    assert set(gap) == {"SASRec"}
    assert gap["SASRec"]["R@10"]["mean_difference"] == pytest.approx(3 / 4 - (2 / 4 + 1 / 4) / 2)
    assert gap["SASRec"]["R@5"]["mean_difference"] == pytest.approx(2 / 4 - (2 / 4 + 1 / 4) / 2)


def test_models_that_answer_alike_have_equal_intervals():
    generator = torch.Generator().manual_seed(0)
    tiger, one = (torch.randint(0, 11, (200,), generator=generator) for _ in range(2))
    gap = versus({"TIGER": [tiger], "STREAM-Rec-SFT": [one], "STREAM-Rec-RL": [one.clone()]}, "TIGER", 200)
    assert gap["STREAM-Rec-SFT"] == gap["STREAM-Rec-RL"]
    assert gap["STREAM-Rec-RL"]["N@10"]["low"] < gap["STREAM-Rec-RL"]["N@10"]["high"]
