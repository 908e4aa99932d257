"""A small catalogue, a small model with both decoders, and a few users, for the tests of thinking."""

from __future__ import annotations

from types import SimpleNamespace

import pandas as pd
import torch

from streamrec_lite.common.schemas import Prefixes, Splits
from streamrec_lite.config.sections import BackboneConfig
from streamrec_lite.model.backbone import Backbone
from streamrec_lite.tokenizer.semantic_ids import SemanticTokenizer

SIZES = BackboneConfig(
    d_model=16, d_ff=24, num_layers=2, num_heads=2, d_kv=8, dropout=0.0, recency_embeddings=9
)
DECODERS = ("direct", "thinking")


def small_world(n_items: int = 40, m: int = 3, K: int = 6, seed: int = 0):
    """(model, tokenizer, prefixes): six users with histories of one to four items."""
    torch.manual_seed(seed)
    numbers = torch.randperm(K**m)[:n_items]
    codes = torch.stack([numbers // K**j % K for j in reversed(range(m))], dim=1)
    tokenizer = SemanticTokenizer.from_codes(codes, K)
    model = Backbone(SIZES, tokenizer.vocab_size, DECODERS).eval()
    for head in (model.state_head, model.residual_head):  # as after some training, not the identity
        torch.nn.init.normal_(head.outer.weight, std=0.2)
    length = torch.tensor([4, 1, 3, 2, 4, 1])
    history = torch.randint(0, n_items, (6, 4)).masked_fill(torch.arange(4) >= length[:, None], -1)
    target = torch.randint(0, n_items, (6,))
    return model, tokenizer, Prefixes(history, length, target, torch.arange(6))


def catalogue(n: int = 40, title: str = "thing {}"):
    """As much of a data set as titles need."""
    return SimpleNamespace(items=pd.DataFrame({"title": [title.format(i) for i in range(n)]}), n_items=n)


def chain_world(n_items: int = 12, users: int = 80):
    """Item i is always followed by item i + 1: a rule that a model must learn."""
    codes = torch.tensor([[i // 4, i % 4, i % 2] for i in range(n_items)])
    start = torch.arange(users) % n_items
    history = (start[:, None] + torch.arange(3)) % n_items
    target = (start + 3) % n_items
    length = torch.full((users,), 3)
    prefixes = Prefixes(history, length, target, torch.arange(users))
    return SemanticTokenizer.from_codes(codes, 4), Splits(
        prefixes, prefixes.select(torch.arange(24)), prefixes
    )
