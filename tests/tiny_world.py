"""A small catalogue, a small model with both decoders, and a few users, for the tests of thinking."""

from __future__ import annotations

import torch

from streamrec_lite.backbone import Backbone
from streamrec_lite.config import BackboneConfig
from streamrec_lite.schemas import Prefixes
from streamrec_lite.semantic_ids import SemanticTokenizer

SIZES = BackboneConfig(d_model=16, d_ff=24, num_layers=2, num_heads=2, d_kv=8, dropout=0.0, recency=9)
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
