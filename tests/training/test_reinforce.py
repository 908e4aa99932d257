"""Stage 3's run: rewards by brute force, an update that changes only what it should, the guard, resuming."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from finetuning import pretrained
from teacher_forcing import by_teacher_forcing
from tiny_world import SIZES, small_world

from streamrec_lite.common.errors import BadInput
from streamrec_lite.common.files import RunLog, read_json
from streamrec_lite.config.presets import preset
from streamrec_lite.config.reinforcement import GrpoConfig
from streamrec_lite.inference.thinking import think_and_answer
from streamrec_lite.model.item_representation import item_table
from streamrec_lite.model.sequences import history_tokens
from streamrec_lite.training import loop as training_loop
from streamrec_lite.training import reinforce as reinforce_module
from streamrec_lite.training.grpo import sample_rollouts
from streamrec_lite.training.loop import TrainingJob
from streamrec_lite.training.reinforce import reinforce
from streamrec_lite.training.rollout_batch import collect_rollouts, compute_rewards, update_losses

EVERY = GrpoConfig(G=4, K=6, reciprocal_weight=1.0, rollout_precision="float32")


def settings(**changes):
    config = preset("smoke")
    values = {
        "batch_size": 8,
        "batches_per_block": 4,
        "G": 4,
        "K": 3,
        "lr": 1e-3,
        "warmup_steps": 1,
        **changes,
    }
    grpo = dataclasses.replace(config.grpo, **values)
    return dataclasses.replace(config, grpo=grpo, backbone=SIZES)


def small_collection(config: GrpoConfig, l: int = 2):
    model, tokenizer, users = small_world()
    torch.manual_seed(1)
    near = (users.target[:, None] + torch.arange(1, config.K + 1)) % 40
    reference = torch.linspace(-6, -1, 6)
    found = collect_rollouts(model, model, tokenizer, users, reference, near, l, config)
    return model, tokenizer, users, near, reference, found


def test_every_reward_equals_what_brute_force_says():
    model, tokenizer, users, near, reference, found = small_collection(EVERY)
    rollouts, tokens = found.rollouts, history_tokens(tokenizer.tokens, users.history)
    user, target = rollouts.user, users.target[rollouts.user]

    def log_prob(items):
        return by_teacher_forcing(model, tokenizer, tokens[user], rollouts.thought, items)[1]

    own = log_prob(target)
    assert torch.allclose(found.rewards["likelihood"], own - reference[user], atol=1e-4)
    others = torch.stack([log_prob(near[user, k]) for k in range(6)], dim=1)
    place = 1 + (others > own[:, None]).sum(1)
    want = [0.2 if p == 1 else 0.05 if p < 1.2 else -0.1 if p >= 3 else 0.0 for p in place.tolist()]
    assert found.rewards["ranking"].tolist() == pytest.approx(want)
    assert torch.equal(found.rewards["format"], torch.zeros(24))
    match = [
        next((j for j in range(3) if a[j] != b[j]), 3)
        for a, b in zip(rollouts.answer.tolist(), tokenizer.tokens[target].tolist(), strict=True)
    ]
    assert found.rewards["match"].tolist() == match
    scores = rollouts.state @ item_table(model, tokenizer)[users.target].T
    g = (scores <= scores.gather(1, user[:, None])).float().mean(1)
    steps = [0.5 if x > 0.98 else 0.05 if x > 0.49 else -0.1 for x in g.tolist()]
    assert found.rewards["similarity"].tolist() == pytest.approx(steps)


def test_reciprocal_rank_is_that_of_a_beam_after_the_same_thoughts(monkeypatch):
    model, tokenizer, users, _, _, found = small_collection(
        EVERY, l=0
    )  # no thoughts: every rollout has the same beam
    beams, _ = think_and_answer(
        model, tokenizer.trie, history_tokens(tokenizer.tokens, users.history), 0, "greedy", beams=10
    )
    for row, user in enumerate(found.rollouts.user.tolist()):
        there = (beams.item[user] == users.target[user]).nonzero().flatten().tolist()
        want = 1 / (1 + there[0]) if there else 0.0
        assert float(found.rewards["reciprocal"][row]) == pytest.approx(want)


def test_what_has_no_weight_and_is_costly_is_left_out():
    none = dataclasses.replace(EVERY, likelihood_weight=0.0, ranking_weight=0.0, reciprocal_weight=0.0)
    assert set(small_collection(none)[-1].rewards) == {"format", "match", "similarity"}
    some = dataclasses.replace(none, likelihood_weight=1.0)
    assert set(small_collection(some)[-1].rewards) == {"format", "match", "similarity", "likelihood"}


@pytest.mark.parametrize("case", ["one rollout", "equal rewards"])
def test_a_group_without_spread_teaches_nothing(case):
    config = dataclasses.replace(EVERY, G=1 if case == "one rollout" else 4, beta=0.0)
    model, tokenizer, users, _, _, found = small_collection(config)
    if case == "equal rewards":
        found = found._replace(rewards={n: torch.full_like(v, 0.1) for n, v in found.rewards.items()})
    losses = update_losses(model, tokenizer, users, found, config)
    losses["loss"].backward()
    assert float(losses["frac_reward_zero_std"]) == 1.0
    assert all(p.grad is None or not p.grad.any() for p in model.parameters())


def test_rollouts_that_name_nothing_are_punished_and_the_update_is_finite(monkeypatch):
    model, tokenizer, users, near, reference, found = small_collection(EVERY)
    lost = found.rollouts._replace(item=torch.full_like(found.rollouts.item, -1))
    after = sample_rollouts(model, tokenizer, *model.encode_history(tokenizer, users.history), 2, 4)[1]
    parts = compute_rewards(model, tokenizer, users, lost, after, reference, near, EVERY)
    assert torch.equal(parts["format"], torch.full((24,), -1.0))
    losses = update_losses(model, tokenizer, users, found._replace(rewards=parts), EVERY)
    assert float(losses["invalid"]) == 1.0 and torch.isfinite(losses["loss"])


@pytest.mark.parametrize("passes", [1, 2])
@pytest.mark.parametrize("rollouts", ["float32", "bfloat16"])
def test_before_the_first_update_ratios_are_one_and_kl_is_zero(rollouts, passes):
    config = dataclasses.replace(EVERY, rollout_precision=rollouts, updates_per_batch=passes)
    model, tokenizer, users, _, _, found = small_collection(config)
    assert (found.old is None) == (passes == 1)  # the policy that is updated is then the one that wrote
    losses = update_losses(model, tokenizer, users, found, config)
    assert float(losses["ratio"]) == pytest.approx(1.0, abs=1e-5)
    assert float(losses["kl"]) == pytest.approx(0.0, abs=1e-8)
    assert float(losses["clip_ratio low"]) == float(losses["clip_ratio high"]) == 0.0


def test_what_is_written_in_bfloat16_is_judged_nearly_as_in_float32():
    """A likelihood is off by hundredths of a nat; ratios are taken between passes of one precision."""
    config = dataclasses.replace(EVERY, rollout_precision="bfloat16", updates_per_batch=2)
    model, tokenizer, users, _, reference, found = small_collection(config)
    rollouts, tokens = found.rollouts, history_tokens(tokenizer.tokens, users.history)
    user = rollouts.user
    exact = by_teacher_forcing(model, tokenizer, tokens[user], rollouts.thought, users.target[user])[1]
    off = found.rewards["likelihood"] - (exact - reference[user])
    assert 0 < float(off.abs().max()) < 0.1
    gap = (found.old - rollouts.log_prob).abs().max()
    assert 0 < float(gap) < 0.1
    assert rollouts.state.dtype == torch.float32


def start(folder, config, **options):
    model, tokenizer, splits, near = pretrained()
    result = reinforce(model, model, TrainingJob(splits, config, 0, folder, progress=False), tokenizer, near)
    return result, splits


def test_it_learns_keeps_its_log_and_writes_rollouts_down(tmp_path):
    config = settings(max_epochs=4, batches_per_block=15, lr=5e-3, similarity_weight=0.0, max_drop=1.0)
    result, _ = start(tmp_path, config)
    rows = RunLog(tmp_path / "log.jsonl").rows()
    assert [row["epoch"] for row in rows] == [0, 1, 2, 3, 4]
    assert result.best["N@10"] >= rows[0]["valid N@10"]
    assert rows[-1]["reward match"] > rows[1]["reward match"]
    assert {"reward", "kl", "entropy", "frac_reward_zero_std", "invalid", "weighted match"} <= set(rows[1])
    sheet = read_json(tmp_path / "rollouts-3.json")
    assert {"user", "target", "thoughts", "item", "match", "reward", "advantage"} <= set(sheet[0])
    assert len(sheet) % 4 == 0 and len(list(tmp_path.glob("rollouts-*.json"))) == 4


def test_a_run_that_gets_worse_ends_with_what_it_began_with(tmp_path, monkeypatch, capsys):
    before = {name: value.clone() for name, value in pretrained()[0].state_dict().items()}
    real, asked = training_loop.evaluate, []

    def worse(*args, **options):
        found = real(*args, **options)
        asked.append(1)
        return found._replace(metrics={**found.metrics, "N@10": 0.5 - 0.1 * len(asked)})

    monkeypatch.setattr(training_loop, "evaluate", worse)
    result, _ = start(tmp_path, settings(max_epochs=5, max_drop=0.1))
    assert result.best["epoch"] == 0 and result.epochs == 1
    said = capsys.readouterr().out
    assert "validation N@10 fell from 0.4000 to 0.3000" in said and "lower grpo.lr" in said
    for name, value in result.model.state_dict().items():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize("hits, kept", [(3, 0), (4, 1)])
def test_a_block_is_kept_only_where_it_gains_more_than_luck(tmp_path, monkeypatch, hits, kept):
    """12 users, none hit at first. Three (four) hits gain 1.92 (2.35) of their standard errors."""
    real, asked = training_loop.evaluate, []

    def better(*args, **options):
        found = real(*args, **options)
        ranks = (torch.arange(len(found.ranks)) < (hits if asked else 0)).long()
        asked.append(1)
        return found._replace(ranks=ranks, metrics={**found.metrics, "N@10": float(ranks.double().mean())})

    monkeypatch.setattr(training_loop, "evaluate", better)
    result, splits = start(tmp_path, settings(max_epochs=1, batches_per_block=1, min_gain_in_std_errors=2.0))
    n = splits.valid.n_examples
    row = RunLog(tmp_path / "log.jsonl").rows()[1]
    assert row["gain in errors"] == pytest.approx((hits * (n - 1) / (n - hits)) ** 0.5)
    assert result.best["epoch"] == kept


def test_resumed_equals_uninterrupted(tmp_path, monkeypatch):
    config = settings(max_epochs=3, max_drop=1.0)
    whole, _ = start(tmp_path / "whole", config)
    real, calls = training_loop._one_epoch, []

    def dies(*args):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(training_loop, "_one_epoch", dies)
    with pytest.raises(KeyboardInterrupt):
        start(tmp_path / "cut", config)
    cut, _ = start(tmp_path / "cut", config)
    assert cut.best == whole.best
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(weight, cut.model.state_dict()[name]), name
    kept = [tmp_path / run / "rollouts-2.json" for run in ("whole", "cut")]
    assert kept[0].read_bytes() == kept[1].read_bytes()


def test_several_updates_share_one_batch_of_rollouts(tmp_path, monkeypatch):
    collections, updates = [], []
    collect, update = reinforce_module.collect_rollouts, reinforce_module.update_losses
    monkeypatch.setattr(reinforce_module, "collect_rollouts", lambda *a: collections.append(1) or collect(*a))
    monkeypatch.setattr(reinforce_module, "update_losses", lambda *a: updates.append(1) or update(*a))
    start(tmp_path, settings(max_epochs=1, batches_per_block=2, updates_per_batch=3, max_drop=1.0))
    assert len(updates) == 3 * (len(collections) - 1)  # one more is for the table of rollouts
    row = RunLog(tmp_path / "log.jsonl").rows()[1]
    assert row["kl"] > 0


def test_too_many_negatives_are_refused(tmp_path):
    with pytest.raises(BadInput, match=r"grpo\.K=9: there are only 3 neighbours"):
        start(tmp_path, settings(K=9))
