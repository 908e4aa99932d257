"""k-means: every centre is used, dead codes are replaced, and runs repeat."""

from __future__ import annotations

import torch
from small_codes import clusters

from streamrec_lite.tokenizer.kmeans import kmeans, lloyd, nearest, replace_dead_codes


def test_dead_codes_move_to_the_worst_fitted_rows():
    h = torch.tensor([[0.0], [1.0], [5.0], [5.0], [-3.0]])
    book = torch.tensor([[0.0], [100.0], [200.0]])
    moved = replace_dead_codes(book, h, nearest(h, book))
    assert moved.tolist() == [1, 2]
    assert sorted(book[1:, 0].tolist()) == [-3.0, 5.0]  # two equal rows get one code, not two
    assert torch.bincount(nearest(h, book), minlength=3).tolist() == [2, 2, 1]
    assert len(replace_dead_codes(book, h, nearest(h, book))) == 0


def test_replacement_leaves_a_row_to_every_used_code():
    h = torch.tensor([[0.0], [0.1], [10.0], [13.0]])
    book = torch.tensor([[0.0], [11.5], [100.0], [200.0]])  # the two worst rows have the same code
    moved = replace_dead_codes(book, h, nearest(h, book))
    assert moved.tolist() == [2, 3]
    assert torch.bincount(nearest(h, book), minlength=4).tolist() == [1, 1, 1, 1]


def test_replacement_stops_where_no_row_is_badly_fitted():
    h = torch.ones(4, 2)
    book = torch.tensor([[1.0, 1.0], [9.0, 9.0]])
    assert len(replace_dead_codes(book, h, nearest(h, book))) == 0
    assert book[1].tolist() == [9.0, 9.0]


def test_kmeans_finds_separate_groups_and_uses_every_centre():
    x = clusters()
    book = kmeans(x, 20, seed=3)
    assert len(nearest(x, book).unique()) == 20
    assert torch.equal(book, kmeans(x, 20, seed=3))
    collapsed = lloyd(x, torch.full((20, 12), 50.0), steps=10)
    assert len(nearest(x, collapsed).unique()) == 20
