"""DPO by hand, its gradient, and pi_ref's log-probabilities against a plain teacher-forced pass."""

from __future__ import annotations

import math

import pytest
import torch
from tiny_world import small_world

from streamrec_lite.inference.beam_search import answer_log_probs
from streamrec_lite.model.sequences import shift_right
from streamrec_lite.training.dpo import dpo_loss, reference_log_probs


def test_loss_by_hand():
    """beta 0.5: margins of 2 and of -1 nats over pi_ref give log(1 + e^-1) and log(1 + e^0.5)."""
    chosen, rejected = torch.tensor([-1.0, -4.0]), torch.tensor([-5.0, -3.5])
    ref_chosen, ref_rejected = torch.tensor([-2.0, -3.0]), torch.tensor([-4.0, -3.5])
    loss = dpo_loss(chosen, rejected, ref_chosen, ref_rejected, beta=0.5)
    want = torch.tensor([math.log(1 + math.exp(-1.0)), math.log(1 + math.exp(0.5))])
    torch.testing.assert_close(loss, want)


def test_at_the_reference_it_is_the_log_of_two_and_pulls_both_ways():
    chosen = torch.tensor([-3.0], requires_grad=True)
    rejected = torch.tensor([-2.0], requires_grad=True)
    loss = dpo_loss(chosen, rejected, chosen.detach(), rejected.detach(), beta=0.2)
    assert loss.item() == pytest.approx(math.log(2))
    loss.sum().backward()
    assert chosen.grad.item() == pytest.approx(-0.1)  # -beta * sigmoid(0)
    assert rejected.grad.item() == pytest.approx(0.1)


def test_gradient_equals_a_finite_difference():
    values = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    values.requires_grad_()
    assert torch.autograd.gradcheck(lambda v: dpo_loss(*v, 0.7), (values,))


@torch.no_grad()
@pytest.mark.parametrize("batch_size", [1, 4])
def test_reference_is_the_direct_decoders_teacher_forced_log_probability(batch_size):
    model, tokenizer, users = small_world()
    neighbours = torch.randint(0, 40, (40, 5), generator=torch.Generator().manual_seed(1))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    table = reference_log_probs(model, tokenizer, users, neighbours, batch_size)
    assert table.shape == (6, 6)
    states, mask = model.encode_history(tokenizer, users.history)
    for column in range(6):
        items = users.target if column == 0 else neighbours[users.target, column - 1]
        hidden = model.decode(shift_right(tokenizer.tokens[items]), states, mask, "direct")
        want = answer_log_probs(model, tokenizer, hidden, items).sum(1)
        torch.testing.assert_close(table[:, column], want, atol=1e-5, rtol=0)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
