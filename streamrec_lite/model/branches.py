"""Two sequences of each user in one decoder pass: their shared prefix is decoded once.

A rejected item follows the same thoughts as the target, and annotated thoughts follow the same BOS. So a
user's second sequence is appended to the first one as a branch. Its tokens keep the positions that they would
have in a separate sequence, and the attention mask shows them only the shared prefix of the first sequence.
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
    cross: list[tuple[Tensor, Tensor]],
    mask: Tensor | None,
    decoder: str = "thinking",
) -> tuple[Tensor, list[Tensor]]:
    """Decoder states of the inputs (B, T) and of their branches.

    Args:
        model: the backbone.
        inputs: (B, T) tokens, the first of them BOS.
        branches: (fork, tokens (rows, n)) each. A branch continues the first ``fork`` inputs of its users;
            the first branch belongs to the first users, the next one to those after them, and so on to B.
        cross: keys and values of the encoder states for each layer (``Backbone.cross_keys_values``).
        mask: (B, S), True = real, or None.
        decoder: "direct" or "thinking".

    Returns:
        (B, T, d), and for each branch (rows, n + 1, d): the state at its fork, and after each token.
    """
    if not branches:
        return model.decode_groups(inputs, cross, mask, decoder), []
    T, width = inputs.shape[1], max(tokens.shape[1] for _, tokens in branches)
    tails = [F.pad(tokens, (0, width - tokens.shape[1]), value=PAD) for _, tokens in branches]
    bias = [
        branch_bias(model, T, fork, width, decoder).expand(len(tokens), -1, -1, -1)
        for fork, tokens in branches
    ]
    together = torch.cat([inputs, torch.cat(tails)], dim=1)
    hidden = model.decode_groups(together, cross, mask, decoder, torch.cat(bias))
    found, first = [], 0
    for fork, tokens in branches:
        mine = hidden[first : first + len(tokens)]
        found.append(torch.cat([mine[:, fork - 1 : fork], mine[:, T : T + tokens.shape[1]]], dim=1))
        first += len(tokens)
    return hidden[:, :T], found


def branch_bias(model: Backbone, T: int, fork: int, width: int, decoder: str) -> Tensor:
    """T5's position bias for T inputs and a branch of ``width`` tokens from ``fork`` on: (1, H, T+w, T+w).

    -inf where a token must not look: at later tokens, and for a branch at inputs behind its fork.

    Args:
        model: the backbone.
        T: tokens of the main sequence.
        fork: how many tokens of the main sequence the branch continues.
        width: tokens of the branch.
        decoder: "direct" or "thinking".
    """
    attention = model.decoders[decoder].block[0].layer[0].SelfAttention
    device = model.shared.weight.device
    place = torch.cat([torch.arange(T, device=device), fork + torch.arange(width, device=device)])
    most = max(T, fork + width)
    bias = attention.compute_bias(most, most, device=device)[:, :, place][..., place]
    sees = torch.ones(len(place), len(place), dtype=torch.bool, device=device).tril()
    sees[T:, fork:T] = False
    return bias.masked_fill(~sees, -torch.inf)
