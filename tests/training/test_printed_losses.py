"""Equations 9 to 19 with ``--method printed``, by hand and by passes of their own."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from finetuning import pretrained
from printed import PRINTED, printed_users, uniform_world

from streamrec_lite.common.schemas import BOS, FIRST_CODE, Prefixes
from streamrec_lite.model.item_representation import item_table, represent_items
from streamrec_lite.model.sequences import token_loss
from streamrec_lite.training import finetune as finetune_module
from streamrec_lite.training.annotator import trace_batch
from streamrec_lite.training.dpo import dpo_loss
from streamrec_lite.training.finetune import finetune
from streamrec_lite.training.finetune_loss import finetune_loss
from streamrec_lite.training.loop import TrainingJob
from streamrec_lite.training.pretrain import pretrain_loss
from streamrec_lite.training.state_losses import distilled_state_loss, quantisation_losses
from streamrec_lite.training.straight_through import straight_through

STAGE_1, STAGE_2 = PRINTED.pretrain, PRINTED.sft


def test_eqs_9_to_11_are_a_sum_over_all_tokens_of_similar_items_and_target():
    """Two similar items of 3 codes, then the target's 3: q + m = 9 terms. Answers have 15 equal tokens."""
    model, tokenizer, batch = uniform_world()
    similar = torch.tensor([[4, 5], [7, 8]])
    parts = pretrain_loss(model, tokenizer, batch, similar, STAGE_1)
    assert parts["similar"].item() == pytest.approx(6 * math.log(12), abs=1e-4)  # thoughts are codes alone
    assert parts["answer"].item() == pytest.approx(3 * math.log(15), abs=1e-4)
    assert parts["direct"].item() == pytest.approx(3 * math.log(15), abs=1e-4)
    assert parts["loss"].item() == pytest.approx(6 * math.log(12) + 6 * math.log(15), abs=1e-4)


@torch.no_grad()
def test_eqs_9_to_11_token_by_token():
    """Each token of Y after all those before it, by a softmax over the vocabulary at temperature tau."""
    model, tokenizer, batch, *_ = printed_users()
    stage, similar = dataclasses.replace(STAGE_1, temperature=1.7), torch.tensor([[3, 9], [11, 2]])
    got = pretrain_loss(model, tokenizer, batch, similar, stage)
    want = {"similar": 0.0, "answer": 0.0}
    for user in range(2):
        one = batch.select(torch.tensor([user]))
        y = [*tokenizer.tokens[similar[user]].flatten().tolist(), *tokenizer.tokens[one.target[0]].tolist()]
        states, mask = model.encode_history(tokenizer, one.history)
        for place, token in enumerate(y):
            hidden = model.decode(torch.tensor([[BOS, *y[:place]]]), states, mask, "thinking")[0, -1]
            p = (hidden @ model.shared.weight.T / 16**0.5 / 1.7).exp()
            p = p[FIRST_CODE:] if place < 6 else p
            index = token - FIRST_CODE if place < 6 else token
            want["similar" if place < 6 else "answer"] += -(p[index] / p.sum()).log().item() / 2
    assert got["similar"].item() == pytest.approx(want["similar"], rel=1e-4)
    assert got["answer"].item() == pytest.approx(want["answer"], rel=1e-4)


@torch.no_grad()
def test_eqs_12_and_13_start_at_d_0_and_sum_raw_states():
    model, tokenizer, batch, *_ = printed_users()
    table, codes = item_table(model, tokenizer), model.shared.weight[FIRST_CODE:]
    found = trace_batch(model, tokenizer, batch, table, 2)
    for user in range(2):
        one = batch.select(torch.tensor([user]))
        states, mask = model.encode_history(tokenizer, one.history)
        t, read = table[one.target[0]], [BOS]
        for i in range(3):
            d = model.decode(torch.tensor([read]), states, mask, "thinking")[0]  # d_0..d_i
            s = d[0] if i == 0 else model.state_head(d.sum(dim=0))
            assert found.norm[user, i].item() == pytest.approx((t - s).norm().item(), rel=1e-4)
            if i < 2:
                o = FIRST_CODE + (codes - model.residual_head(t - s)).norm(dim=1).argmin()
                assert found.thought[user, i] == o
                read.append(int(o))


