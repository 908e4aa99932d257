"""Collision repair by hand, and against brute force."""

from __future__ import annotations

import itertools

import pytest
import torch
from small_codes import clusters

from streamrec_lite.common.errors import BadInput
from streamrec_lite.config.sections import TokenizerConfig
from streamrec_lite.tokenizer.collisions import count_collisions, repair_collisions
from streamrec_lite.tokenizer.semantic_ids import SemanticTokenizer


def line(*levels: list[float]) -> list[torch.Tensor]:
    """Codebooks on a line."""
    return [torch.tensor(level)[:, None] for level in levels]


def total_cost(codes, latents, books) -> float:
    rebuilt = sum(book[codes[:, d]] for d, book in enumerate(books))
    return float((latents - rebuilt).square().sum())


def test_repair_by_hand_moves_the_item_that_loses_least():
    # Last residuals 0.1, 0.4 and 0 (its own prefix); last codes at 0 and 1. Items 0 and 1 both want 0.
    # 0.1 -> 0 and 0.4 -> 1 costs 0.01 + 0.36; the other way 0.81 + 0.16.
    books = line([0.0, 10.0], [0.0, 1.0])
    latents = torch.tensor([[0.1], [0.4], [10.0]])
    codes = repair_collisions(torch.tensor([[0, 0], [0, 0], [1, 0]]), latents, books)
    assert codes.tolist() == [[0, 0], [0, 1], [1, 0]]


def test_repair_equals_brute_force():
    generator = torch.Generator().manual_seed(4)
    for _ in range(20):
        books = [torch.zeros(5, 2), torch.randn(5, 2, generator=generator)]
        latents = torch.randn(4, 2, generator=generator) * 0.3
        raw = torch.stack(
            [torch.zeros(4, dtype=torch.int64), torch.cdist(latents, books[1]).argmin(dim=1)], dim=1
        )
        codes = repair_collisions(raw, latents, books)
        ways = itertools.permutations(range(5), 4)
        best = min(total_cost(torch.tensor([[0, code] for code in way]), latents, books) for way in ways)
        assert count_collisions(codes) == 0
        assert total_cost(codes, latents, books) == pytest.approx(best, abs=1e-5)


def test_prefixes_without_a_collision_keep_their_codes():
    generator = torch.Generator().manual_seed(5)
    raw = torch.randint(6, (80, 3), generator=generator)
    books = [torch.randn(6, 3, generator=generator) for _ in range(3)]
    codes = repair_collisions(raw, torch.randn(80, 3, generator=generator), books)
    assert count_collisions(codes) == 0
    assert torch.equal(codes[:, :2], raw[:, :2])  # no prefix here has more than 6 items: nobody leaves one
    kept = 0
    for prefix in raw[:, :2].unique(dim=0):
        rows = (raw[:, :2] == prefix).all(dim=1)
        if count_collisions(raw[rows]) == 0:
            assert torch.equal(codes[rows], raw[rows])
            kept += int(rows.sum())
    assert 0 < kept < 80


def test_a_full_prefix_passes_its_surplus_to_the_next_cheapest():
    # Four items share prefix 0, which has three IDs; prefix 2 (at 1) is nearer than prefix 1 (at 5).
    books = line([0.0, 5.0, 1.0], [0.0, 0.5, 7.0])
    latents = torch.tensor([[0.0], [0.0], [0.1], [0.0]])
    codes = repair_collisions(torch.zeros(4, 2, dtype=torch.int64), latents, books)
    assert count_collisions(codes) == 0
    assert codes[:, 0].tolist() == [0, 0, 2, 0]  # the item at 0.1 loses least by moving to 1


@pytest.mark.parametrize(("n", "m", "K"), [(1000, 3, 256), (64, 3, 4), (63, 2, 8), (512, 3, 8)])
def test_identical_items_all_get_their_own_id_up_to_the_last_one(n, m, K):
    generator = torch.Generator().manual_seed(6)
    books = [torch.randn(K, 2, generator=generator) * 0.5**d for d in range(m)]
    raw = torch.zeros(n, m, dtype=torch.int64)
    codes = repair_collisions(raw, books[0][:1].repeat(n, 1), books)
    assert count_collisions(codes) == 0
    assert int(codes.min()) >= 0
    assert int(codes.max()) < K


def test_more_items_than_ids_is_bad_input():
    with pytest.raises(BadInput, match="give only 4 IDs"):
        repair_collisions(
            torch.zeros(5, 2, dtype=torch.int64), torch.zeros(5, 1), line([0.0, 1.0], [0.0, 1.0])
        )
    with pytest.raises(BadInput, match="give only 4 IDs"):
        SemanticTokenizer.fit(clusters(5).numpy(), TokenizerConfig(m=2, K=2), progress=False)
