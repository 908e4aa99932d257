"""Inputs of the encoder and decoder (history tokens, shifted labels), log-probabilities, losses of tokens."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ..common.schemas import BOS, check_shape


def history_tokens(table: Tensor, history: Tensor) -> Tensor:
    """Encoder tokens (B, L*m), oldest item first, of histories (B, L) of item indices, PAD_ITEM on the right.

    Args:
        table: (N + 1, m) ``tokens`` of a tokenizer; the last row is all PAD.
        history: (B, L) item indices.
    """
    check_shape("history", history, None, None)
    return table[history].flatten(1)


def shift_right(labels: Tensor) -> Tensor:
    """Decoder inputs (B, T) for labels (B, T): BOS, then the labels without the last one."""
    start = labels.new_full((labels.shape[0], 1), BOS)
    return torch.cat([start, labels[:, :-1]], dim=1)


def label_log_probs(logits: Tensor, labels: Tensor, temperature: float = 1.0) -> Tensor:
    """log P(y_t | y_<t, history) (B, T) of eq. 11 as printed, from logits (B, T, V) and labels (B, T).

    The softmax runs over the whole vocabulary C, special tokens included, at temperature tau.
    """
    log_probs = F.log_softmax(logits.float() / temperature, dim=-1)
    return log_probs.gather(-1, labels.unsqueeze(-1)).squeeze(-1)


def token_loss(losses: Tensor, how: str) -> Tensor:
    """One loss from losses (B, T) of tokens: a mean over users of their tokens' "mean" or "sum" (eq. 10)."""
    return losses.mean() if how == "mean" else losses.sum(dim=1).mean()