def test_eq_13_by_hand():
    """d_0 = (1, 0, ..), d_1 = (2, 4, ..): s_0 is d_0, and the untrained MLP_s leaves their sum (3, 4, ..)."""
    model, *_ = uniform_world()
    d = torch.zeros(1, 2, 16)
    d[0, 0, 0], d[0, 1, 0], d[0, 1, 1] = 1.0, 2.0, 4.0
    assert model.states(d)[0, :, :2].tolist() == [[1, 0], [3, 4]]
    torch.nn.init.ones_(model.state_head.outer.bias)
    assert model.states(d)[0, :, :2].tolist() == [[1, 0], [4, 5]]  # s_0 does not pass MLP_s
    assert torch.equal(model.state(d[:, 0], 0), model.states(d)[:, 0])


def test_eq_14_by_hand():
    """Two users, s_1 and s_2 after an s_0 that does not count; weights 1/3 and 2/3, the batch's targets."""
    model, tokenizer, batch = uniform_world()
    model.state_score_scale.data.fill_(STAGE_2.state_score_scale)
    t, s = torch.zeros(2, 16), torch.zeros(2, 3, 16)
    t[0, 0], t[1, 1] = 1.0, 1.0
    s[:, 0] = 9.0
    s[0, 1, 0], s[0, 2, 1], s[1, 1, 1], s[1, 2, 0] = 1.0, 2.0, 3.0, 1.0

    def loss(items) -> float:
        users = batch._replace(target=torch.tensor(items))
        nearby = torch.zeros(12, 1, dtype=torch.long)
        return distilled_state_loss(model, tokenizer, users, s, t, nearby, STAGE_2).item()

    e, log = math.exp, math.log
    first = (log(e(1) + 1) - 1) / 3 + 2 / 3 * log(1 + e(2))
    second = (log(1 + e(3)) - 3) / 3 + 2 / 3 * log(e(1) + 1)
    assert loss([3, 5]) == pytest.approx((first + second) / 2, abs=1e-5)
    assert loss([3, 3]) == pytest.approx((first + second) / 2, abs=1e-5)  # equal targets count, too


def test_eq_15_by_hand():
    """Residuals (1, 0) and (0, 3), codes (0, 0) and (0, 1): distances 1 and 4, a sum over the steps."""
    residual = torch.tensor([[[1.0, 0.0], [0.0, 3.0]]], requires_grad=True)
    o = torch.tensor([[[0.0, 0.0], [0.0, 1.0]]], requires_grad=True)
    loss = token_loss(quantisation_losses(residual, o, 0.25), STAGE_2.token_losses)
    assert loss.item() == pytest.approx(1.25 * (1 + 4))
    loss.backward()
    assert o.grad.tolist() == [[[-2, 0], [0, -4]]]  # codes move to residuals ...
    assert residual.grad.tolist() == [[[0.5, 0], [0, 1]]]  # ... and residuals a quarter as fast to codes


def test_straight_through_reads_codes_and_moves_residuals():
    """The gradient is that of a decoder that reads o_i + r_i - sg[r_i]; measured by finite differences."""
    model, tokenizer, batch, thought, *_ = printed_users()
    states, mask = model.encode_history(tokenizer, batch.history)
    cross = [(k.detach(), v.detach()) for k, v in model.cross_keys_values(states, "thinking", mask)]
    inputs = torch.cat([torch.full((2, 1), BOS), thought], dim=1)
    weight = torch.linspace(-1, 1, 16)

    def read(shift: torch.Tensor | None) -> torch.Tensor:
        """A loss after the thoughts: straight-through, or with residuals moved by ``shift``."""
        if shift is None:
            embedded = straight_through(model, tokenizer, batch, thought, cross, mask)
        else:
            t, embedded, o = represent_items(model, tokenizer, batch.target), None, model.shared(thought)
            for i in range(2):
                hidden = model.decode_groups(inputs[:, : i + 1], cross, mask, thoughts=embedded)
                r = model.residual_head(t - model.states(hidden)[:, -1])
                before = fixed[i] if len(fixed) > i else fixed.append(r.detach()) or fixed[i]
                step = (o[:, i] + r + shift - before)[:, None]
                embedded = step if embedded is None else torch.cat([embedded, step], dim=1)
        hidden = model.decode_groups(inputs, cross, mask, thoughts=embedded)
        return (hidden[:, -1] @ weight).sum()

    fixed: list[torch.Tensor] = []
    plain = (model.decode_groups(inputs, cross, mask)[:, -1] @ weight).sum()
    loss = read(None)
    assert loss.item() == pytest.approx(plain.item(), abs=1e-4)  # what is read is o_i
    loss.backward()
    gradient = model.residual_head.outer.bias.grad  # r_i = ... + bias
    with torch.no_grad():
        read(torch.zeros(16))  # keeps the residuals before they are moved
        for j in (0, 7, 15):
            move = torch.zeros(16)
            move[j] = 0.01
            slope = (read(move) - read(-move)).item() / 0.02
            assert gradient[j].item() == pytest.approx(slope, rel=0.02, abs=2e-3)


