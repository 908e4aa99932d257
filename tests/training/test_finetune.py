"""Stage 2: each loss by hand and by finite differences, and a loop that leaves pi_ref and targets alone."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from finetuning import pretrained, settings, two_users
from tiny_world import SIZES, chain_world

from streamrec_lite.common.files import RunLog
from streamrec_lite.common.schemas import BOS, FIRST_CODE, Splits
from streamrec_lite.config.training import SftConfig
from streamrec_lite.inference.beam_search import answer_log_probs
from streamrec_lite.inference.thinking import write_thoughts
from streamrec_lite.model.backbone import Backbone
from streamrec_lite.model.item_representation import item_table, represent_items
from streamrec_lite.model.item_vectors import ItemVectors
from streamrec_lite.training import finetune as finetune_module
from streamrec_lite.training import loop as training_loop
from streamrec_lite.training.finetune import finetune
from streamrec_lite.training.finetune_loss import _own_thoughts, finetune_loss
from streamrec_lite.training.loop import TrainingJob

# Every part of the loss has a weight, and L_State is that of eq. 14.
ALL = {
    "lam": 0.7,
    "mu": 0.3,
    "delta": 0.5,
    "align_weight": 0.2,
    "thought_weight": 0.8,
    "first_guess_share": 0.0,
    "first_state_weight": 0.0,
}


def test_a_uniform_model_by_hand():
    """Every logit and every t is 0: what is left are logarithms of how many there are, and |s|."""
    tokenizer, splits = chain_world()  # 12 items (i // 4, i % 4, i % 2): log 3 + log 4 + 0 an answer
    model = Backbone(SIZES, tokenizer.vocab_size, ("direct", "thinking")).eval()
    model.shared.weight.data.zero_()
    batch = splits.train.select(torch.tensor([0, 1]))
    thought = torch.randint(FIRST_CODE, FIRST_CODE + 12, (2, 2))
    reference = torch.tensor([[-2.0, -1.0], [-2.0, -4.0]])
    rejected, nearby = torch.tensor([5, 6]), torch.arange(12)[:, None]
    for condition_on in ("own", "annotated"):
        config = SftConfig(condition_on=condition_on, dpo_beta=0.5, **ALL)
        parts = finetune_loss(model, tokenizer, batch, thought, rejected, reference, nearby, config)
        dpo = math.log(1 + math.exp(-0.5))  # user 0: the margin is 2 - 1
        if condition_on == "annotated":  # then user 1 trains preferences, too: the margin is 2 - 4
            dpo = (dpo + math.log(1 + math.exp(1.0))) / 2
        want = {
            "answer": math.log(12) / 3,
            "thoughts": math.log(12),  # 3 levels of 4 codes
            "dpo": dpo,
            "state": math.log(12),  # 12 items
            # States start with length 0.5 a component; with own thoughts there are two sequences of them.
            "align": 0.5 if condition_on == "own" else 0.25,
            "quant": 16 * 0.25 * 1.25,  # r = -s of 16 components, o = 0
        }
        for name, value in want.items():
            assert parts[name].item() == pytest.approx(value, abs=1e-4), (condition_on, name)
        total = want["answer"] + 0.8 * want["thoughts"] + 0.7 * dpo + 0.5 * want["state"]
        total += 0.2 * want["align"] + 0.3 * want["quant"]
        assert parts["loss"].item() == pytest.approx(total, abs=1e-4)


def test_thoughts_learned_after_own_thoughts_by_hand():
    """What should have been thought next, eq. 12, user by user and step by step, in passes of their own."""
    model, tokenizer, batch, _, rejected, reference, nearby = two_users()
    model.reads_answer_token = True
    torch.nn.init.normal_(model.residual_head.outer.weight, std=0.3)
    nothing = torch.zeros(2, 2, dtype=torch.long)  # what the annotator wrote is not looked at
    for repeats in (True, False):
        model.may_repeat_thoughts = repeats
        config = SftConfig(thought_decoding="greedy", learn_thoughts_after="own", **ALL)
        own = write_thoughts(model, tokenizer, batch, 2)
        parts = finetune_loss(model, tokenizer, batch, nothing, rejected, reference, nearby, config)
        codes, costs, gaps = model.shared.weight[FIRST_CODE:], [], []
        for user in range(2):
            inputs = torch.tensor([[BOS, *own[user].tolist()]])
            one = batch.select(torch.tensor([user]))
            hidden = model.decode(inputs, *model.encode_history(tokenizer, one.history), "thinking")
            s, t = model.states(hidden)[0], represent_items(model, tokenizer, one.target)[0]
            for j in range(2):
                r = model.residual_head(t - s[j])
                far = (r - codes).norm(dim=1)
                score = model.thought_logits(hidden[0, j])
                if not repeats and j:
                    far[own[user, 0] - FIRST_CODE], score[own[user, 0] - FIRST_CODE] = math.inf, -math.inf
                costs.append(-score.log_softmax(0)[far.argmin()].item())
                gaps.append(1.25 * far.min().square().item())
        assert parts["thoughts"].item() == pytest.approx(sum(costs) / 4, rel=1e-4)
        assert parts["quant"].item() == pytest.approx(sum(gaps) / 4, rel=1e-4)


def test_own_thoughts_are_written_without_the_decoders_dropout():
    model, tokenizer, batch, *_ = two_users()
    for each in model.modules():
        if isinstance(each, torch.nn.Dropout):
            each.p = 0.5
    with torch.no_grad():
        states, mask = model.encode_history(tokenizer, batch.history)
    model.train()
    cross = model.cross_keys_values(states, "thinking", mask)
    asked = write_thoughts(model, tokenizer, batch, 4)
    model.train()
    for _ in range(5):
        assert torch.equal(_own_thoughts(model, states, mask, cross, 4, "greedy"), asked)
    assert model.decoders["thinking"].training  # and it goes on learning


@torch.no_grad()
def test_two_users_one_after_the_other_give_the_batch():
    """The paper's losses, computed for each user alone from eqs 14-19 as they stand."""
    model, tokenizer, batch, thought, rejected, reference, nearby = two_users()
    config = SftConfig(condition_on="annotated", negatives="batch", dpo_beta=0.3, quant_beta=0.25, **ALL)
    got = finetune_loss(model, tokenizer, batch, thought, rejected, reference, nearby, config)
    t = represent_items(model, tokenizer, batch.target)
    sums = dict.fromkeys(("answer", "thoughts", "dpo", "state", "align", "quant"), 0.0)
    for u in range(2):
        one = batch.select(torch.tensor([u]))
        states, mask = model.encode_history(tokenizer, one.history)
        log_prob = []
        for item in (batch.target[u], rejected[u]):
            written = torch.cat([torch.tensor([BOS]), thought[u], tokenizer.tokens[item]])[None]
            hidden = model.decode(written[:, :-1], states, mask, "thinking")
            log_prob.append(answer_log_probs(model, tokenizer, hidden[:, 2:], item[None])[0])
            if item == batch.target[u]:
                d = hidden[0]
        margin = (log_prob[0].sum() - reference[u, 0]) - (log_prob[1].sum() - reference[u, 1])
        s = model.states(d[None, :3])[0]
        guess = (d[:2] * 16**-0.5 @ model.shared.weight[FIRST_CODE:].T).log_softmax(-1)
        r = model.residual_head(t[u] - s[:2])
        o = model.shared(thought[u])
        sums["answer"] += -log_prob[0].mean() / 2
        sums["thoughts"] += -sum(guess[i, thought[u, i] - FIRST_CODE] for i in range(2)) / 4
        sums["dpo"] += (1 + (-0.3 * margin).exp()).log() / 2
        sums["align"] += sum((j + 1) / 6 * (s[j] - t[u]).square().mean() for j in range(3)) / 2
        sums["quant"] += 1.25 * (r - o).square().sum() / 4
        for j in (1, 2):  # eq. 14 begins with s_1
            sums["state"] += j / 3 * -(model.state_score_scale * s[j] @ t.T).log_softmax(-1)[u] / 2
    for name, want in sums.items():
        assert got[name].item() == pytest.approx(float(want), rel=1e-4), name
    total = sums["answer"] + 0.8 * sums["thoughts"] + 0.7 * sums["dpo"] + 0.5 * sums["state"]
    total += 0.2 * sums["align"] + 0.3 * sums["quant"]
    assert got["loss"].item() == pytest.approx(float(total), rel=1e-4)


