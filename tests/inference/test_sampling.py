"""Draws: as often as their probabilities say, impossible ones never, and answers that are items."""

from __future__ import annotations

import pytest
import torch
from tiny_world import small_world

from streamrec_lite.common.schemas import BOS, FIRST_CODE
from streamrec_lite.inference.sampling import items_of_tokens, sample_answers, sample_categorical
from streamrec_lite.inference.step_decoder import StepDecoder
from streamrec_lite.inference.thinking import generate_thoughts
from streamrec_lite.model.sequences import history_tokens


@pytest.mark.parametrize("n", [1, 20_000])
def test_draws_come_as_often_as_their_probabilities_say(n):
    torch.manual_seed(0)
    p = torch.tensor([[0.5, 0.0, 0.3, 0.2], [0.0, 0.0, 1.0, 0.0]])
    drawn = torch.cat([sample_categorical(p.log(), n)[0] for _ in range(20_000 // n)], dim=1)
    assert drawn.shape == (2, 20_000)
    share = torch.stack([(drawn == k).double().mean(dim=1) for k in range(4)], dim=1)
    assert share[p == 0].eq(0).all()
    assert (share - p).abs().max() < 0.02  # 5.7 standard errors of 0.0035


def test_draws_know_their_log_probabilities():
    torch.manual_seed(0)
    logits = 30 * torch.randn(40, 7)
    drawn, log_prob = sample_categorical(logits, 5)
    torch.testing.assert_close(log_prob, logits.log_softmax(-1).gather(1, drawn), atol=1e-5, rtol=0)


@torch.no_grad()
def test_answers_are_items_and_come_as_often_as_their_log_probs_say():
    """Of 4,000 answers to one user each item comes as often as its log-probability says."""
    model, tokenizer, users = small_world()
    states, mask = model.encode(history_tokens(tokenizer.tokens, users.history[:1]))
    stepper = StepDecoder(model, states, mask, "thinking")
    hidden = stepper.step(torch.tensor([BOS]))
    stepper.select(torch.zeros(4000, dtype=torch.long))
    tokens, items, log_prob = sample_answers(stepper, tokenizer.trie, hidden.expand(4000, -1))
    assert torch.equal(tokenizer.tokens[items], tokens)
    assert torch.equal(items_of_tokens(tokenizer.trie, tokens), items)
    for item in items.unique():
        rows = items == item
        p = log_prob[rows].sum(dim=1).exp()
        assert p.max() - p.min() < 1e-5
        error = (p[0] * (1 - p[0]) / 4000).sqrt()
        assert abs(rows.double().mean() - p[0]) < 5 * error + 1e-4


def test_tokens_that_name_no_item():
    _, tokenizer, _ = small_world()
    own = tokenizer.tokens[7]
    wrong_level, special = own.flip(0), own.clone()
    special[1] = FIRST_CODE - 1
    named = items_of_tokens(tokenizer.trie, torch.stack([own, wrong_level, special]))
    assert named.tolist() == [7, -1, -1]


@torch.no_grad()
@pytest.mark.parametrize("l", [0, 1, 3])
def test_first_thoughts_are_independent_draws(l):
    """n trains a user, all of them read by the stepper, the first thoughts not all alike."""
    torch.manual_seed(0)
    model, tokenizer, users = small_world()
    stepper = StepDecoder.start(model, tokenizer, users.history)
    found = generate_thoughts(stepper, l, "sample", 8)
    assert found.token.shape == (6, 8, l) and found.hidden.shape == (6, 8, l + 1, 16)
    assert stepper.layout.owner.tolist() == [user for user in range(6) for _ in range(8)]
    if l:
        assert all(len(row.unique()) > 1 for row in found.token[:, :, 0])
    torch.testing.assert_close(found.log_prob, found.token_log_prob.sum(dim=-1))