def test_eqs_16_to_18_by_hand():
    """log pi / pi_ref: target -2 against -3, dispreferred -4 against -3; beta 0.1 times a margin of 2."""
    log_prob = [torch.tensor([x]) for x in (-2.0, -4.0, -3.0, -3.0)]
    found = dpo_loss(*log_prob, beta=STAGE_2.dpo_beta)
    assert STAGE_2.dpo_beta == 0.1
    assert found.item() == pytest.approx(-math.log(math.exp(0.1) / (math.exp(0.1) + math.exp(-0.1))))


@torch.no_grad()
def test_eq_19_user_by_user():
    """L = L_SFT + lambda L_DPO + mu L_Quant + delta L_State, each from its equation, in passes of its own."""
    model, tokenizer, batch, thought, rejected, reference, nearby = printed_users()
    got = finetune_loss(model, tokenizer, batch, thought, rejected, reference, nearby, STAGE_2)
    t = represent_items(model, tokenizer, batch.target)
    sums = dict.fromkeys(("answer", "thoughts", "dpo", "quant", "state"), 0.0)
    for u in range(2):
        one: Prefixes = batch.select(torch.tensor([u]))
        states, mask = model.encode_history(tokenizer, one.history)
        log_prob = []
        for item in (batch.target[u], rejected[u]):
            y = torch.cat([thought[u], tokenizer.tokens[item]])  # eq. 13: no token between
            hidden = model.decode(torch.cat([torch.tensor([BOS]), y[:-1]])[None], states, mask, "thinking")
            logits = hidden[0] @ model.shared.weight.T / 16**0.5
            every = logits.log_softmax(-1)[torch.arange(5), y]
            log_prob.append(every[2:].sum())
            if item == batch.target[u]:
                codes = logits[:2, FIRST_CODE:].log_softmax(-1)
                sums["answer"] += -every[2:].sum().item() / 2
                sums["thoughts"] += -sum(codes[i, thought[u, i] - FIRST_CODE].item() for i in range(2)) / 2
                d = hidden[0]
        margin = (log_prob[0] - reference[u, 0]) - (log_prob[1] - reference[u, 1])
        sums["dpo"] += (1 + (-0.1 * margin).exp()).log().item() / 2
        s = [d[0], model.state_head(d[0] + d[1]), model.state_head(d[0] + d[1] + d[2])]
        for i in range(2):
            r = model.residual_head(t[u] - s[i])
            sums["quant"] += 1.25 * (r - model.shared(thought[u, i])).square().sum().item() / 2
            sums["state"] += -(i + 1) / 3 * (s[i + 1] @ t.T).log_softmax(-1)[u].item() / 2
    for name, want in sums.items():
        assert got[name].item() == pytest.approx(want, rel=1e-4), name
    assert "align" not in got or STAGE_2.align_weight == 0
    total = sums["answer"] + sums["thoughts"] + STAGE_2.lam * sums["dpo"]
    total += STAGE_2.mu * sums["quant"] + STAGE_2.delta * sums["state"]
    assert got["loss"].item() == pytest.approx(total, rel=1e-4)


def test_the_run_warms_nothing_up_trains_both_mlps_and_leaves_the_scale(tmp_path, monkeypatch):
    model, tokenizer, splits, neighbours = pretrained()
    stage = dataclasses.replace(STAGE_2, batch_size=16, max_epochs=1, l=2, similar_pool=3)
    job = TrainingJob(splits, dataclasses.replace(PRINTED, sft=stage), 0, tmp_path, progress=False)
    monkeypatch.setattr(finetune_module, "warm_up_state_head", None)  # a call would fail
    trained = finetune(model, job, tokenizer, neighbours).model
    assert trained.raw_states and not trained.reads_answer_token and trained.item_vectors is None
    assert trained.state_head.outer.weight.abs().max() > 0  # both start at zero
    assert trained.residual_head.outer.weight.abs().max() > 0
    assert trained.state_score_scale.item() == 1.0