@pytest.mark.parametrize(
    ("condition_on", "learn_after"), [("own", "annotated"), ("annotated", "annotated"), ("own", "own")]
)
@pytest.mark.parametrize("negatives", ["catalogue", "batch"])
@pytest.mark.parametrize("part", ["answer", "thoughts", "dpo", "state"])
def test_gradient_equals_a_finite_difference(condition_on, learn_after, negatives, part):
    model, tokenizer, batch, thought, rejected, reference, nearby = two_users()
    model = model.double()
    for head in (model.state_head, model.residual_head):  # states are taken in single precision
        head.float()
    config = SftConfig(
        condition_on=condition_on,
        learn_thoughts_after=learn_after,
        negatives=negatives,
        thought_decoding="greedy",
        **ALL,
    )

    def loss():
        torch.manual_seed(0)  # draws the same state
        return finetune_loss(model, tokenizer, batch, thought, rejected, reference, nearby, config)[part]

    loss().backward()
    names = dict(model.named_parameters())
    chosen = ["decoders.thinking.block.1.layer.2.DenseReluDense.wo.weight", "recency.weight"]
    for name in [*chosen, "state_head.outer.weight"] if part == "state" else chosen:
        weight = names[name]
        at = weight.grad.abs().flatten().argmax()
        want = float(weight.grad.flatten()[at])
        with torch.no_grad():
            flat, step, values = weight.view(-1), 1e-3, []
            for sign in (1, -1):
                flat[at] += sign * step
                values.append(float(loss()))
                flat[at] -= sign * step
        # so is the softmax of logits
        assert (values[0] - values[1]) / (2 * step) == pytest.approx(want, rel=3e-2), name


