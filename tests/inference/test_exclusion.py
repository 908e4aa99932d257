"""New items only: no item of the history, k items still, and the ranking of an independent scorer."""

from __future__ import annotations

import pytest
import torch
from places import SCIENTIFIC
from teacher_forcing import by_teacher_forcing
from tiny_world import SIZES, small_world

from streamrec_lite.common.schemas import BOS, PAD_ITEM
from streamrec_lite.config.sections import DataConfig
from streamrec_lite.inference.beam_search import answer_beams, beam_search
from streamrec_lite.inference.exclusion import Exclusion
from streamrec_lite.inference.recommender import StreamRec
from streamrec_lite.inference.step_decoder import StepDecoder
from streamrec_lite.inference.thinking import generate_thoughts
from streamrec_lite.model.backbone import Backbone
from streamrec_lite.model.item_representation import item_table
from streamrec_lite.model.sequences import history_tokens
from streamrec_lite.tokenizer.semantic_ids import SemanticTokenizer
from streamrec_lite.tokenizer.trie import Trie

WAYS = {
    "at once": {"think": "none"},
    "greedy": {"think": "greedy"},
    "mixture of trains": {"think": "beam", "n_thoughts": 3},
    "sampled trains": {"think": "sample", "n_thoughts": 3},
    "state-guided": {"think": "greedy", "w": 0.7},
    "state-guided mixture": {"think": "beam", "n_thoughts": 3, "w": 0.7},
}


def recommender(beams: int = 5, **sizes) -> tuple[StreamRec, torch.Tensor]:
    model, tokenizer, users = small_world(**sizes)
    return StreamRec(model, tokenizer, beams=beams, l=2), users.history


def without(items: torch.Tensor, left_out: torch.Tensor, k: int) -> list[list[int]]:
    """The first k items of each full ranking that are not left out."""
    pairs = zip(items.tolist(), left_out.tolist(), strict=True)
    return [[i for i in row if i >= 0 and i not in gone][:k] for row, gone in pairs]


def test_dead_nodes_by_hand():
    # items 0, 1: codes (0, 0), (0, 1); items 2, 3, 4: codes (1, 0), (1, 1), (1, 2)
    trie = Trie.from_codes(torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1], [1, 2]]), 3)
    found = Exclusion.of(trie, torch.tensor([[1, 0, 1, -1], [4, 2, -1, -1]]))
    assert found.path[0, :2].tolist() == [[0, 0, 0], [0, 0, 1]]  # each item once, in the trie's order
    assert found.dead[0].tolist() == [[False, True, True]] * 2 + [[False] * 3] * 2
    assert found.dead[1].tolist() == [[False, False, True]] * 2 + [[False] * 3] * 2  # item 3 is left below
    gain = torch.zeros(2, 2, 3)
    found.mask(gain, trie, 1, torch.tensor([[1, 0], [1, 0]]))
    inf = -torch.inf
    assert gain.tolist() == [[[0, 0, 0], [inf, inf, 0]], [[inf, 0, inf], [0, 0, 0]]]
    gain = torch.zeros(2, 1, 2)
    found.mask(gain, trie, 0, torch.zeros(2, 1, dtype=torch.long))
    assert gain.tolist() == [[[inf, 0]], [[0, 0]]]


@pytest.mark.parametrize("way", WAYS)
def test_no_item_of_the_history_and_k_items_still_come(way):
    model, history = recommender()
    for beams in (1, 5):
        model.beams = beams
        got = model.answer(history, 5, exclude=history, **WAYS[way])[0].item
        assert (got >= 0).all() and not (got[..., None] == history[:, None]).any()
        assert all(len(set(row)) == 5 for row in got.tolist())


@pytest.mark.parametrize("way", WAYS)
def test_k_items_come_though_the_history_covers_whole_subtrees(way):
    """All items that begin like a user's favourites are left out: every prefix of the usual beam is dead."""
    model, history = recommender(beams=4)
    usual = model.answer(history, 4, **WAYS[way])[0].item
    first = model.tokenizer.codes[:, 0]
    rows = [torch.isin(first, first[row]).nonzero()[:, 0] for row in usual]
    exclude = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=PAD_ITEM)
    assert exclude.shape[1] > 10
    got = model.answer(history, 4, exclude=exclude, **WAYS[way])[0].item
    for answers, gone in zip(got.tolist(), rows, strict=True):
        assert len(set(answers)) == 4 and min(answers) >= 0 and not set(answers) & set(gone.tolist())


@pytest.mark.parametrize("way", WAYS)
def test_fewer_items_than_k_are_left(way):
    model, history = recommender()
    exclude = torch.arange(38).expand(6, -1)  # of 40
    got = model.answer(history, 5, exclude=exclude, **WAYS[way])[0]
    assert all(sorted(row[:2]) == [38, 39] and row[2:] == [-1] * 3 for row in got.item.tolist())
    assert torch.isneginf(got.score[:, 2:]).all()


@pytest.mark.parametrize("softmax", ["trie", "vocabulary"])
@pytest.mark.parametrize("way", [name for name in WAYS if name != "sampled trains"])
def test_a_full_beam_is_the_full_ranking_without_the_history(way, softmax):
    """With beams as wide as the catalogue; the scores stay those of the model."""
    model, history = recommender(beams=40)
    object.__setattr__(model.model.config, "softmax", softmax)
    every = model.answer(history, 40, **WAYS[way])[0]
    new = model.answer(history, 10, exclude=history, **WAYS[way])[0]
    object.__setattr__(model.model.config, "softmax", "trie")
    assert new.item.tolist() == without(every.item, history, 10)
    for row in range(6):
        places = [every.item[row].tolist().index(item) for item in new.item[row].tolist()]
        torch.testing.assert_close(new.score[row], every.score[row, places], atol=1e-5, rtol=0)


