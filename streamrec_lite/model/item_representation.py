"""t, the representation of an item (section 2.3.1), and the score of an item under a state."""

from __future__ import annotations

import torch
from torch import Tensor

from ..tokenizer.semantic_ids import SemanticTokenizer
from .backbone import Backbone


def represent_items(model: Backbone, tokenizer: SemanticTokenizer, items: Tensor) -> Tensor:
    """t (..., d) of items (...): the mean of their m code embeddings, plus the item vector if any."""
    t = _mean_of_codes(model, tokenizer.tokens[items])
    return t if model.item_vectors is None else t + model.item_vectors.of_items(items)


def item_table(model: Backbone, tokenizer: SemanticTokenizer) -> Tensor:
    """t of every item, (N, d) float32; states are compared with these rows."""
    t = _mean_of_codes(model, tokenizer.tokens[: tokenizer.n_items])
    return (t if model.item_vectors is None else t + model.item_vectors.all_vectors()).float()


def _mean_of_codes(model: Backbone, tokens: Tensor) -> Tensor:
    """Mean embedding (..., d) of code tokens (..., m).

    It adds up level by level, because a tensor (..., m, d) of the whole catalogue would need much memory.
    """
    return sum(model.shared(code) for code in tokens.unbind(-1)) / tokens.shape[-1]


def state_scores(model: Backbone, s: Tensor, t: Tensor) -> Tensor:
    """Scores a s . t (..., C) float32 of C items, log P_state up to a constant.

    We depart from eq. 14, which has no scale a (``model.state_score_scale``). Without it the softmax alone
    determines the length of s: on real data a twentieth of the length of t, so that t - s is nearly t and
    the residual never shrinks. With the scale, the length of s is free to reduce |t - s|.

    Args:
        model: the backbone.
        s: (..., d) states.
        t: (C, d) representations of the items.
    """
    with torch.autocast(
        t.device.type, enabled=False
    ):  # bfloat16 is too coarse: it rounds a score of 30 to 0.1
        return (model.state_score_scale.float() * s.float()) @ t.float().T
