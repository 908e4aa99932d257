"""Branches: a second sequence behind the first one gives what it would give on its own."""

from __future__ import annotations

import pytest
import torch
from tiny_world import small_world

from streamrec_lite.common.schemas import BOS, FIRST_CODE
from streamrec_lite.model.branches import branch_bias, decode_branches


def setting():
    model, tokenizer, users = small_world()
    states, mask = model.encode_history(tokenizer, users.history)
    inputs = torch.randint(FIRST_CODE, model.vocab_size, (len(states), 5))
    inputs[:, 0] = BOS
    return model, states, mask, inputs


@torch.no_grad()
def test_branches_give_what_sequences_of_their_own_give():
    model, states, mask, inputs = setting()
    late = torch.randint(FIRST_CODE, model.vocab_size, (2, 2))  # continues three inputs of users 0 and 1
    early = torch.randint(FIRST_CODE, model.vocab_size, (len(states) - 2, 4))  # BOS of the others, longer
    cross = model.cross_keys_values(states, "thinking")
    first, (a, b) = decode_branches(model, inputs, [(3, late), (1, early)], cross, mask)
    assert torch.allclose(first, model.decode(inputs, states, mask, "thinking"), atol=1e-5)
    alone = model.decode(torch.cat([inputs[:2, :3], late], 1), states[:2], mask[:2], "thinking")
    assert torch.allclose(a, alone[:, 2:], atol=1e-5)
    alone = model.decode(torch.cat([inputs[2:, :1], early], 1), states[2:], mask[2:], "thinking")
    assert torch.allclose(b, alone, atol=1e-5)


@torch.no_grad()
def test_without_branches_it_is_a_plain_pass():
    model, states, mask, inputs = setting()
    hidden, none = decode_branches(model, inputs, [], model.cross_keys_values(states, "thinking"), mask)
    assert none == [] and torch.allclose(hidden, model.decode(inputs, states, mask, "thinking"), atol=1e-5)


@pytest.mark.parametrize("fork", [1, 3])
def test_a_branch_sees_what_it_continues_and_itself(fork: int):
    model, *_ = setting()
    sees = branch_bias(model, T=3, fork=fork, width=2, decoder="thinking")[0, 0].isfinite().int().tolist()
    assert sees[:3] == [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0]]
    kept = [1 if t < fork else 0 for t in range(3)]
    assert sees[3:] == [[*kept, 1, 0], [*kept, 1, 1]]


def test_gradients_of_a_branch_reach_what_it_continues_and_nothing_else():
    model, states, mask, inputs = setting()
    states = states.detach().requires_grad_()
    tokens = torch.randint(FIRST_CODE, model.vocab_size, (1, 2))
    rest = torch.randint(FIRST_CODE, model.vocab_size, (len(states) - 1, 2))
    branches = [(3, tokens), (1, rest)]
    _, (mine, _) = decode_branches(model, inputs, branches, model.cross_keys_values(states, "thinking"), mask)
    mine.sum().backward()
    assert states.grad[0].abs().sum() > 0 and states.grad[1:].abs().sum() == 0
