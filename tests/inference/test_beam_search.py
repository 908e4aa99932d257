"""The constrained beam: exact scores, valid items, the same beams as transformers' generate."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from streamrec_lite.common.errors import BadInput
from streamrec_lite.common.schemas import BOS, PAD
from streamrec_lite.config.sections import BackboneConfig
from streamrec_lite.inference.beam_search import answer_log_probs, beam_search
from streamrec_lite.inference.step_decoder import StepDecoder
from streamrec_lite.model.backbone import Backbone
from streamrec_lite.model.sequences import label_log_probs, shift_right
from streamrec_lite.tokenizer.semantic_ids import SemanticTokenizer
from streamrec_lite.tokenizer.trie import PaddedChildren

SIZES = BackboneConfig(d_model=32, d_ff=48, num_layers=2, num_heads=4, d_kv=16, dropout=0.0)


def world(
    n_items: int, m: int, k_codes: int, users: int = 6, seed: int = 0, softmax: str = "trie", recency=15
):
    """A random catalogue, a random model with confident logits, and histories of mixed lengths."""
    torch.manual_seed(seed)
    tokenizer = SemanticTokenizer.from_codes(distinct_codes(n_items, m, k_codes), k_codes)
    sizes = dataclasses.replace(SIZES, softmax=softmax, recency_embeddings=recency)
    model = Backbone(sizes, tokenizer.vocab_size, ("direct", "thinking")).eval()
    history = torch.randint(0, n_items, (users, 5))
    for row, length in enumerate([5, 1, 3, 2, 4, 5][:users]):
        history[row, length:] = -1
    return model, tokenizer, tokenizer.tokens[history].flatten(1)


def distinct_codes(n: int, m: int, k: int) -> torch.Tensor:
    numbers = torch.randperm(k**m)[:n]
    return torch.stack([numbers // k**j % k for j in reversed(range(m))], dim=1)


@torch.no_grad()
def score_all(model, tokenizer, tokens, decoder="direct"):
    """log P(item | history) of every item, by teacher-forced passes over all items: (B, N).

    For the softmax over the trie the logits of impossible codes are set to -inf by looking at all
    other items' IDs, one by one.
    """
    scores, labels = [], tokenizer.tokens[:-1]
    for row in tokens:
        logits = model(row.expand(len(labels), -1), labels, decoder)
        if model.config.softmax == "trie":
            for item, label in enumerate(labels):
                for j in range(tokenizer.m):
                    same = (labels[:, :j] == label[:j]).all(1)
                    possible = torch.zeros(tokenizer.vocab_size, dtype=torch.bool)
                    possible[labels[same, j]] = True
                    logits[item, j, ~possible] = -torch.inf
        scores.append(label_log_probs(logits, labels).sum(-1))
    return torch.stack(scores)


@pytest.mark.parametrize("decoder", ["direct", "thinking"])
@pytest.mark.parametrize("softmax", ["trie", "vocabulary"])
def test_beam_equals_exhaustive_scoring(decoder, softmax):
    model, tokenizer, tokens = world(60, 3, 8, softmax=softmax)
    want = score_all(model, tokenizer, tokens, decoder)
    got = beam_search(model, tokenizer.trie, tokens, beams=60, k=60, decoder=decoder)  # nothing is pruned
    best = want.sort(dim=1, descending=True)
    assert torch.equal(got.item, best.indices)
    torch.testing.assert_close(got.score, best.values, atol=1e-4, rtol=0)
    total = got.score.exp().sum(1)
    if softmax == "trie":  # a distribution over items
        torch.testing.assert_close(total, torch.ones(6), atol=1e-5, rtol=0)
    else:  # some of it lies on prefixes that no item has
        assert (total < 0.99).all()


@pytest.mark.parametrize("softmax", ["trie", "vocabulary"])
def test_answer_log_probs_are_the_beams_scores(softmax):
    model, tokenizer, tokens = world(60, 3, 8, softmax=softmax)
    items = torch.tensor([3, 9, 59, 0, 20, 33])
    states, mask = model.encode(tokens)
    hidden = model.decode(shift_right(tokenizer.tokens[items]), states, mask)
    got = answer_log_probs(model, tokenizer, hidden, items).sum(1)
    beams = beam_search(model, tokenizer.trie, tokens, beams=60, k=60)
    want = beams.score[beams.item == items[:, None]]
    torch.testing.assert_close(got, want, atol=1e-5, rtol=0)


def test_temperature_by_hand():
    model, tokenizer, _ = world(60, 3, 8)
    hidden, trie = torch.zeros(1, 32), tokenizer.trie
    family = PaddedChildren(*(torch.tensor([x]) for x in ([0, 1, 7], [0, 0, 0], [True, True, False])))
    hidden[0, 0] = 1.0
    model.shared.weight.data[3:5, 0] = torch.tensor([0.0, 32**0.5])  # logits 0 and 1
    plain = model.code_log_probs(hidden, 0, trie, family)
    cold = model.code_log_probs(hidden, 0, trie, family, temperature=0.5)
    assert (plain[0, 1] - plain[0, 0]).item() == pytest.approx(1.0, abs=1e-5)
    assert (cold[0, 1] - cold[0, 0]).item() == pytest.approx(2.0, abs=1e-5)
    assert torch.isneginf(plain[0, 2:]).all()


def test_narrow_beam_gives_exact_scores_of_real_items():
    model, tokenizer, tokens = world(400, 4, 8)
    got = beam_search(model, tokenizer.trie, tokens, beams=10, k=10)
    assert all(len(set(row)) == 10 for row in got.item.tolist())
    assert ((got.item >= 0) & (got.item < 400)).all()
    want = score_all(model, tokenizer, tokens).gather(1, got.item)
    torch.testing.assert_close(got.score, want, atol=1e-4, rtol=0)
    assert (got.score.diff(dim=1) <= 0).all()


@pytest.mark.parametrize("softmax", ["trie", "vocabulary"])
def test_beam_equals_generate_on_a_large_catalogue(softmax):
    """generate's ``renormalize_logits`` is the softmax over what the trie allows."""
    from transformers import T5Config, T5ForConditionalGeneration

    model, tokenizer, tokens = world(4000, 4, 32, users=4, softmax=softmax, recency=0)
    sizes = {"d_model": 32, "d_ff": 48, "num_layers": 2, "num_heads": 4, "d_kv": 16}
    t5 = T5ForConditionalGeneration(
        T5Config(
            vocab_size=tokenizer.vocab_size, dropout_rate=0.0, decoder_start_token_id=BOS, pad_token_id=PAD,
            eos_token_id=None, **sizes,
        )
    ).eval()  # fmt: skip
    state = {"shared.weight": model.shared.weight}
    state |= {f"encoder.{k}": v for k, v in model.encoder.state_dict().items()}
    state |= {f"decoder.{k}": v for k, v in model.decoders["direct"].state_dict().items()}
    t5.load_state_dict(state, strict=False)
    children: dict[tuple, set] = {}
    for row in tokenizer.tokens[:-1].tolist():
        for j in range(4):
            children.setdefault(tuple(row[:j]), set()).add(row[j])
    out = t5.generate(
        input_ids=tokens, attention_mask=tokens != PAD, num_beams=20, num_return_sequences=20,
        do_sample=False, max_new_tokens=4, min_new_tokens=4, length_penalty=0.0, early_stopping=False,
        prefix_allowed_tokens_fn=lambda _, ids: sorted(children[tuple(ids.tolist()[1:])]),
        renormalize_logits=softmax == "trie",
        return_dict_in_generate=True, output_scores=True,
    )  # fmt: skip
    got = beam_search(model, tokenizer.trie, tokens, beams=20, k=20)
    assert torch.equal(tokenizer.items_of(out.sequences[:, 1:]).view(4, 20), got.item)
    torch.testing.assert_close(out.sequences_scores.view(4, 20), got.score, atol=1e-4, rtol=0)


