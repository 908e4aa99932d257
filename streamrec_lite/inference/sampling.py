"""Sampling answers from the model's distribution, for the rollouts of stage 3."""

from __future__ import annotations

import torch
from torch import Tensor

from ..common.schemas import FIRST_CODE
from ..tokenizer.trie import PaddedChildren, Trie
from .step_decoder import StepDecoder


def sample_answers(
    stepper: StepDecoder, trie: Trie, hidden: Tensor, temperature: float = 1.0
) -> tuple[Tensor, Tensor, Tensor]:
    """One answer sampled for each of R sequences, code by code.

    With the softmax over the trie every sample is an item. With the softmax over the vocabulary (eq. 11 as
    printed) any m tokens can be sampled; early in training most are the ID of no item.

    Args:
        stepper: the decoder, after the tokens so far.
        trie: the trie of all semantic IDs.
        hidden: (R, d) hidden states after the newest tokens (BOS, the last thought, or ANSWER).
        temperature: tau of eq. 11.

    Returns:
        tokens (R, m), their items (R,), -1 for none, and log-probabilities (R, m).
    """
    if stepper.model.config.softmax == "vocabulary":
        return _sample_tokens(stepper, trie, hidden, temperature)
    rows = len(hidden)
    node = torch.zeros(rows, dtype=torch.long, device=hidden.device)
    token = torch.empty((rows, trie.m), dtype=torch.long, device=hidden.device)
    log_prob = torch.zeros((rows, trie.m), device=hidden.device)
    active = torch.arange(rows, device=hidden.device)  # sequences whose prefix has more than one item
    parent = active
    for level in range(trie.m):
        if level > 0:
            kept = ~trie.has_single_item[level][node[active]]
            active, parent = active[kept], parent[kept]
            if len(active):
                stepper.select(parent)
                hidden = stepper.step(token[active, level - 1])
                parent = torch.arange(len(active), device=hidden.device)
        children = trie.padded_children(level, node)
        pick = torch.zeros_like(node)  # a prefix with one item has one child, number 0
        if len(active):
            open_children = children
            if len(active) < rows:
                open_children = PaddedChildren(*(x.index_select(0, active) for x in children))
            log_probs = stepper.model.code_log_probs(hidden, level, trie, open_children, temperature)
            sampled, log_p = sample_categorical(log_probs)
            pick[active], log_prob[active, level] = sampled[:, 0], log_p[:, 0]
        token[:, level] = FIRST_CODE + level * trie.K + children.code.gather(1, pick[:, None])[:, 0]
        node = children.node.gather(1, pick[:, None])[:, 0]
    return token, trie.leaf_item[node], log_prob


def _sample_tokens(
    stepper: StepDecoder, trie: Trie, hidden: Tensor, temperature: float
) -> tuple[Tensor, Tensor, Tensor]:
    """``sample_answers`` with the softmax over the whole vocabulary."""
    tokens: list[Tensor] = []
    log_probs: list[Tensor] = []
    for level in range(trie.m):
        if level > 0:
            hidden = stepper.step(tokens[-1])
        sampled, log_p = sample_categorical(stepper.model.logits(hidden).float() / temperature)
        tokens.append(sampled[:, 0])
        log_probs.append(log_p[:, 0])
    token = torch.stack(tokens, dim=1)
    return token, items_of_tokens(trie, token), torch.stack(log_probs, dim=1)


def items_of_tokens(trie: Trie, token: Tensor) -> Tensor:
    """Items (R,) with the IDs in tokens (R, m); -1 if no item has the ID or a code has the wrong level."""
    code = token - FIRST_CODE - trie.K * torch.arange(trie.m, device=token.device)
    valid = ((code >= 0) & (code < trie.K)).all(dim=1)
    return torch.where(valid, trie.lookup(code.clamp(0, trie.K - 1)), -1)


def sample_categorical(logits: Tensor, n: int = 1) -> tuple[Tensor, Tensor]:
    """n samples (..., n) from softmax(logits), logits (..., C), and their log-probabilities (..., n).

    It inverts the cumulative distribution. On CPUs this is several times as fast as torch.multinomial. The
    largest tensor is changed in place, because allocating memory costs more than the arithmetic.
    """
    top = logits.amax(-1, keepdim=True)
    mass = (logits - top).exp_()
    torch.cumsum(mass, -1, out=mass)
    total = mass[..., -1:]
    threshold = torch.rand((*mass.shape[:-1], n), device=mass.device) * total
    sampled = torch.searchsorted(mass, threshold, right=True).clamp_max(mass.shape[-1] - 1)
    return sampled, logits.gather(-1, sampled) - top - total.log()
