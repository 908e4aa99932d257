"""Stage 1: the loss by hand and by finite differences, the draw of similar items, and a resumed run."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from tiny_world import SIZES, chain_world, small_world

from streamrec_lite.common.files import RunLog
from streamrec_lite.common.schemas import Prefixes
from streamrec_lite.config.presets import preset
from streamrec_lite.inference.beam_search import beam_search
from streamrec_lite.model.backbone import Backbone
from streamrec_lite.training import loop as training_loop
from streamrec_lite.training.loop import TrainingJob
from streamrec_lite.training.pretrain import draw_similar, pretrain, pretrain_loss


def settings(**changes):
    config = preset("smoke")
    train = dataclasses.replace(config.pretrain, batch_size=16, warmup_steps=5, lr=5e-3, **changes)
    return dataclasses.replace(config, pretrain=train, backbone=dataclasses.replace(SIZES, dropout=0.1))


def test_loss_of_a_uniform_model_by_hand():
    """Every logit is 0: similar items cost log(m K) a code, the answer what the trie leaves open."""
    tokenizer, splits = chain_world()  # 12 items (i // 4, i % 4, i % 2): log 3 + log 4 + 0 an answer
    model = Backbone(SIZES, tokenizer.vocab_size, ("direct", "thinking"))
    model.shared.weight.data.zero_()
    batch = splits.train.select(torch.arange(8))
    similar = torch.randint(0, 12, (8, 2))
    losses = pretrain_loss(model, tokenizer, batch, similar, preset("smoke").pretrain)
    answer = (math.log(3) + math.log(4)) / 3
    assert losses["direct"].item() == pytest.approx(answer, abs=1e-6)
    assert losses["answer"].item() == pytest.approx(answer, abs=1e-6)
    assert losses["similar"].item() == pytest.approx(math.log(12), abs=1e-6)  # 3 levels of 4 codes
    assert losses["loss"].item() == pytest.approx(2 * answer + math.log(12), abs=1e-5)


def test_gradient_equals_a_finite_difference():
    model, tokenizer, users = small_world()
    model = model.double()
    similar = torch.randint(0, 40, (6, 2), generator=torch.Generator().manual_seed(1))

    def loss():
        return pretrain_loss(model, tokenizer, users, similar, preset("smoke").pretrain)["loss"]

    loss().backward()
    names = dict(model.named_parameters())
    for name in (
        "shared.weight",
        "recency.weight",
        "decoders.thinking.block.1.layer.2.DenseReluDense.wo.weight",
    ):
        weight = names[name]
        at = weight.grad.abs().flatten().argmax()
        want = float(weight.grad.flatten()[at])
        with torch.no_grad():
            flat, step, values = weight.view(-1), 1e-3, []
            for sign in (1, -1):
                flat[at] += sign * step
                values.append(float(loss()))
                flat[at] -= sign * step
        # the logits' softmax is taken in single precision
        assert (values[0] - values[1]) / (2 * step) == pytest.approx(want, rel=2e-2), name


def test_drawn_items_are_different_neighbours():
    neighbours = torch.arange(50).view(10, 5)
    torch.manual_seed(0)
    drawn = draw_similar(neighbours, torch.tensor([3] * 400 + [7]), 2)
    assert drawn.shape == (401, 2)
    assert (drawn[:, 0] != drawn[:, 1]).all()
    assert set(drawn[:400].flatten().tolist()) == set(range(15, 20))
    assert set(drawn[400].tolist()) <= set(range(35, 40))
    counts = torch.bincount(drawn[:400].flatten() - 15)
    assert counts.min() > 120  # 160 each on average, deviation 10


def test_both_decoders_learn_and_answer(tmp_path):
    tokenizer, splits = chain_world()
    neighbours = (torch.arange(12)[:, None] + torch.arange(1, 4)) % 12
    result = pretrain(
        TrainingJob(splits, settings(max_epochs=25), 0, tmp_path, progress=False), tokenizer, neighbours
    )
    assert result.best["N@10"] == 1.0
    rows = [dict(row) for row in RunLog(tmp_path / "log.jsonl").rows()]
    assert rows[-1]["answer"] < 0.5 * rows[0]["answer"]
    assert rows[-1]["similar"] < rows[0]["similar"]
    tokens = tokenizer.tokens[splits.test.history].flatten(1)
    assert torch.equal(
        beam_search(result.model, tokenizer.trie, tokens, 10, 1).item[:, 0], splits.test.target
    )


def test_items_get_vectors_of_their_own(tmp_path):
    """... that learn, unless the settings say none; a saved model has them still."""
    tokenizer, splits = chain_world()
    neighbours = (torch.arange(12)[:, None] + torch.arange(1, 4)) % 12
    for items in ("history-and-answer", "none"):
        config = settings(max_epochs=1, item_vectors=items, item_vector_dropout=0.25)
        model = pretrain(
            TrainingJob(splits, config, 0, tmp_path / items, progress=False), tokenizer, neighbours
        ).model
        if items == "none":
            assert model.item_vectors is None
            continue
        assert model.item_vectors.dropout == 0.25
        assert model.item_vectors.vectors.weight[:12].norm(dim=1).min() > 0
        model.save(tmp_path)
        again = Backbone.load(tmp_path)
        assert torch.equal(again.item_vectors.vectors.weight, model.item_vectors.vectors.weight)


def test_resumed_equals_uninterrupted(tmp_path, monkeypatch):
    tokenizer, splits = chain_world()
    neighbours = (torch.arange(12)[:, None] + torch.arange(1, 4)) % 12
    config = settings(max_epochs=3)

    def run(folder):
        return pretrain(
            TrainingJob(splits, config, 0, tmp_path / folder, progress=False), tokenizer, neighbours
        )

    whole = run("whole")
    real, calls = training_loop._one_epoch, []

    def dies_in_epoch_two(*args):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(training_loop, "_one_epoch", dies_in_epoch_two)
    with pytest.raises(KeyboardInterrupt):
        run("cut")
    monkeypatch.setattr(training_loop, "_one_epoch", real)
    cut = run("cut")
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(weight, cut.model.state_dict()[name]), name


def test_the_order_of_users_does_not_matter():
    model, tokenizer, users = small_world()
    similar = torch.randint(0, 40, (6, 2))
    turned = torch.tensor([5, 0, 3, 1, 4, 2])
    there = Prefixes(users.history[turned], users.length[turned], users.target[turned], users.user[turned])
    a = pretrain_loss(model, tokenizer, users, similar, preset("smoke").pretrain)
    b = pretrain_loss(model, tokenizer, there, similar[turned], preset("smoke").pretrain)
    for name in a:
        assert a[name].item() == pytest.approx(b[name].item(), abs=1e-5)
