"""A small shop, its semantic IDs and a beam, for the tests of tables, figures and widgets."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from streamrec_lite.config.sections import DataConfig
from streamrec_lite.data.playground import make_playground
from streamrec_lite.tokenizer.semantic_ids import SemanticTokenizer
from streamrec_lite.tutorial.tables.tiger import items_below


@pytest.fixture(scope="module")
def shop():
    return make_playground(DataConfig(playground_items=60, playground_users=40))


@pytest.fixture(scope="module")
def ids(shop):
    generator = torch.Generator().manual_seed(0)
    books = [torch.randn(8, 5, generator=generator) for _ in range(3)]
    order = torch.randperm(512, generator=generator)[: shop.n_items]
    codes = torch.cartesian_prod(*[torch.arange(8)] * 3)[order]
    latents = sum(book[codes[:, j]] for j, book in enumerate(books)) + 0.1
    return SemanticTokenizer(codes, 8, codes, books, latents)


@pytest.fixture(scope="module")
def steps(ids):
    """A beam of three steps in the form of ``beam_steps``, with made-up scores."""
    rng, steps, alive = np.random.default_rng(0), [], [((), 0, 0.0)]
    for depth in range(3):
        rows = []
        for parent, (codes, node, score) in enumerate(alive):
            for child, code in zip(*(t.tolist() for t in ids.trie.children(depth, node)), strict=True):
                gain = float(np.log(rng.uniform(0.01, 1)))
                rows.append(((*codes, code), parent, child, gain, score + gain))
        table = pd.DataFrame(rows, columns=["codes", "parent", "node", "log_prob", "score"])
        table = table.sort_values("score", ascending=False).reset_index(drop=True)
        below = [items_below(ids.trie, depth + 1, n) for n in table["node"]]
        table["items"], table["example"] = [len(b) for b in below], [int(b[0]) for b in below]
        table["kept"] = table.index < 12
        steps.append(table)
        alive = list(table[table["kept"]][["codes", "node", "score"]].itertuples(index=False, name=None))
    return steps


@pytest.fixture
def tiny():
    """Two levels of two codes; the residuals of all four items are easy to write down."""
    books = [torch.tensor([[4.0, 0.0], [0.0, 4.0]]), torch.tensor([[0.0, 1.0], [1.0, 0.0]])]
    latents = torch.tensor([[4.0, 1.0], [5.0, 0.0], [0.0, 5.0], [0.0, 6.0]])
    raw = torch.tensor([[0, 0], [0, 1], [1, 0], [1, 0]])
    codes = torch.tensor([[0, 0], [0, 1], [1, 1], [1, 0]])  # the repair moved item 2
    return SemanticTokenizer(codes, 2, raw, books, latents)
