"""A pretrained model of the small world, and what its fine-tuning needs."""

from __future__ import annotations

import dataclasses

import torch
from tiny_world import SIZES, chain_world, small_world

from streamrec_lite.config.presets import preset
from streamrec_lite.model.backbone import Backbone


def settings(**changes):
    config = preset("smoke")
    train = dataclasses.replace(
        config.sft, batch_size=16, warmup_steps=5, lr=5e-3, l=2, similar_pool=3, **changes
    )
    return dataclasses.replace(config, sft=train, backbone=dataclasses.replace(SIZES, dropout=0.1))


def pretrained():
    """A chain world and a model of both decoders that has learned nothing yet."""
    tokenizer, splits = chain_world()
    torch.manual_seed(0)
    sizes = dataclasses.replace(SIZES, dropout=0.1)
    model = Backbone(sizes, tokenizer.vocab_size, ("direct", "thinking"))
    return model, tokenizer, splits, (torch.arange(12)[:, None] + torch.arange(1, 4)) % 12


def two_users():
    model, tokenizer, users = small_world()
    batch = users.select(torch.tensor([0, 2]))
    thought = torch.tensor([[5, 9], [20, 3]])
    rejected = (batch.target + 7) % 40
    nearby = (torch.arange(40)[:, None] + torch.tensor([7, 20])) % 40
    return model, tokenizer, batch, thought, rejected, torch.tensor([[-3.0, -2.5], [-4.0, -6.0]]), nearby
