"""t, what stands for an item (section 2.3.1), and how well a state takes it for the target."""

from __future__ import annotations

import torch
from torch import Tensor

from .backbone import Backbone


def targets(model: Backbone, tokenizer, items: Tensor) -> Tensor:
    """t of items (...): the mean of their m code embeddings, plus their own vectors, (..., d)."""
    t = _mean_of_codes(model, tokenizer.tokens[items])
    return t if model.items is None else t + model.items.of_items(items)


def item_table(model: Backbone, tokenizer) -> Tensor:
    """t of every item, the rows that states are compared with: (N, d) float32."""
    t = _mean_of_codes(model, tokenizer.tokens[: tokenizer.n_items])
    return (t if model.items is None else t + model.items.every()).float()


def _mean_of_codes(model: Backbone, tokens: Tensor) -> Tensor:
    """(..., m) code tokens -> (..., d). Code by code: the m embeddings of a catalogue are a large table."""
    return sum(model.shared(code) for code in tokens.unbind(-1)) / tokens.shape[-1]


def state_scores(model: Backbone, s: Tensor, t: Tensor) -> Tensor:
    """The logarithm of how well states take items for the target, up to a constant: a s . t.

    Eq. 14 has no scale a (``model.state_score_scale``). But then the softmax alone says how long states are:
    on     real data a twentieth of t, so that t - s is t, and what is called its residual never shrinks. With
    a scale of its own the softmax leaves the length of s to |t - s|.

    Args:
        s: (..., d) states; t: (C, d) items.

    Returns:
        (..., C) float32.
    """
    with torch.autocast(t.device.type, enabled=False):  # scores of 30 and more: bfloat16 has them to 0.1
        return (model.state_score_scale.float() * s.float()) @ t.float().T
