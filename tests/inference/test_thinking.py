"""Thinking before answering: thoughts are codes, answers are sums over thoughts; checked by enumeration."""

from __future__ import annotations

import itertools

import pytest
import torch
from teacher_forcing import by_teacher_forcing
from tiny_world import small_world

from streamrec_lite.common.errors import BadInput
from streamrec_lite.common.schemas import BOS, FIRST_CODE
from streamrec_lite.inference.beam_search import answer_beams, item_log_probs
from streamrec_lite.inference.step_decoder import StepDecoder
from streamrec_lite.inference.thinking import (
    earlier_codes,
    generate_thoughts,
    read_thoughts,
    sum_over_thoughts,
    think_and_answer,
)
from streamrec_lite.model.sequences import history_tokens


def stepper_of(model, tokens):
    states, mask = model.encode(tokens)
    return StepDecoder(model, states, mask, "thinking")


@torch.inference_mode()
@pytest.mark.parametrize(("mode", "n"), [("greedy", 1), ("sample", 5), ("beam", 4)])
def test_thoughts_are_codes_and_their_log_probs_those_of_a_teacher_forced_pass(mode, n):
    model, tokenizer, users = small_world()
    tokens = history_tokens(tokenizer.tokens, users.history)
    thoughts = generate_thoughts(stepper_of(model, tokens), 3, mode, n)
    assert thoughts.token.shape == (6, n, 3)
    assert int(thoughts.token.min()) >= FIRST_CODE  # never PAD, BOS or ANSWER
    assert int(thoughts.token.max()) < tokenizer.vocab_size
    for i in range(n):
        want, _ = by_teacher_forcing(model, tokenizer, tokens, thoughts.token[:, i], users.target)
        torch.testing.assert_close(thoughts.log_prob[:, i], want, atol=1e-5, rtol=0)


@torch.inference_mode()
def test_states_on_the_way_are_those_of_a_full_pass():
    model, tokenizer, users = small_world()
    tokens = history_tokens(tokenizer.tokens, users.history)
    thoughts = generate_thoughts(stepper_of(model, tokens), 3, "beam", 4)
    states, mask = model.encode(tokens)
    for i in range(4):
        written = torch.cat([torch.full((6, 1), BOS), thoughts.token[:, i]], dim=1)
        full = model.decode(written, states, mask, "thinking")  # d_0..d_3
        torch.testing.assert_close(thoughts.hidden[:, i], full, atol=1e-5, rtol=0)


@torch.inference_mode()
@pytest.mark.parametrize("answer_token", [False, True])
@pytest.mark.parametrize("l", [0, 3])
def test_reading_the_own_thoughts_is_thinking(l, answer_token):
    model, tokenizer, users = small_world()
    model.reads_answer_token = answer_token
    tokens = history_tokens(tokenizer.tokens, users.history)
    writer, reader = stepper_of(model, tokens), stepper_of(model, tokens)
    own = generate_thoughts(writer, l, "greedy")
    read = read_thoughts(reader, own.token[:, 0])
    for name in ("token", "hidden", "answer_hidden"):
        assert torch.equal(getattr(read, name), getattr(own, name)), name
    torch.testing.assert_close(read.log_prob, own.log_prob)
    torch.testing.assert_close(read.token_log_prob, own.token_log_prob)
    hidden = own.answer_hidden[:, 0]
    want, got = (answer_beams(s, tokenizer.trie, hidden, 20, 10) for s in (writer, reader))
    assert torch.equal(got.item, want.item) and torch.equal(got.score, want.score)


@torch.inference_mode()
def test_given_thoughts_are_read_as_in_a_teacher_forced_pass():
    model, tokenizer, users = small_world()
    tokens = history_tokens(tokenizer.tokens, users.history)
    thought = torch.tensor([[3, 3, 9], [4, 8, 4], [20, 3, 5], [7, 7, 7], [10, 11, 12], [6, 5, 4]])
    stepper = stepper_of(model, tokens)
    read = read_thoughts(stepper, thought)
    want, item = by_teacher_forcing(model, tokenizer, tokens, thought, users.target)
    torch.testing.assert_close(read.log_prob[:, 0], want, atol=1e-5, rtol=0)
    got = item_log_probs(stepper, tokenizer, read.answer_hidden[:, 0], users.target[:, None])
    torch.testing.assert_close(got[:, 0], item, atol=1e-5, rtol=0)
    model.may_repeat_thoughts = False
    impossible = read_thoughts(stepper_of(model, tokens), thought).log_prob[:, 0] == -torch.inf
    assert impossible.tolist() == [True, True, False, True, False, False]  # rows that repeat a thought


@torch.inference_mode()
def test_beam_finds_the_most_likely_thoughts():
    model, tokenizer, users = small_world(n_items=8, m=2, K=3)
    tokens = history_tokens(tokenizer.tokens, users.history)
    codes = range(FIRST_CODE, FIRST_CODE + 6)
    every = torch.tensor(list(itertools.product(codes, codes)))  # 36 trains of two thoughts
    all_scores = torch.stack(
        [by_teacher_forcing(model, tokenizer, tokens, row.expand(6, -1), users.target)[0] for row in every], 1
    )
    thoughts = generate_thoughts(stepper_of(model, tokens), 2, "beam", 6)  # as wide as the first step
    best = all_scores.topk(6, dim=1)
    torch.testing.assert_close(thoughts.log_prob, best.values, atol=1e-5, rtol=0)
    assert torch.equal(thoughts.token, every[best.indices])


