"""The printed method on small models: its settings, and a world with both decoders."""

from __future__ import annotations

import dataclasses

import torch
from finetuning import two_users
from tiny_world import SIZES, chain_world

from streamrec_lite.config.presets import preset
from streamrec_lite.config.printed import as_printed
from streamrec_lite.model.backbone import Backbone

PRINTED = as_printed(preset("smoke"))
PLAIN_T5 = dataclasses.replace(SIZES, recency_embeddings=0, softmax="vocabulary")


def uniform_world():
    """(model, tokenizer, two users): all embeddings are 0, so all 15 tokens are equally likely."""
    tokenizer, splits = chain_world()  # 3 levels of 4 codes, and 3 special tokens
    model = Backbone(PLAIN_T5, tokenizer.vocab_size, ("direct", "thinking"), raw_states=True).eval()
    model.shared.weight.data.zero_()
    return model, tokenizer, splits.train.select(torch.tensor([0, 1]))


def printed_users():
    """What ``two_users`` gives, with a model whose softmax and states are as printed."""
    _, tokenizer, *rest = two_users()
    torch.manual_seed(5)
    plain = Backbone(PLAIN_T5, tokenizer.vocab_size, ("direct", "thinking"), raw_states=True).eval()
    plain.state_score_scale.data.fill_(1.0)
    for head in (plain.state_head, plain.residual_head):  # as after some training, not the identity
        torch.nn.init.normal_(head.outer.weight, std=0.2)
    return plain, tokenizer, *rest
