"""The representation t of an item (section 2.3.1), and the score of an item under a state."""

from __future__ import annotations

import torch
from torch import Tensor

from ..tokenizer.semantic_ids import SemanticTokenizer
from .backbone import Backbone


def represent_items(model: Backbone, tokenizer: SemanticTokenizer, items: Tensor) -> Tensor:
    """t (..., d) of items (...): the mean of their m code embeddings, plus their item vectors."""
    t = _mean_of_codes(model, tokenizer.tokens[items])
    return t if model.item_vectors is None else t + model.item_vectors.of_items(items)


def item_table(model: Backbone, tokenizer: SemanticTokenizer) -> Tensor:
    """t of all items, which states are compared with: (N, d) float32."""
    t = _mean_of_codes(model, tokenizer.tokens[: tokenizer.n_items])
    return (t if model.item_vectors is None else t + model.item_vectors.all_vectors()).float()


def _mean_of_codes(model: Backbone, tokens: Tensor) -> Tensor:
    """(..., m) code tokens -> (..., d). Summed code by code, to need less memory."""
    return sum(model.shared(code) for code in tokens.unbind(-1)) / tokens.shape[-1]


def state_scores(model: Backbone, s: Tensor, t: Tensor) -> Tensor:
    """Scores a s . t of items under states; log P_state(item) up to a constant.

    We depart from eq. 14, which has no scale a (``model.state_score_scale``). Without it the softmax alone
    decides how long states are: on real data a twentieth of t, so that t - s is nearly t, and the residual
    never shrinks. With a learned scale the length of s is free to follow |t - s|.

    Args:
        model: gives the scale a.
        s: (..., d) states.
        t: (C, d) item representations.

    Returns:
        (..., C) float32.
    """
    with torch.autocast(t.device.type, enabled=False):  # bfloat16 rounds scores above 30 to 0.1
        return (model.state_score_scale.float() * s.float()) @ t.float().T
