"""TIGER's loop: the loss by hand, a rule learned, resume equal to no interruption."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest
import torch
from tiny_world import chain_world

from streamrec_lite.baselines.tiger import tiger_loss, train_tiger
from streamrec_lite.common.errors import BadInput
from streamrec_lite.config.presets import preset
from streamrec_lite.config.sections import BackboneConfig
from streamrec_lite.config.training import TrainConfig
from streamrec_lite.inference.recommender import StreamRec
from streamrec_lite.model.backbone import Backbone
from streamrec_lite.training import loop as training_loop
from streamrec_lite.training.loop import TrainingJob


def tiny(**tiger):
    config = preset("smoke")
    train = dataclasses.replace(config.tiger, batch_size=16, warmup_steps=5, lr=5e-3, **tiger)
    backbone = BackboneConfig(d_model=32, d_ff=64, num_layers=1, num_heads=2, d_kv=16, dropout=0.1)
    return dataclasses.replace(config, tiger=train, backbone=backbone)


@pytest.mark.parametrize("softmax", ["trie", "vocabulary"])
def test_loss_of_a_uniform_model_by_hand(softmax):
    tokenizer, splits = chain_world()
    sizes = BackboneConfig(d_model=8, d_ff=8, num_layers=1, num_heads=1, d_kv=8, softmax=softmax)
    model = Backbone(sizes, tokenizer.vocab_size)
    model.shared.weight.data.zero_()  # every logit is 0
    loss = tiger_loss(model, tokenizer, splits.train, TrainConfig())
    # IDs (i // 4, i % 4, i % 2): 3 first codes, 4 second ones each, then one: log 3 + log 4 + 0
    want = math.log(tokenizer.vocab_size) if softmax == "vocabulary" else math.log(12) / 3
    assert loss.item() == pytest.approx(want, abs=1e-6)


def test_learns_the_rule(tmp_path):
    tokenizer, splits = chain_world()
    result = train_tiger(TrainingJob(splits, tiny(max_epochs=25), 0, tmp_path, progress=False), tokenizer)
    assert result.best["N@10"] == 1.0
    recommender = StreamRec(result.model, tokenizer)
    assert torch.equal(recommender.topk(splits.test, 1)[:, 0], splits.test.target)
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == list(range(1, result.epochs + 1))
    assert rows[-1]["loss"] < 0.3 * rows[0]["loss"]


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_resumed_equals_uninterrupted(tmp_path, ema, monkeypatch):
    tokenizer, splits = chain_world()
    config = tiny(max_epochs=4, ema_decay=ema)
    whole = train_tiger(TrainingJob(splits, config, 0, tmp_path / "whole", progress=False), tokenizer)

    real, calls = training_loop._one_epoch, []

    def dies_in_epoch_three(*args):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(training_loop, "_one_epoch", dies_in_epoch_three)
    with pytest.raises(KeyboardInterrupt):
        train_tiger(TrainingJob(splits, config, 0, tmp_path / "cut", progress=False), tokenizer)
    monkeypatch.setattr(training_loop, "_one_epoch", real)
    cut = train_tiger(TrainingJob(splits, config, 0, tmp_path / "cut", progress=False), tokenizer)

    assert cut.best == whole.best
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(weight, cut.model.state_dict()[name]), name
    logs = [(tmp_path / d / "log.jsonl").read_text().splitlines() for d in ("whole", "cut")]
    losses = [[json.loads(line)["loss"] for line in lines] for lines in logs]
    assert losses[0] == losses[1]


def test_seeds_differ_and_repeat(tmp_path):
    tokenizer, splits = chain_world()
    runs = [
        train_tiger(TrainingJob(splits, tiny(max_epochs=1), seed, tmp_path / name, progress=False), tokenizer)
        for seed, name in ((0, "a"), (0, "b"), (1, "c"))
    ]
    a, b, c = (run.model.shared.weight for run in runs)
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_patience_stops(tmp_path):
    tokenizer, splits = chain_world()
    config = tiny(max_epochs=50, patience=2, schedule="constant")
    result = train_tiger(TrainingJob(splits, config, 0, tmp_path, progress=False), tokenizer)
    assert result.epochs == result.best["epoch"] + 2


def test_checkpoint_of_another_model_is_bad_input(tmp_path):
    tokenizer, splits = chain_world()
    config = tiny(max_epochs=1)
    train_tiger(TrainingJob(splits, config, 0, tmp_path, progress=False), tokenizer)
    wider = dataclasses.replace(config, backbone=dataclasses.replace(config.backbone, d_ff=32))
    with pytest.raises(BadInput, match="shape"):
        train_tiger(TrainingJob(splits, wider, 0, tmp_path, progress=False), tokenizer)


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path, monkeypatch):
    import streamrec_lite.baselines.tiger as tiger

    tokenizer, splits = chain_world()
    real = tiger.tiger_loss
    monkeypatch.setattr(tiger, "tiger_loss", lambda *args: real(*args) * math.nan)
    with pytest.raises(FloatingPointError, match=r"tiger\.lr"):
        train_tiger(TrainingJob(splits, tiny(max_epochs=1), 0, tmp_path, progress=False), tokenizer)
    assert not (tmp_path / "best.safetensors").exists()