def test_steps_equal_a_full_pass_after_forks():
    model, tokenizer, tokens = world(60, 3, 8)
    states, mask = model.encode(tokens)
    stepper = StepDecoder(model, states, mask)
    stepper.step(torch.full((6,), BOS))
    stepper.select(torch.arange(6).repeat_interleave(3))  # three sequences a user
    first = tokenizer.tokens[torch.arange(18), 0]
    stepper.step(first)
    parent = torch.tensor([2, 0, 0, 4, 6, 7, 8, 15, 16])  # users with 3, 1, 3, 0, 0 and 2 sequences
    user = parent // 3
    stepper.select(parent)
    second = tokenizer.tokens[torch.arange(24, 33), 1]
    hidden = stepper.step(second)
    labels = torch.stack([first[parent], second, second], dim=1)
    full = model.decode(shift_right(labels), states[user], mask[user])[:, -1]
    torch.testing.assert_close(hidden, full, atol=1e-5, rtol=0)


def test_fewer_items_than_answers():
    model, tokenizer, tokens = world(7, 3, 8)
    got = beam_search(model, tokenizer.trie, tokens, beams=20, k=10)
    assert all(sorted(row[:7]) == list(range(7)) and row[7:] == [-1] * 3 for row in got.item.tolist())
    assert torch.isneginf(got.score[:, 7:]).all()
    assert torch.isfinite(got.score[:, :7]).all()


def test_batch_and_padding_do_not_matter():
    model, tokenizer, tokens = world(200, 3, 8)
    together = beam_search(model, tokenizer.trie, tokens, beams=12, k=5)
    alone = beam_search(model, tokenizer.trie, tokens[2:3, : 3 * 3], beams=12, k=5)
    assert torch.equal(together.item[2:3], alone.item)
    torch.testing.assert_close(together.score[2:3], alone.score, atol=1e-5, rtol=0)


@pytest.mark.parametrize("k", [0, 21])
def test_more_answers_than_beams(k):
    model, tokenizer, tokens = world(60, 3, 8)
    with pytest.raises(BadInput, match="beams"):
        beam_search(model, tokenizer.trie, tokens, beams=20, k=k)


@torch.no_grad()
def test_position_bias_is_t5s_own_at_every_step():
    model, _, tokens = world(20, 3, 8)
    attention = model.decoders["thinking"].block[0].layer[0].SelfAttention
    stepper = StepDecoder(model, *model.encode(tokens), "thinking")
    token = torch.full((len(tokens),), BOS)
    for t in range(40):  # longer than what is computed at once
        want = attention.compute_bias(1, t + 1, device="cpu", past_seen_tokens=t)[0, :, 0]
        assert torch.equal(stepper._position_bias("cpu"), want)
        stepper.step(token)
