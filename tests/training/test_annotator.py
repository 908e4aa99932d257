"""The annotator: eq. 12 by hand, cache against no cache, and what thoughts say."""

from __future__ import annotations

import math

import pytest
import torch
from tiny_world import small_world

from streamrec_lite.common.errors import BadInput
from streamrec_lite.common.schemas import BOS, FIRST_CODE
from streamrec_lite.model.heads import Head
from streamrec_lite.model.item_representation import represent_items
from streamrec_lite.tokenizer.semantic_ids import SemanticTokenizer
from streamrec_lite.training.annotator import STRATEGIES, annotate, informativeness


@torch.no_grad()
def one_by_one(model, tokenizer, users, l):
    """Eqs 12 and 13 as printed: the decoder starts from BOS at every step, one user after the other."""
    everything = represent_items(model, tokenizer, torch.arange(tokenizer.n_items))
    codes = model.shared.weight[FIRST_CODE:]
    thoughts, norms, ranks = [], [], []
    for row in range(users.n_examples):
        history = users.history[row : row + 1, : users.length[row]]
        states, mask = model.encode_history(tokenizer, history)
        t = everything[users.target[row]]
        written, moved, place = [], [], []
        for i in range(l + 1):
            d = model.decode(torch.tensor([[BOS, *written]]), states, mask, "thinking")
            s = model.states(d)[0, i]
            moved.append((t - s).norm().item())
            scores = everything @ s
            place.append(1 + int((scores > scores[users.target[row]]).sum()))
            r = model.residual_head(t - s)
            written.append(FIRST_CODE + int((codes - r).norm(dim=1).argmin()))
        thoughts.append(written[:l])
        norms.append(moved)
        ranks.append(place)
    return torch.tensor(thoughts), torch.tensor(norms), torch.tensor(ranks)


def test_annotation_with_the_cache_equals_annotation_without():
    model, tokenizer, users = small_world()
    traces = annotate(model, tokenizer, users, 4, batch_size=4)
    thoughts, norms, ranks = one_by_one(model, tokenizer, users, 4)
    assert torch.equal(traces.thought, thoughts)
    torch.testing.assert_close(traces.norm, norms, atol=1e-4, rtol=0)
    assert torch.equal(traces.rank, ranks)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_thoughts_are_codes(strategy):
    model, tokenizer, users = small_world()
    neighbours = torch.randint(0, 40, (40, 5))
    for l in (1, 4, 7):
        traces = annotate(model, tokenizer, users, l, strategy, neighbours)
        assert traces.thought.shape == (6, l)
        assert traces.norm.shape == traces.rank.shape == (6, l + 1)
        assert int(traces.thought.min()) >= FIRST_CODE  # never PAD, BOS or ANSWER
        assert int(traces.thought.max()) < tokenizer.vocab_size
        assert int(traces.rank.min()) >= 1


def test_other_strategies_by_hand():
    model, tokenizer, users = small_world()
    neighbours = (torch.arange(40)[:, None] + torch.arange(1, 4)) % 40
    own = annotate(model, tokenizer, users, 4, "own-codes").thought
    tokens = tokenizer.tokens[users.target]
    assert torch.equal(own, torch.cat([tokens, tokens[:, :1]], dim=1))
    near = annotate(model, tokenizer, users, 4, "nearest-items", neighbours).thought
    first, second = (tokenizer.tokens[(users.target + i) % 40] for i in (1, 2))
    assert torch.equal(near, torch.cat([first, second[:, :1]], dim=1))
    one, other = (annotate(model, tokenizer, users, 4, "random", seed=s).thought for s in (0, 1))
    assert not torch.equal(one, other)
    with pytest.raises(BadInput, match="residual"):
        annotate(model, tokenizer, users, 4, "residuals")


def test_no_thoughts_gives_the_first_state_alone():
    model, tokenizer, users = small_world()
    traces = annotate(model, tokenizer, users, 0)
    longer = annotate(model, tokenizer, users, 2)
    assert traces.thought.shape == (6, 0)
    torch.testing.assert_close(traces.norm, longer.norm[:, :1])


def test_a_head_starts_as_the_identity_and_states_have_the_targets_length():
    torch.manual_seed(0)
    x = torch.randn(3, 8)
    assert torch.equal(Head(8)(x), x)
    model, _, _ = small_world()
    torch.nn.init.zeros_(model.state_head.outer.weight)
    d = 100 * torch.rand(2, 5, 16)  # sums that grow with every step
    s = model.states(d)
    want = torch.full((2, 5), 0.5 * math.sqrt(16))  # deviation 0.5, as the mean of four codes has
    torch.testing.assert_close(s.norm(dim=-1), want, atol=1e-4, rtol=0)
    total = d[0, :3].sum(0)
    torch.testing.assert_close(s[0, 2], 2.0 * total / total.norm(), atol=1e-4, rtol=0)


def test_targets_are_means_of_code_embeddings():
    model, tokenizer, _ = small_world()
    by_hand = model.shared.weight[tokenizer.tokens[7]].sum(0) / 3
    torch.testing.assert_close(represent_items(model, tokenizer, torch.tensor([7]))[0], by_hand)


def test_informativeness_by_hand():
    tokenizer = SemanticTokenizer.from_codes(torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]]), 4)
    target = torch.tensor([0, 1, 2, 3] * 25)
    says = torch.tensor([5, 5, 6, 6] * 25)  # the target's first code, in other words
    dumb = torch.full_like(says, 7)
    found = informativeness(torch.stack([says, dumb], dim=1), tokenizer, target)
    assert found["used"] == [2, 1]
    assert found["entropy"] == pytest.approx([1.0, 0.0], abs=1e-12)
    assert found["information"] == pytest.approx([1.0, 0.0], abs=1e-12)
    assert found["chance"][0] < 0.1
