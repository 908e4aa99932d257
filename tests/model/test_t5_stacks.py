"""Histories that share rows: the same states and gradients, and nobody reads a neighbour."""

from __future__ import annotations

import copy

import pytest
import torch
from transformers.models.t5.modeling_t5 import T5Stack

from streamrec_lite.config.sections import BackboneConfig
from streamrec_lite.model import t5_stacks
from streamrec_lite.model.t5_stacks import pack, project, run_encoder, sparse_positions, t5_config, t5_stack

SIZES = BackboneConfig(d_model=32, d_ff=48, num_layers=2, num_heads=4, d_kv=8, dropout=0.0)
LENGTH = torch.tensor([3, 16, 1, 2, 5, 4])


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    return t5_stack(SIZES, 20, is_decoder=False).eval()


def some(lengths=LENGTH):
    x = torch.randn(len(lengths), 16, 32, generator=torch.Generator().manual_seed(1))
    return x.requires_grad_(), torch.arange(16) < lengths[:, None]


def test_the_norms_of_torch_are_those_of_transformers(encoder):
    """Bit by bit, forward and backward: what was trained with the one is continued with the other."""
    torch.manual_seed(0)
    theirs = T5Stack(t5_config(SIZES, 20, is_decoder=False)).eval()
    theirs.embed_tokens = None
    assert theirs.state_dict().keys() == encoder.state_dict().keys()
    x, real = some()
    ours, other = copy.deepcopy(encoder), theirs
    other.load_state_dict(ours.state_dict())
    mine = ours(inputs_embeds=x, attention_mask=real).last_hidden_state
    yours = other(inputs_embeds=x, attention_mask=real).last_hidden_state
    assert torch.equal(mine, yours)
    pairs = zip(
        torch.autograd.grad(mine.square().sum(), list(ours.parameters())),
        torch.autograd.grad(yours.square().sum(), list(other.parameters())),
        strict=True,
    )
    assert all(torch.equal(a, b) for a, b in pairs)


def test_shared_rows_change_neither_states_nor_gradients(encoder, monkeypatch):
    x, real = some()
    packed, mask = run_encoder(encoder, x, real)
    assert torch.equal(mask, real)
    got = torch.autograd.grad(packed[real].square().sum(), [x, *encoder.parameters()])
    monkeypatch.setattr(t5_stacks, "MAX_REAL_SHARE", 0.0)
    plain, _ = run_encoder(encoder, x, real)
    want = torch.autograd.grad(plain[real].square().sum(), [x, *encoder.parameters()])
    torch.testing.assert_close(packed[real], plain[real], atol=1e-5, rtol=1e-5)
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, atol=1e-3, rtol=1e-4)


def test_nobody_reads_a_neighbour(encoder):
    """Another history, of a user who shares a row: the others' states stay as they were, bit by bit."""
    x, real = some()
    with torch.no_grad():
        before, _ = run_encoder(encoder, x, real)
        other = x.detach().clone()
        other[4] += 1.0
        after, _ = run_encoder(encoder, other, real)
    kept = torch.arange(len(x)) != 4
    assert torch.equal(before[kept][real[kept]], after[kept][real[kept]])
    assert (before[4, :5] - after[4, :5]).abs().min() > 0


@pytest.mark.parametrize("lengths", [torch.full((6,), 16), torch.tensor([16, 15, 14, 16, 9, 12])])
def test_full_batches_are_left_as_they_are(encoder, lengths):
    x, real = some(lengths)
    states, mask = run_encoder(encoder, x, real)
    assert (mask is None) == bool(real.all())
    want = encoder(inputs_embeds=x, attention_mask=None if mask is None else real).last_hidden_state
    assert torch.equal(states, want)


def test_pack_by_hand():
    """16 fills a row; 5, 4, 3, 2 and 1 fill another from its left, the longest first."""
    rows, first = pack(LENGTH, 16)
    assert rows == 2
    assert first.tolist() == [16 + 9, 0, 16 + 14, 16 + 12, 16, 16 + 5]
    rows, first = pack(torch.tensor([3, 3, 3]), 4)
    assert (rows, first.tolist()) == (3, [0, 4, 8])


def test_projecting_sparse_positions():
    x, real = some()
    layer = torch.nn.Linear(32, 8, bias=False)
    there = sparse_positions(real)
    assert there.tolist() == [16 * row + i for row, n in enumerate(LENGTH.tolist()) for i in range(n)]
    got = project(layer, x, there)
    torch.testing.assert_close(got, layer(x) * real[..., None], atol=1e-6, rtol=0)
    assert sparse_positions(None) is None
    assert sparse_positions(torch.ones(2, 4, dtype=torch.bool)) is None
