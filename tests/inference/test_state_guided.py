"""State-guided scoring: every candidate's two scores against a pass of its own, and the ranking by hand."""

from __future__ import annotations

import pytest
import torch
from teacher_forcing import by_teacher_forcing
from tiny_world import small_world

from streamrec_lite.common.schemas import BOS
from streamrec_lite.inference.state_guided import (
    GUIDANCE_WEIGHTS,
    Candidates,
    choose_weight,
    find_candidates,
    guided_ranking,
)
from streamrec_lite.inference.thinking import think_and_answer
from streamrec_lite.model.item_representation import item_table
from streamrec_lite.model.sequences import history_tokens


@torch.inference_mode()
@pytest.mark.parametrize("softmax", ["trie", "vocabulary"])
def test_every_candidate_has_the_scores_of_a_pass_of_its_own(softmax):
    model, tokenizer, users = small_world()
    object.__setattr__(model.config, "softmax", softmax)
    tokens = history_tokens(tokenizer.tokens, users.history)
    found, thoughts = find_candidates(model, tokenizer, tokens, 3, beams=5)
    assert found.item.shape == (6, 10)
    thought = thoughts.token[:, 0]
    states, mask = model.encode(tokens)
    written = torch.cat([torch.full((6, 1), BOS), thought], dim=1)
    s = model.states(model.decode(written, states, mask, "thinking"))[:, -1]
    liked = (model.state_score_scale * s @ item_table(model, tokenizer).T).log_softmax(-1)
    for user in range(6):
        items = [i for i in found.item[user].tolist() if i >= 0]
        assert len(items) == len(set(items))
        assert set(liked[user].topk(5).indices.tolist()) <= set(items)
        for place, item in enumerate(items):
            _, want = by_teacher_forcing(model, tokenizer, tokens, thought, torch.full((6,), item))
            assert float(found.log_prob[user, place]) == pytest.approx(float(want[user]), abs=1e-5)
            assert float(found.state_log_prob[user, place]) == pytest.approx(
                float(liked[user, item]), abs=1e-5
            )
        assert torch.isinf(found.log_prob[user, len(items) :]).all()
    object.__setattr__(model.config, "softmax", "trie")


@torch.inference_mode()
def test_without_weight_it_is_the_papers_decoding():
    """With beams as wide as the catalogue nothing is missed, so the order is that of eq. 3."""
    model, tokenizer, users = small_world()
    tokens = history_tokens(tokenizer.tokens, users.history)
    for mode, n in (("greedy", 1), ("beam", 3)):
        found, _ = find_candidates(model, tokenizer, tokens, 2, mode, n, beams=40)
        want, _ = think_and_answer(model, tokenizer.trie, tokens, 2, mode, n, beams=40, k=7)
        got = guided_ranking(found, 0.0, 7)
        assert torch.equal(got.item, want.item)
        torch.testing.assert_close(got.score, want.score, atol=1e-5, rtol=0)


def test_ranking_by_hand():
    found = Candidates(
        torch.tensor([[4, 7, 9, -1]]),
        torch.tensor([[-1.0, -2.0, -3.0, -torch.inf]]),
        torch.tensor([[-5.0, -1.0, -3.0, -torch.inf]]),
    )
    assert guided_ranking(found, 0.0, 2).item.tolist() == [[4, 7]]
    answer = guided_ranking(found, 0.5, 5)  # -3.5, -2.5, -4.5
    assert answer.item.tolist() == [[7, 4, 9, -1, -1]]
    assert answer.score[0, :3].tolist() == [-2.5, -3.5, -4.5]


def test_the_weight_is_the_one_with_the_best_validation_score():
    model, tokenizer, users = small_world()
    w, scores = choose_weight(model, tokenizer, users, 2, beams=10)
    assert list(scores) == [*map(str, GUIDANCE_WEIGHTS), "state"]
    best = max(scores[str(weight)]["N@10"] for weight in GUIDANCE_WEIGHTS)
    assert w == min(weight for weight in GUIDANCE_WEIGHTS if scores[str(weight)]["N@10"] == best)