@torch.no_grad()
def test_own_thoughts_know_nothing_of_the_target():
    """What is read before the answer is the same whatever the target and its annotation are."""
    model, tokenizer, batch, thought, rejected, reference, nearby = two_users()
    config = SftConfig(
        condition_on="own",
        thought_decoding="greedy",
        lam=0.0,
        thought_weight=0.0,
        delta=0.0,
        align_weight=0.0,
    )

    def answer(thought, config):
        return finetune_loss(model, tokenizer, batch, thought, rejected, reference, nearby, config)["answer"]

    a, b = answer(thought, config), answer(thought.flip(0), config)
    assert a.item() == b.item()
    annotated = dataclasses.replace(config, condition_on="annotated")
    c, d = answer(thought, annotated), answer(thought.flip(0), annotated)
    assert c.item() != d.item()


def test_it_learns_and_leaves_pi_ref_alone(tmp_path):
    model, tokenizer, splits, neighbours = pretrained()
    direct = {n: v.clone() for n, v in model.decoders["direct"].state_dict().items()}
    config = settings(max_epochs=40, epochs_per_round=10, eval_every=10)
    path, seen = tmp_path / "reference.safetensors", []
    real = finetune_module.finetune_loss

    def watched(*args):
        seen.append(path.read_bytes())
        return real(*args)

    finetune_module.finetune_loss = watched
    try:
        result = finetune(
            model, TrainingJob(splits, config, 0, tmp_path, progress=False), tokenizer, neighbours
        )
    finally:
        finetune_module.finetune_loss = real
    assert result.best["N@10"] == 1.0
    assert len(set(seen)) == 1 and path.read_bytes() == seen[0]  # computed once, bitwise the same
    for name, value in result.model.decoders["direct"].state_dict().items():
        assert torch.equal(value, direct[name]), name
    rows = RunLog(tmp_path / "log.jsonl").rows()
    rounds = [row for row in rows if "round" in row]
    assert [row["round"] for row in rounds] == [0, 1, 2, 3]
    assert len(rounds[0]["norm"]) == 3 and len(rounds[0]["information"]) == 2
    assert {"gradient answer", "gradient state"} <= set(rounds[0])
    assert sorted(p.name for p in tmp_path.glob("traces-*")) == [f"traces-{i}.safetensors" for i in range(4)]
    table = item_table(result.model, tokenizer)
    assert table.shape == (12, 16)


