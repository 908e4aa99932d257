"""Sampling of answers; stage 3 (reinforcement learning) learns from the samples."""

from __future__ import annotations

import torch
from torch import Tensor

from ..common.schemas import FIRST_CODE
from ..tokenizer.trie import PaddedChildren, Trie
from .step_decoder import StepDecoder


def sample_answers(
    stepper: StepDecoder, trie: Trie, hidden: Tensor, temperature: float = 1.0
) -> tuple[Tensor, Tensor, Tensor]:
    """One sampled answer for each of the stepper's R sequences, code by code.

    With the softmax over the trie every sample is an item. With the softmax over the vocabulary (eq. 11 as
    printed) any m tokens may come, and early in training most are no item's ID.

    Args:
        stepper: the decoder with the tokens so far.
        trie: the tree of all semantic IDs.
        hidden: (R, d) hidden states at each sequence's newest token.
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
        pick = torch.zeros_like(node)  # if one item is left: the first and only child
        if len(active):
            selected = (
                children
                if len(active) == rows
                else PaddedChildren(*(x.index_select(0, active) for x in children))
            )
            drawn, drawn_log_prob = draw(
                stepper.model.code_log_probs(hidden, level, trie, selected, temperature)
            )
            pick[active], log_prob[active, level] = drawn[:, 0], drawn_log_prob[:, 0]
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
        drawn, drawn_log_prob = draw(stepper.model.logits(hidden).float() / temperature)
        tokens.append(drawn[:, 0])
        log_probs.append(drawn_log_prob[:, 0])
    token = torch.stack(tokens, dim=1)
    return token, named_items(trie, token), torch.stack(log_probs, dim=1)


def named_items(trie: Trie, token: Tensor) -> Tensor:
    """The items (R,) whose IDs are these tokens (R, m); -1 if there is no such item."""
    code = token - FIRST_CODE - trie.K * torch.arange(trie.m, device=token.device)
    right = ((code >= 0) & (code < trie.K)).all(dim=1)
    return torch.where(right, trie.lookup(code.clamp(0, trie.K - 1)), -1)


def draw(logits: Tensor, n: int = 1) -> tuple[Tensor, Tensor]:
    """n draws from softmax(logits), (..., C) -> (..., n), and their log-probabilities.

    On CPUs several times as fast as torch.multinomial. The largest tensor is changed in place, because new
    memory costs more time than the arithmetic.
    """
    top = logits.amax(-1, keepdim=True)
    mass = (logits - top).exp_()
    torch.cumsum(mass, -1, out=mass)
    total = mass[..., -1:]
    place = torch.rand((*mass.shape[:-1], n), device=mass.device) * total
    drawn = torch.searchsorted(mass, place, right=True).clamp_max(mass.shape[-1] - 1)
    return drawn, logits.gather(-1, drawn) - top - total.log()
