"""Two sequences per user in one decoder pass; their common prefix is decoded once.

In fine-tuning a dispreferred item follows the same thoughts as the target, and annotated thoughts follow
the same BOS as the model's own. So the second sequence of a user is appended to the first one as a branch.
Its tokens keep the positions that they would have in a separate sequence, and attend only to their own
branch and to the prefix that it continues.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ..common.schemas import PAD
from .backbone import Backbone


def decode_branches(
    model: Backbone,
    inputs: Tensor,
    branches: list[tuple[int, Tensor]],
    cross_kv: list[tuple[Tensor, Tensor]],
    mask: Tensor | None,
    decoder: str = "thinking",
    thoughts: Tensor | None = None,
) -> tuple[Tensor, list[Tensor]]:
    """Hidden states of decoder inputs and of one branch per user.

    Args:
        model: the backbone.
        inputs: (B, T) tokens, the first of them BOS.
        branches: pairs (fork, tokens (rows, n)). A branch continues the first ``fork`` inputs of its users.
            The first pair belongs to the first users, the next pair to those after them, and so on up to B.
        cross_kv: keys and values of cross-attention, one pair per layer (``Backbone.cross_keys_values``).
        mask: (B, S), True = real, or None.
        decoder: "direct" or "thinking".
        thoughts: (B, n, d) read in place of the embeddings of the n tokens after BOS, or None.

    Returns:
        (B, T, d), and for each pair (rows, n + 1, d): hidden states at the fork and at each branch token.
    """
    if not branches:
        return model.decode_groups(inputs, cross_kv, mask, decoder, None, thoughts), []
    T, width = inputs.shape[1], max(tokens.shape[1] for _, tokens in branches)
    tails = [F.pad(tokens, (0, width - tokens.shape[1]), value=PAD) for _, tokens in branches]
    bias = [
        branch_bias(model, T, fork, width, decoder).expand(len(tokens), -1, -1, -1)
        for fork, tokens in branches
    ]
    sequence = torch.cat([inputs, torch.cat(tails)], dim=1)
    hidden = model.decode_groups(sequence, cross_kv, mask, decoder, torch.cat(bias), thoughts)
    by_branch, first = [], 0
    for fork, tokens in branches:
        rows = hidden[first : first + len(tokens)]
        by_branch.append(torch.cat([rows[:, fork - 1 : fork], rows[:, T : T + tokens.shape[1]]], dim=1))
        first += len(tokens)
    return hidden[:, :T], by_branch


def branch_bias(model: Backbone, T: int, fork: int, width: int, decoder: str) -> Tensor:
    """T5's position bias (1, H, T+w, T+w) for T inputs followed by a branch of w tokens.

    It is -inf towards later tokens, and from the branch towards inputs after its fork.

    Args:
        model: the backbone.
        T: number of inputs.
        fork: number of inputs that the branch continues.
        width: w, number of tokens of the branch.
        decoder: "direct" or "thinking".
    """
    attention = model.decoders[decoder].block[0].layer[0].SelfAttention
    device = model.shared.weight.device
    position = torch.cat([torch.arange(T, device=device), fork + torch.arange(width, device=device)])
    length = max(T, fork + width)
    bias = attention.compute_bias(length, length, device=device)[:, :, position][..., position]
    may_attend = torch.ones(len(position), len(position), dtype=torch.bool, device=device).tril()
    may_attend[T:, fork:T] = False
    return bias.masked_fill(~may_attend, -torch.inf)