@torch.inference_mode()
def test_answers_equal_the_sum_over_all_thoughts():
    """With every train of thought in the beam, eq. 3 is exact: P(item) sums over all of them."""
    model, tokenizer, users = small_world(n_items=8, m=2, K=3)
    tokens = history_tokens(tokenizer.tokens, users.history)
    codes = range(FIRST_CODE, FIRST_CODE + 6)
    total = torch.zeros(6, 8)
    for row in itertools.product(codes, codes):
        thoughts = torch.tensor(row).expand(6, -1)
        for item in range(8):
            items = torch.full((6,), item)
            a, b = by_teacher_forcing(model, tokenizer, tokens, thoughts, items)
            total[:, item] += (a + b).exp()
    torch.testing.assert_close(total.sum(1), torch.ones(6), atol=1e-5, rtol=0)
    answer, thoughts = think_and_answer(model, tokenizer.trie, tokens, 2, "beam", 36, beams=10, k=8)
    assert thoughts.token.shape == (6, 36, 2)
    best = total.sort(dim=1, descending=True)
    assert torch.equal(answer.item, best.indices)
    torch.testing.assert_close(answer.score.exp(), best.values, atol=1e-5, rtol=0)


@torch.inference_mode()
def test_one_greedy_thought_answers_as_a_beam_after_it():
    model, tokenizer, users = small_world()
    tokens = history_tokens(tokenizer.tokens, users.history)
    answer, thoughts = think_and_answer(model, tokenizer.trie, tokens, 3, "greedy", beams=40, k=40)
    for item in (0, 17, 39):
        items = torch.full((6,), item)
        want = by_teacher_forcing(model, tokenizer, tokens, thoughts.token[:, 0], items)[1]
        got = answer.score[answer.item == item]
        torch.testing.assert_close(got, want, atol=1e-5, rtol=0)


@torch.inference_mode()
def test_no_thoughts_is_the_thinking_decoder_at_once():
    from streamrec_lite.inference.beam_search import beam_search

    model, tokenizer, users = small_world()
    tokens = history_tokens(tokenizer.tokens, users.history)
    answer, thoughts = think_and_answer(model, tokenizer.trie, tokens, 0, "greedy", beams=20, k=10)
    assert thoughts.token.shape == (6, 1, 0)
    assert torch.equal(answer.item, beam_search(model, tokenizer.trie, tokens, 20, 10, "thinking").item)


@torch.inference_mode()
def test_item_log_probs_equal_teacher_forcing():
    model, tokenizer, users = small_world()
    tokens = history_tokens(tokenizer.tokens, users.history)
    stepper = stepper_of(model, tokens)
    items = torch.randint(0, 40, (6, 7), generator=torch.Generator().manual_seed(3))
    got = item_log_probs(stepper, tokenizer, stepper.step(torch.full((6,), BOS)), items)
    for j in range(7):
        want = by_teacher_forcing(model, tokenizer, tokens, torch.zeros(6, 0, dtype=torch.long), items[:, j])[
            1
        ]
        torch.testing.assert_close(got[:, j], want, atol=1e-5, rtol=0)


@torch.inference_mode()
def test_a_floor_saves_steps_and_changes_nothing_above_it():
    model, tokenizer, users = small_world()
    model.shared.weight.mul_(6.0)  # sharp opinions: most items are below the floor after one code
    tokens = history_tokens(tokenizer.tokens, users.history)
    stepper = stepper_of(model, tokens)
    hidden = stepper.step(torch.full((6,), BOS))
    items = torch.arange(40).expand(6, 40)
    full = item_log_probs(stepper.copy(), tokenizer, hidden, items)
    floor = full.sort(dim=1).values[:, 35]
    fed: list[int] = []
    cut = stepper.copy()
    cut.step = lambda token: fed.append(len(token)) or type(stepper).step(cut, token)
    got = item_log_probs(cut, tokenizer, hidden, items, floor)
    above = full >= floor[:, None]
    torch.testing.assert_close(got[above], full[above], atol=1e-5, rtol=0)
    assert (got >= full - 1e-5).all() and (got[~above] < floor.repeat_interleave(35)).all()
    assert sum(fed) < 6 * 20


def test_add_up_by_hand():
    item = torch.tensor([[5, 2, 5, -1, 7]])
    score = torch.tensor([[0.1, 0.25, 0.2, 0.9, 0.05]]).log()
    got = sum_over_thoughts(item, score, 3)
    assert got.item.tolist() == [[5, 2, 7]]  # 0.1 + 0.2 beats 0.25; what names no item counts for nothing
    torch.testing.assert_close(got.score.exp(), torch.tensor([[0.3, 0.25, 0.05]]), atol=1e-6, rtol=0)
    nothing = sum_over_thoughts(torch.tensor([[-1, -1]]), torch.tensor([[0.0, -torch.inf]]), 2)
    assert nothing.item.tolist() == [[-1, -1]]
    assert torch.isneginf(nothing.score).all()


@pytest.mark.parametrize(
    ("mode", "n", "word"), [("gready", 1, "greedy"), ("greedy", 2, "one train"), ("beam", 0, "at least one")]
)
def test_ways_of_thinking_that_cannot_be(mode, n, word):
    model, tokenizer, users = small_world()
    with pytest.raises(BadInput, match=word), torch.inference_mode():
        generate_thoughts(stepper_of(model, history_tokens(tokenizer.tokens, users.history)), 2, mode, n)


def test_earlier_codes_by_hand():
    thought = torch.tensor([[3, 4, 3]])
    assert earlier_codes(thought, 6).int().tolist() == [[[0, 0, 0], [1, 0, 0], [1, 1, 0]]]
