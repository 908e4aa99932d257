"""Full rankings without some items, by hand."""

from __future__ import annotations

import torch

from streamrec_lite.evaluation.new_items import best_items, first_allowed


def test_best_items_by_hand():
    scores = torch.tensor([[0.1, 0.9, 0.5, 0.7], [0.4, 0.3, 0.2, 0.1]])
    assert best_items(scores, 2).tolist() == [[1, 3], [0, 1]]
    exclude = torch.tensor([[1, -1, -1], [0, 3, 1]])
    assert best_items(scores, 2, exclude).tolist() == [[3, 2], [2, -1]]
    assert best_items(scores, 5, exclude).tolist() == [[3, 2, 0, -1, -1], [2, -1, -1, -1, -1]]
    assert scores[0, 1] > 0.8  # the scores themselves are as before


def test_first_allowed_by_hand():
    ranked = torch.tensor([[3, 1, 0, 2], [2, 0, -1, -1]])
    assert first_allowed(ranked, 3).tolist() == [[3, 1, 0], [2, 0, -1]]
    assert first_allowed(ranked, 5).tolist() == [[3, 1, 0, 2, -1], [2, 0, -1, -1, -1]]
    exclude = torch.tensor([[1, -1], [2, 0]])
    assert first_allowed(ranked, 2, exclude).tolist() == [[3, 0], [-1, -1]]
