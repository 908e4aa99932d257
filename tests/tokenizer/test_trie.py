"""The trie by hand, and against a dictionary of all IDs."""

from __future__ import annotations

import itertools
import time

import pytest
import torch
from small_codes import TINY, different_codes

from streamrec_lite.common.errors import BadInput
from streamrec_lite.tokenizer.semantic_ids import SemanticTokenizer
from streamrec_lite.tokenizer.trie import Trie


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


def test_paths_and_padded_children_by_hand():
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
