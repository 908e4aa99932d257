"""Drawing answers instead of searching for the best: what stage 3 learns from."""

from __future__ import annotations

import torch
from torch import Tensor

from ..common.schemas import FIRST_CODE
from ..tokenizer.trie import PaddedChildren
from .step_decoder import StepDecoder


def sample_answers(
    stepper: StepDecoder, trie, hidden: Tensor, temperature: float = 1.0
) -> tuple[Tensor, Tensor, Tensor]:
    """One answer drawn for each of the stepper's R sequences, code by code.

    Under the softmax over the trie every draw is an item. Under that over the vocabulary (eq. 11 as
    printed) any m tokens may come, and most name no item at first.

    Args:
        stepper: what was written so far.
        trie: the tree of all semantic IDs.
        hidden: (R, d) what each sequence's newest token gave.
        temperature: tau of eq. 11.

    Returns:
        tokens (R, m), the items that they name (R,), -1 for none, and log-probabilities (R, m).
    """
    if stepper.model.config.softmax == "vocabulary":
        return _sample_tokens(stepper, trie, hidden, temperature)
    rows = len(hidden)
    node = torch.zeros(rows, dtype=torch.long, device=hidden.device)
    token = torch.empty((rows, trie.m), dtype=torch.long, device=hidden.device)
    log_prob = torch.zeros((rows, trie.m), device=hidden.device)
    going = torch.arange(rows, device=hidden.device)  # where more than one item is left
    parent = going
    for level in range(trie.m):
        if level > 0:
            kept = ~trie.has_single_item[level][node[going]]
            going, parent = going[kept], parent[kept]
            if len(going):
                stepper.select(parent)
                hidden = stepper.step(token[going, level - 1])
                parent = torch.arange(len(going), device=hidden.device)
        family = trie.padded_children(level, node)
        pick = torch.zeros_like(node)  # where one item is left: the first and only child
        if len(going):
            some = (
                family if len(going) == rows else PaddedChildren(*(x.index_select(0, going) for x in family))
            )
            drawn, each = draw(stepper.model.code_log_probs(hidden, level, trie, some, temperature))
            pick[going], log_prob[going, level] = drawn[:, 0], each[:, 0]
        token[:, level] = FIRST_CODE + level * trie.K + family.code.gather(1, pick[:, None])[:, 0]
        node = family.node.gather(1, pick[:, None])[:, 0]
    return token, trie.leaf_item[node], log_prob


def _sample_tokens(stepper: StepDecoder, trie, hidden: Tensor, temperature: float):
    """``sample_answers`` where any token of the vocabulary may be written."""
    tokens: list[Tensor] = []
    log_probs: list[Tensor] = []
    for level in range(trie.m):
        if level > 0:
            hidden = stepper.step(tokens[-1])
        drawn, each = draw(stepper.model.logits(hidden).float() / temperature)
        tokens.append(drawn[:, 0])
        log_probs.append(each[:, 0])
    token = torch.stack(tokens, dim=1)
    return token, named_items(trie, token), torch.stack(log_probs, dim=1)


def named_items(trie, token: Tensor) -> Tensor:
    """The items (R,) that m tokens each (R, m) name: -1 where one is no code of its level, or none is so."""
    code = token - FIRST_CODE - trie.K * torch.arange(trie.m, device=token.device)
    right = ((code >= 0) & (code < trie.K)).all(dim=1)
    return torch.where(right, trie.lookup(code.clamp(0, trie.K - 1)), -1)


def draw(logits: Tensor, n: int = 1) -> tuple[Tensor, Tensor]:
    """n draws from softmax(logits), (..., C) -> (..., n), and their log-probabilities.

    On CPUs several times as fast as torch.multinomial. The largest tensor is written to three times, in
    place: fresh memory costs more than the arithmetic.
    """
    top = logits.amax(-1, keepdim=True)
    mass = (logits - top).exp_()
    torch.cumsum(mass, -1, out=mass)
    total = mass[..., -1:]
    place = torch.rand((*mass.shape[:-1], n), device=mass.device) * total
    drawn = torch.searchsorted(mass, place, right=True).clamp_max(mass.shape[-1] - 1)
    return drawn, logits.gather(-1, drawn) - top - total.log()
