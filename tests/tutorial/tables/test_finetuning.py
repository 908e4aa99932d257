"""Tables of fine-tuning: costs by enumeration, margins by teacher forcing, and what steps change."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from teacher_forcing import by_teacher_forcing
from tiny_world import small_world

from streamrec_lite.common.files import write_tensors
from streamrec_lite.common.schemas import BOS
from streamrec_lite.config.settings import Config
from streamrec_lite.config.training import SftConfig
from streamrec_lite.evaluation.rows import versus
from streamrec_lite.inference.beam_search import beam_search
from streamrec_lite.inference.thinking import think_and_answer, write_thoughts
from streamrec_lite.model.sequences import history_tokens
from streamrec_lite.tutorial.tables import finetuning as tables

NEIGHBOURS = (torch.arange(40)[:, None] + torch.arange(1, 4)) % 40


def test_answer_cost_is_the_teacher_forced_log_probability():
    model, tokenizer, users = small_world()
    thought = torch.randint(3, 3 + 18, (6, 2))
    tokens = history_tokens(tokenizer.tokens, users.history)
    _, want = by_teacher_forcing(model, tokenizer, tokens, thought, users.target)
    got = tables.answer_cost(model, tokenizer, users, thought)
    torch.testing.assert_close(got, -want, atol=1e-5, rtol=0)


@pytest.mark.parametrize("mark", [False, True])
def test_costs_agree_with_the_scores_of_the_beam(mark):
    """Own greedy thoughts, and a beam as wide as the catalogue: the target's score is minus its cost."""
    model, tokenizer, users = small_world()
    model.reads_answer_token = mark
    tokens = history_tokens(tokenizer.tokens, users.history)
    found, _ = think_and_answer(model, tokenizer.trie, tokens, 2, "greedy", 1, beams=40, k=40)
    score = found.score[found.item == users.target[:, None]]
    table = tables.answer_cost_by_thought_source({"it": model}, tokenizer, users, 2)
    assert list(table.index) == ["none", "its own", "another user's", "random codes", "annotated"]
    assert table.loc["its own", "it"] == pytest.approx(-float(score.mean()), abs=1e-4)


def test_margins_are_differences_of_log_probabilities():
    model, tokenizer, users = small_world()
    table = tables.preference_margins(
        {"direct": (model, "direct", 0), "slow": (model, "thinking", 2)}, tokenizer, users, NEIGHBOURS
    )
    tokens = history_tokens(tokenizer.tokens, users.history)
    at_once = beam_search(model, tokenizer.trie, tokens, 40, 40)
    thought = write_thoughts(model, tokenizer, users, 2)
    other = NEIGHBOURS[users.target, 0]
    for user in range(6):
        scores = dict(zip(at_once.item[user].tolist(), at_once.score[user].tolist(), strict=True))
        want = scores[int(users.target[user])] - scores[int(other[user])]
        assert table["direct"][user] == pytest.approx(want, abs=1e-4)
    _, a = by_teacher_forcing(model, tokenizer, tokens, thought, users.target)
    _, b = by_teacher_forcing(model, tokenizer, tokens, thought, other)
    np.testing.assert_allclose(table["slow"], (a - b).numpy(), atol=1e-4)


def test_each_part_falls_when_it_is_learned_and_the_model_is_left_alone():
    model, tokenizer, users = small_world()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    example = tables.annotate_batch(model, tokenizer, users, NEIGHBOURS, 2)
    config = SftConfig(l=2, mu=0.0, thought_decoding="greedy", condition_on="annotated")
    parts = tables.loss_part_table(model, tokenizer, example, config)
    assert list(parts.index) == list(tables.LOSS_PARTS) and (parts["gradient norm"] > 0).all()
    assert parts.loc["quant", "weight"] == 0.0 and parts.loc["answer", "weight"] == 1.0
    alone = tables.single_loss_table(model, tokenizer, example, config, steps=5)
    assert list(alone.index) == [*tables.LOSS_PARTS, "all"] and list(alone.columns) == list(tables.LOSS_PARTS)
    for name in tables.LOSS_PARTS:
        assert alone.loc[name, name] < 0, name
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_own_thoughts_are_read_from_the_models_own_start():
    model, tokenizer, users = small_world()
    thought = write_thoughts(model, tokenizer, users, 3)
    tokens = history_tokens(tokenizer.tokens, users.history)
    states, mask = model.encode(tokens)
    written = torch.full((6, 1), BOS)
    for i in range(3):  # the most likely code, one after the other
        hidden = model.decode(written, states, mask, "thinking")[:, -1]
        best = model.thought_log_probs(hidden).argmax(-1) + 3
        assert torch.equal(best, thought[:, i])
        written = torch.cat([written, best[:, None]], dim=1)


def test_rounds_are_read_from_the_log():
    log = [
        {"epoch": 1, "loss": 2.0, "round": 0, "norm": [3.0, 2.0], "rank": [9.0, 4.0], "used": [7],
         "entropy": [2.5], "information": [1.5]},
        {"epoch": 2, "loss": 1.5},
        {"epoch": 3, "stopped": "why"},
    ]  # fmt: skip
    table = tables.round_table(log)
    assert table[["round", "epoch", "step"]].to_numpy().tolist() == [[0, 1, 0], [0, 1, 1]]
    assert table["gap"].tolist() == [3.0, 2.0] and np.isnan(table["used"][0]) and table["used"][1] == 7


def test_differences_come_from_the_kept_ranks(tmp_path):
    for name, ranks in {"a": [1, 0, 2, 0], "b": [1, 1, 2, 1]}.items():
        kept = {"test": torch.tensor(ranks), "guided test": torch.tensor([1, 1, 1, 1])}
        write_tensors(tmp_path / name / "ranks.safetensors", kept)
    rows = {"TIGER": {"dir": tmp_path / "a"}, "b": {"dir": tmp_path / "b"}, "Popularity": {}}
    rows["b, state-guided"] = rows["b"]
    table = tables.difference_to("TIGER", rows)
    assert list(table.index) == ["b", "b, state-guided"]
    assert table.loc["b", "difference"] == pytest.approx(0.5)  # two of four users from 0 to 1
    assert table.loc["b, state-guided", "difference"] == pytest.approx((2 + 1 - 1 / np.log2(3)) / 4)
    assert (table["low"] <= table["difference"]).all()


def test_intervals_are_those_of_the_report(tmp_path):
    generator = torch.Generator().manual_seed(1)
    ranks = {name: torch.randint(0, 12, (60,), generator=generator) for name in ("TIGER", "b")}
    rows = {name: {"dir": tmp_path / name} for name in ranks}
    for name, row in rows.items():
        write_tensors(row["dir"] / "ranks.safetensors", {"test": ranks[name]})
    by_model = {name: [kept] for name, kept in ranks.items()}
    found = versus(by_model, "TIGER", Config().evaluate.bootstrap)["b"]["N@10"]
    table = tables.difference_to("TIGER", rows)
    assert table.loc["b"].tolist() == [found["mean_difference"], found["low"], found["high"]]


def test_every_part_is_computed_even_at_weight_zero():
    config = tables.with_all_parts(SftConfig(mu=0.0, lam=0.0))
    assert 0 < config.mu < 1e-6 and 0 < config.lam < 1e-6
    assert dataclasses.replace(config, mu=0.0, lam=0.0) == SftConfig(mu=0.0, lam=0.0)