@torch.inference_mode()
@pytest.mark.parametrize("guided", [False, True])
def test_answers_equal_brute_force(guided):
    """Every item is scored by a pass of its own, teacher-forced; the history is masked; then sorted."""
    model, history = recommender(beams=40)
    tokens = history_tokens(model.tokenizer.tokens, history)
    stepper = StepDecoder(model.model, *model.model.encode(tokens), "thinking")
    thoughts = generate_thoughts(stepper, 2, "greedy")
    thought = thoughts.token[:, 0]
    scores = torch.stack(
        [
            by_teacher_forcing(model.model, model.tokenizer, tokens, thought, torch.full((6,), item))[1]
            for item in range(40)
        ],
        dim=1,
    )
    if guided:
        s = model.model.states(thoughts.hidden[:, 0])[:, -1]
        table = item_table(model.model, model.tokenizer)
        scores = scores + 0.7 * (model.model.state_score_scale * s @ table.T).log_softmax(-1)
    for row, gone in enumerate(history.tolist()):
        scores[row, [i for i in gone if i >= 0]] = -torch.inf
    want = scores.sort(dim=1, descending=True).indices[:, :10]
    got = model.answer(history, 10, think="greedy", w=0.7 if guided else 0.0, exclude=history)[0]
    assert torch.equal(got.item, want)


def test_nothing_left_out_is_the_same_beam_bit_by_bit():
    model, history = recommender()
    padding = torch.full((6, 3), PAD_ITEM)
    for way in ("at once", "greedy", "mixture of trains", "state-guided"):
        plain = model.answer(history, 5, **WAYS[way])[0]
        empty = model.answer(history, 5, exclude=padding, **WAYS[way])[0]
        assert torch.equal(plain.item, empty.item) and torch.equal(plain.score, empty.score)


@torch.inference_mode()
def test_a_narrow_beam_drops_dead_prefixes_before_the_cut():
    """Filtering after the search would leave fewer than k items: the history takes all W places."""
    model, tokenizer, users = small_world()
    tokens = history_tokens(tokenizer.tokens, users.history)
    first = beam_search(model, tokenizer.trie, tokens, beams=4, k=4)
    second = beam_search(model, tokenizer.trie, tokens, beams=4, k=4, exclude=first.item)
    assert (second.item >= 0).all() and not (second.item[..., None] == first.item[:, None]).any()
    hidden = StepDecoder.start(model, tokenizer, users.history, "direct")
    start = hidden.step(torch.full((6,), BOS))
    again = answer_beams(hidden, tokenizer.trie, start, 4, 4, first.item)
    assert torch.equal(again.item, second.item)


@pytest.mark.skipif(not SCIENTIFIC.exists(), reason="the scientific-2018 data set is not here")
@torch.inference_mode()
def test_brute_force_on_scientific_2018():
    """A tiny model with random weights, 24 users, 4,344 items, a beam that prunes nothing."""
    from streamrec_lite.data.sequences import items_before_test, leave_one_out
    from streamrec_lite.data.sources import load_dataset

    dataset = load_dataset(f"amazon-2018:{SCIENTIFIC}", DataConfig())
    splits = leave_one_out(dataset, 20)
    long = splits.test.length.argsort(descending=True)[:12]  # some have taken more than 20 items
    users = torch.cat([long, torch.arange(12)])
    torch.manual_seed(0)
    numbers = torch.randperm(20**3)[: dataset.n_items]
    codes = torch.stack([numbers // 400, numbers // 20 % 20, numbers % 20], dim=1)
    tokenizer = SemanticTokenizer.from_codes(codes, 20)
    backbone = Backbone(SIZES, tokenizer.vocab_size).eval()
    model = StreamRec(backbone, tokenizer, beams=dataset.n_items)
    asked, exclude = splits.test.select(users), items_before_test(splits)[users]
    got = model.topk(asked, 10, exclude)
    tokens = history_tokens(tokenizer.tokens, asked.history)
    states, mask = backbone.encode(tokens)
    for row in range(len(users)):
        labels = tokenizer.tokens[:-1]
        inputs = torch.cat([torch.full((len(labels), 1), BOS), labels[:, :-1]], dim=1)
        state = (
            states[row : row + 1].expand(len(labels), -1, -1),
            mask[row : row + 1].expand(len(labels), -1),
        )
        hidden = backbone.decode(inputs, *state, "direct")
        scores = trie_scores(backbone, codes, hidden)
        scores[exclude[row][exclude[row] >= 0]] = -torch.inf
        assert got[row].tolist() == scores.topk(10).indices.tolist()


def trie_scores(backbone: Backbone, codes: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
    """log P (N,) of every item from teacher-forced states (N, m, d), without the trie's tensors."""
    total = torch.zeros(len(codes))
    logits = backbone.logits(hidden).double()
    for j in range(codes.shape[1]):
        level = logits[:, j, 3 + 20 * j : 3 + 20 * (j + 1)]
        prefix = codes[:, :j] @ (20 ** torch.arange(j)) if j else torch.zeros(len(codes), dtype=torch.long)
        possible = torch.zeros(20**j, 20, dtype=torch.bool)
        possible[prefix, codes[:, j]] = True
        level = level.masked_fill(~possible[prefix], -torch.inf).log_softmax(-1)
        total = total + level.gather(1, codes[:, j : j + 1])[:, 0]
    return total
