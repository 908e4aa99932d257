"""Learning rate, weights' average and quick dropout, against values worked out by hand."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from streamrec_lite.config.sections import BackboneConfig
from streamrec_lite.config.training import TrainConfig
from streamrec_lite.training.optim import (
    ByteDropout,
    WeightAverage,
    learning_rate,
    make_optimizer,
    set_learning_rate,
    use_byte_dropout,
)


def test_learning_rate_by_hand():
    config = TrainConfig(lr=1.0, warmup_steps=4, schedule="cosine")
    assert [learning_rate(config, s, 14) for s in range(4)] == [0.25, 0.5, 0.75, 1.0]
    assert learning_rate(config, 4, 14) == pytest.approx(1.0)
    assert learning_rate(config, 9, 14) == pytest.approx(0.01 + 0.99 * 0.5)  # half way down
    assert learning_rate(config, 14, 14) == pytest.approx(0.01)
    assert learning_rate(config, 99, 14) == pytest.approx(0.01)
    assert learning_rate(dataclasses.replace(config, schedule="constant"), 9, 14) == 1.0


def test_average_by_hand():
    model = nn.Linear(1, 1, bias=False)
    model.weight.data.fill_(0.0)
    average = WeightAverage(model, 0.5)
    model.weight.data.fill_(1.0)
    average.update(model, 1)  # decay min(0.5, 2/11)
    assert average.model.weight.item() == pytest.approx(9 / 11)
    average.update(model, 1000)
    assert average.model.weight.item() == pytest.approx(10 / 11)
    assert WeightAverage(model, 0.0).model is model


def test_weight_decay_spares_norms_embeddings_and_position_biases():
    from streamrec_lite.model.backbone import Backbone

    model = Backbone(BackboneConfig(d_model=8, d_ff=8, num_layers=1, num_heads=1, d_kv=8), 11)
    optimizer = make_optimizer(model, TrainConfig(weight_decay=0.1, embedding_lr_factor=7.0))
    decayed, table, plain = optimizer.param_groups
    names = {id(p): name for name, p in model.named_parameters()}
    assert decayed["weight_decay"] == 0.1
    assert plain["weight_decay"] == table["weight_decay"] == 0.0
    set_learning_rate(optimizer, 0.5)
    assert [group["lr"] for group in optimizer.param_groups] == [0.5, 3.5, 0.5]
    assert [names[id(p)] for p in table["params"]] == ["shared.weight", "recency.weight"]
    assert all(names[id(p)].split(".")[-2] in ["q", "k", "v", "o", "wi", "wo"] for p in decayed["params"])
    kept = {names[id(p)].split(".")[-2] for p in plain["params"]}
    assert kept == {"layer_norm", "final_layer_norm", "relative_attention_bias"}


def test_embedding_tables_of_any_model_are_tables():
    """Those of the item-based baselines, too: they do not decay, and have their own learning rate."""
    model = nn.ModuleDict({"table": nn.Embedding(5, 4), "layer": nn.Linear(4, 4)})
    optimizer = make_optimizer(model, TrainConfig(weight_decay=0.1, embedding_lr_factor=3.0))
    groups = {id(p): g for g in optimizer.param_groups for p in g["params"]}
    table, matrix = groups[id(model["table"].weight)], groups[id(model["layer"].weight)]
    assert (table["weight_decay"], table["lr_factor"]) == (0.0, 3.0)
    assert (matrix["weight_decay"], matrix["lr_factor"]) == (0.1, 1.0)


def test_byte_dropout_drops_its_share_and_keeps_the_mean():
    torch.manual_seed(0)
    layer = ByteDropout(0.1)
    x = torch.ones(1001, 1000)
    y = layer(x)
    dropped = (y == 0).float().mean().item()
    assert dropped == pytest.approx(26 / 256, abs=1e-3)  # sd of the share: 3e-4
    assert y.mean().item() == pytest.approx(1.0, abs=1.5e-3)
    assert y.unique().tolist() == pytest.approx([0.0, 256 / 230])
    assert torch.equal(layer.eval()(x), x)
    # each of the eight bytes of a draw is used alike
    shares = (y.flatten()[: 8 * 125_000].view(-1, 8) == 0).float().mean(0)
    assert ((shares - 26 / 256).abs() < 5e-3).all()


def test_byte_dropout_gradient_is_its_mask():
    torch.manual_seed(0)
    x = torch.randn(64, 7, requires_grad=True)
    y = ByteDropout(0.5)(x)
    y.sum().backward()
    assert torch.equal(x.grad, torch.where(y == 0, 0.0, 2.0))


def test_use_byte_dropout_reaches_every_layer():
    from streamrec_lite.model.backbone import Backbone

    model = use_byte_dropout(
        Backbone(BackboneConfig(d_model=8, d_ff=8, num_layers=2, num_heads=1, d_kv=8), 11)
    )
    kinds = [type(m) for m in model.modules()]
    assert nn.Dropout not in kinds
    assert kinds.count(ByteDropout) == 2 * 3 + 1 + 2 * 4 + 1  # encoder, then decoder


def test_a_gpu_keeps_torchs_own_dropout():
    model = use_byte_dropout(nn.Sequential(nn.Dropout(0.3)), "cuda")
    assert type(model[0]) is nn.Dropout