def test_no_validation_or_test_target_is_annotated(tmp_path):
    """Other targets in validation and test change no trace; the annotator sees training rows alone."""
    kept = []
    for turn in range(2):
        model, tokenizer, splits, neighbours = pretrained()
        other = [part._replace(target=(part.target + 5 * turn) % 12) for part in splits[1:]]
        folder = tmp_path / str(turn)
        config = settings(max_epochs=2, epochs_per_round=1)
        job = TrainingJob(Splits(splits.train, *other), config, 0, folder, progress=False)
        finetune(model, job, tokenizer, neighbours)
        kept.append([(folder / f"traces-{i}.safetensors").read_bytes() for i in range(2)])
        kept[-1].append((folder / "reference.safetensors").read_bytes())
    assert kept[0] == kept[1]


@pytest.mark.parametrize("start", ["direct", "thinking"])
def test_what_the_thinking_decoder_starts_from(start, tmp_path):
    """Steps of next to no length leave it where it started."""
    model, tokenizer, splits, neighbours = pretrained()
    before = {n: {k: v.clone() for k, v in d.state_dict().items()} for n, d in model.decoders.items()}
    config = settings(max_epochs=1, decoder_init=start)
    config = dataclasses.replace(config, sft=dataclasses.replace(config.sft, lr=1e-8))
    result = finetune(model, TrainingJob(splits, config, 0, tmp_path, progress=False), tokenizer, neighbours)
    for name, weight in result.model.decoders["thinking"].state_dict().items():
        assert torch.allclose(weight, before[start][name], atol=1e-6), name
    assert any(not torch.equal(x, before["direct"][n]) for n, x in before["thinking"].items())


@pytest.mark.parametrize("items", ["none", "history-and-answer"])
def test_vectors_of_pretraining_are_dropped_or_learn_on(items, tmp_path):
    model, tokenizer, splits, neighbours = pretrained()
    model.item_vectors = ItemVectors.of(tokenizer, SIZES.d_model)
    torch.nn.init.ones_(model.item_vectors.vectors.weight[:12])
    config = settings(max_epochs=1, item_vectors=items, item_vector_dropout=0.2)
    model = finetune(
        model, TrainingJob(splits, config, 0, tmp_path, progress=False), tokenizer, neighbours
    ).model
    if items == "none":
        assert model.item_vectors is None
    else:  # not made anew from zero
        assert model.item_vectors.dropout == 0.2 and model.item_vectors.vectors.weight[:12].mean() > 0.5


def test_resumed_equals_uninterrupted(tmp_path, monkeypatch):
    config = settings(max_epochs=4, epochs_per_round=2)

    def run(folder):
        model, tokenizer, splits, neighbours = pretrained()
        return finetune(
            model, TrainingJob(splits, config, 0, tmp_path / folder, progress=False), tokenizer, neighbours
        )

    whole = run("whole")
    real, calls = training_loop._one_epoch, []

    def dies(*args):
        calls.append(1)
        if len(calls) in (2, 4):
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(training_loop, "_one_epoch", dies)
    for _ in range(2):  # once within a round, once at the start of the next one
        with pytest.raises(KeyboardInterrupt):
            run("cut")
    monkeypatch.setattr(training_loop, "_one_epoch", real)
    cut = run("cut")
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(weight, cut.model.state_dict()[name]), name


def test_thoughts_that_say_nothing_any_more_end_the_loop(tmp_path, monkeypatch, capsys):
    real = finetune_module.annotate

    def annotated(*args, **options):
        traces = real(*args, **options)
        collapsed = len(list(tmp_path.glob("traces-*"))) == 2
        return traces._replace(thought=torch.full_like(traces.thought, 5)) if collapsed else traces

    monkeypatch.setattr(finetune_module, "annotate", annotated)
    model, tokenizer, splits, neighbours = pretrained()
    config = settings(max_epochs=6, epochs_per_round=1, annotator="own-codes")
    result = finetune(model, TrainingJob(splits, config, 0, tmp_path, progress=False), tokenizer, neighbours)
    assert result.epochs == 2
    last = RunLog(tmp_path / "log.jsonl").rows()[-1]
    assert last["epoch"] == 3 and "say nothing" in last["stopped"]
    assert "say nothing" in capsys.readouterr().out
