"""A model and the sequential rules, mixed."""

from __future__ import annotations

import math

import pytest
import torch
from tiny_world import small_world

from streamrec_lite.baselines.counting import SequentialRules
from streamrec_lite.baselines.with_rules import (
    SHARES,
    MixtureCandidates,
    WithRules,
    choose_share,
    mixture_candidates,
    mixture_topk,
)
from streamrec_lite.common.schemas import Splits
from streamrec_lite.evaluation.evaluate import evaluate
from streamrec_lite.inference.beam_search import answer_log_probs
from streamrec_lite.inference.recommender import StreamRec
from streamrec_lite.inference.state_guided import find_candidates
from streamrec_lite.model.sequences import history_tokens, shift_right


@pytest.fixture
def world():
    model, tokenizer, users = small_world()
    rules = SequentialRules.fit(Splits(users, users, users), tokenizer.n_items)
    return model, tokenizer, users, rules


def test_mixed_by_hand():
    found = MixtureCandidates(
        torch.tensor([[3, 5, -1, 8]]),
        torch.tensor([[0.6, 0.2, 9.0, 0.0]]),
        torch.tensor([[0.0, 0.5, 9.0, 0.4]]),
    )
    assert mixture_topk(found, 0.0, 5).tolist() == [[3, 5, 8, -1, -1]]
    assert mixture_topk(found, 1.0, 2).tolist() == [[5, 8]]
    assert mixture_topk(found, 0.5, 2).tolist() == [[5, 3]]  # 0.35 and 0.3


@pytest.mark.parametrize("think, w", [("none", 0.0), ("greedy", 0.0), ("greedy", 0.7)])
@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_new_items_only(world, think, w, share):
    model, tokenizer, users, rules = world
    for beams in (3, 40):
        asked = WithRules(StreamRec(model, tokenizer, beams=beams, l=2, think=think, w=w), rules, share)
        got = asked.topk(users, 3, users.history)
        assert (got >= 0).all() and not (got[..., None] == users.history[:, None]).any()
        assert all(len(set(row)) == 3 for row in got.tolist())
    if w == 0:  # nothing is pruned: the full ranking without the history
        every = asked.topk(users, 40).tolist()
        want = [
            [i for i in row if i not in gone][:3]
            for row, gone in zip(every, users.history.tolist(), strict=True)
        ]
        assert got.tolist() == want


@pytest.mark.parametrize("think, w", [("none", 0.0), ("greedy", 0.0), ("greedy", 0.7)])
def test_both_say_what_they_say_alone(world, think, w):
    model, tokenizer, users, rules = world
    asked = StreamRec(model, tokenizer, beams=40, l=2, think=think, w=w)  # a beam that misses nothing
    found = mixture_candidates(asked, rules, users)
    assert torch.equal(mixture_topk(found, 0.0, 8), asked.topk(users, 8))
    assert torch.equal(mixture_topk(found, 1.0, 8), rules.topk(users, 8))
    every = rules.scores(users)
    every = every / every.sum(dim=1, keepdim=True)
    kept = found.item >= 0
    assert torch.allclose(found.rules[kept], every.gather(1, found.item.clamp_min(0))[kept])
    assert all(
        len(set(row)) == len(row) for row in ([i for i in row if i >= 0] for row in found.item.tolist())
    )


def test_probabilities_of_the_rules_items_are_those_of_a_teacher_forced_pass(world):
    model, tokenizer, users, rules = world
    found = mixture_candidates(StreamRec(model, tokenizer, beams=4), rules, users)
    states, mask = model.encode_history(tokenizer, users.history)
    for column in range(found.item.shape[1]):
        items = found.item[:, column].clamp_min(0)
        hidden = model.decode(shift_right(tokenizer.tokens[items]), states, mask)
        expected = answer_log_probs(model, tokenizer, hidden, items).sum(1).double().exp()
        kept = found.item[:, column] >= 0
        assert torch.allclose(found.model[kept, column], expected[kept], atol=1e-6)


def test_the_share_is_the_best_on_validation_and_the_smallest_of_equals(world):
    model, tokenizer, users, rules = world
    asked = StreamRec(model, tokenizer, beams=12)
    w, scores = choose_share(asked, rules, users)
    assert set(scores) == {str(share) for share in SHARES}
    best = max(value["N@10"] for value in scores.values())
    assert w == min(share for share in SHARES if scores[str(share)]["N@10"] == best)
    assert evaluate(WithRules(asked, rules, w), users).metrics == scores[str(w)]


def test_a_state_guided_models_probabilities_are_the_softmax_of_its_scores(world):
    model, tokenizer, users, rules = world
    asked = StreamRec(model, tokenizer, beams=4, l=2, think="greedy", w=0.7)
    found = mixture_candidates(asked, rules, users)
    assert torch.allclose(found.model.sum(1), torch.ones(users.n_examples, dtype=torch.float64))
    tokens = history_tokens(tokenizer.tokens, users.history)
    every, _ = find_candidates(model, tokenizer, tokens, 2, "greedy", beams=40)
    total = every.log_prob + 0.7 * every.state_log_prob
    for row in range(users.n_examples):
        score = dict(zip(every.item[row].tolist(), total[row].tolist(), strict=True))
        pairs = zip(found.item[row].tolist(), found.model[row].tolist(), strict=True)
        there = [(i, p) for i, p in pairs if i >= 0]
        mass = sum(math.exp(score[i]) for i, _ in there)
        assert [p for _, p in there] == pytest.approx([math.exp(score[i]) / mass for i, _ in there], abs=1e-5)
        rules_best = rules.scores(users)[row].topk(4).indices.tolist()
        assert len(dict(there)) == len(there) and set(rules_best) <= set(dict(there))
