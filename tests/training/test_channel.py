"""The channel from thoughts to answer: own thoughts change nothing, others' only if the answer reads them."""

from __future__ import annotations

import math

import pytest
import torch
from teacher_forcing import by_teacher_forcing
from tiny_world import small_world

from streamrec_lite.common.errors import BadInput
from streamrec_lite.evaluation.evaluate import evaluate
from streamrec_lite.inference.recommender import StreamRec
from streamrec_lite.inference.step_decoder import StepDecoder
from streamrec_lite.inference.thinking import write_thoughts
from streamrec_lite.inference.thinking_study import compare_ways_to_think
from streamrec_lite.model.sequences import history_tokens
from streamrec_lite.training import channel
from streamrec_lite.training.annotator import annotate

KINDS = ["none", "own", "another", "random", "annotated"]
NOTHING = {"mean_difference": 0.0, "low": 0.0, "high": 0.0}


def blind(model):
    """The model with thoughts and answer that see only the history and the newest token.

    The output of self-attention is zero, so an answer after ANSWER cannot depend on thoughts.
    """
    for block in model.decoders["thinking"].block:
        torch.nn.init.zeros_(block.layer[0].SelfAttention.o.weight)
    model.reads_answer_token = True
    return model


@pytest.mark.parametrize("n", [2, 3, 10, 1000])
def test_nobody_gets_their_own_thoughts(n):
    other = channel.derangement(n)
    assert (other != torch.arange(n)).all()
    assert torch.equal(other.sort().values, torch.arange(n))  # and everybody's are used once
    assert torch.equal(other, channel.derangement(n)) and (
        n < 10 or not torch.equal(other, channel.derangement(n, 1))
    )


def test_one_user_has_nobody_to_take_thoughts_from():
    with pytest.raises(BadInput, match="at least two users"):
        channel.derangement(1)


def test_the_kinds_are_what_they_are_called():
    model, tokenizer, users = small_world()
    true = torch.full((6, 1), 3)
    thoughts = channel.substitute_thoughts(model, tokenizer, users, 2, true)
    assert list(thoughts) == [*KINDS, "true"] and thoughts["none"].shape == (6, 0)
    own = write_thoughts(model, tokenizer, users, 2)
    assert torch.equal(thoughts["own"], own) and thoughts["true"] is true
    assert torch.equal(thoughts["another"], own[channel.derangement(6)])
    assert torch.equal(thoughts["annotated"], annotate(model, tokenizer, users, 2).thought)
    assert thoughts["random"].min() >= 3 and thoughts["random"].max() < tokenizer.vocab_size


@pytest.mark.parametrize("answer_token", [False, True])
def test_ranks_and_costs_are_those_of_the_beam_and_of_teacher_forcing(answer_token):
    model, tokenizer, users = small_world()
    model.reads_answer_token = answer_token
    thoughts = channel.substitute_thoughts(model, tokenizer, users, 3)
    found = channel.answers_after(model, tokenizer, users, thoughts, beams=40)
    slow = StreamRec(model, tokenizer, beams=40, l=3, think="greedy")
    assert torch.equal(found["own"].rank, evaluate(slow, users).ranks)
    slow.l = 0
    assert torch.equal(found["none"].rank, evaluate(slow, users).ranks)
    if not answer_token:
        tokens = history_tokens(tokenizer.tokens, users.history)
        for kind, thought in thoughts.items():
            _, want = by_teacher_forcing(model, tokenizer, tokens, thought, users.target)
            torch.testing.assert_close(found[kind].nats, -want, atol=1e-5, rtol=0)


def test_the_row_says_means_and_differences_to_own():
    model, tokenizer, users = small_world()
    slow = StreamRec(model, tokenizer, l=3, think="greedy")
    row = channel.measure_channel(slow, users, bootstrap=50)
    assert row["users"] == 6 and list(row["after"]) == KINDS
    own = row["after"]["own"]
    assert own["minus own"] == {"R@10": NOTHING, "N@10": NOTHING, "nats": NOTHING} and own["changed"] == 0.0
    study = compare_ways_to_think(slow, users, bootstrap=50)["l"]
    for kind, number in (("own", "3"), ("none", "0")):
        for metric in ("R@10", "N@10"):
            assert row["after"][kind][metric] == pytest.approx(study[number][metric], abs=1e-12)
    for found in row["after"].values():
        for key, gain in found["minus own"].items():
            assert gain["mean_difference"] == pytest.approx(found[key] - own[key], abs=1e-12)
            assert gain["low"] <= gain["mean_difference"] <= gain["high"]
    assert row["after"]["none"]["changed"] is None and 0 < row["after"]["random"]["changed"] <= 1


def test_true_thoughts_go_to_their_users_when_users_are_subsampled():
    model, tokenizer, users = small_world()
    true = write_thoughts(model, tokenizer, users, 2)  # each user's own, so that a mistake changes them
    row = channel.measure_channel(StreamRec(model, tokenizer, l=2, think="greedy"), users, true, 4, 50)
    assert row["users"] == 4 and row["after"]["true"] == row["after"]["own"]


def test_without_a_way_from_thoughts_to_answers_all_kinds_are_alike():
    model, tokenizer, users = small_world()
    slow = StreamRec(blind(model), tokenizer, l=3, think="greedy")
    row = channel.measure_channel(slow, users, bootstrap=50)
    for found in row["after"].values():
        assert found["nats"] == pytest.approx(row["after"]["own"]["nats"], abs=1e-5)
        assert found["minus own"]["N@10"] == NOTHING


def test_without_thoughts_there_is_nothing_to_replace():
    model, tokenizer, users = small_world()
    row = channel.measure_channel(StreamRec(model, tokenizer, l=0, think="greedy"), users, bootstrap=50)
    for found in row["after"].values():
        assert found["minus own"]["nats"] == NOTHING and found["changed"] is None


def test_annotated_thoughts_leak_to_a_model_that_copies_them(monkeypatch):
    """A stub that answers with the item whose first code is the last thought it read, if there is one."""
    model, tokenizer, users = small_world(n_items=6, m=1, K=6)  # item i has one code, and is named by it
    newest = {}

    def step(self, tokens):
        newest["token"] = tokens
        return torch.zeros(len(tokens), model.config.d_model)

    def code_log_probs(hidden, level, trie, children, temperature=1.0):
        code = (newest["token"] - 3).clamp_min(0)
        share = torch.nn.functional.one_hot(code, 6) * 0.9 + 0.1 / 6
        return share.log().gather(-1, children.code)

    monkeypatch.setattr(StepDecoder, "step", step)
    monkeypatch.setattr(model, "code_log_probs", code_log_probs)
    own = tokenizer.tokens[(users.target + 1) % 6]  # wrong for everybody
    thoughts = {"own": own, "annotated": tokenizer.tokens[users.target]}
    found = channel.answers_after(model, tokenizer, users, thoughts, beams=6)
    assert found["annotated"].rank.tolist() == [1] * 6 and (found["own"].rank > 1).all()
    assert found["annotated"].nats.tolist() == pytest.approx([-math.log(0.9 + 0.1 / 6)] * 6)
    assert found["own"].nats.tolist() == pytest.approx([-math.log(0.1 / 6)] * 6)
