"""The report: differences to TIGER by hand, and equal intervals for models that answer alike."""

from __future__ import annotations

import math

import pytest
import torch

from streamrec_lite.baselines.counting import Popularity
from streamrec_lite.common.schemas import Prefixes, Splits
from streamrec_lite.evaluation.rows import evaluate_splits, summary, versus


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


def test_users_that_are_left_out_are_in_no_difference():
    every = versus({"TIGER": [torch.tensor([1, 0, 2])], "Markov": [torch.tensor([0, 1, 2])]}, "TIGER", 200)
    tiger, markov = torch.tensor([1, -1, 0, -1, 2]), torch.tensor([0, -1, 1, -1, 2])
    assert versus({"TIGER": [tiger], "Markov": [markov]}, "TIGER", 200) == every
    nobody = torch.tensor([-1, -1])
    assert versus({"TIGER": [nobody], "Markov": [nobody]}, "TIGER", 200) == {}


def test_a_row_has_both_protocols():
    history, length = torch.tensor([[0, 1], [2, 3], [4, 0]]), torch.tensor([2, 2, 2])
    valid = Prefixes(history[:, :1], length - 1, history[:, 1], torch.arange(3))
    test = Prefixes(history, length, torch.tensor([5, 2, 1]), torch.arange(3))  # the second takes 2 again
    nothing = valid.select(torch.arange(0))
    model = Popularity(torch.zeros(6, dtype=torch.long), torch.arange(6))
    row, ranks = evaluate_splits(model, Splits(nothing, valid, test))
    assert ranks["test"].tolist() == [6, 3, 2] and ranks["test_new"].tolist() == [4, -1, 1]
    assert list(row) == ["valid", "test", "test_new", "users_new", "users_per_second"]
    assert row["users_new"] == 2 and row["test_new"]["R@10"] == 1.0
    assert row["test_new"]["N@10"] == pytest.approx((1 / math.log2(5) + 1) / 2)
    assert summary([row, row])["test_new"]["R@5"] == {"mean": 1.0, "sd": 0.0}
