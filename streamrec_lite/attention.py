"""Attention of many short sequences to what they share, as a few large products.

A user's beams, rollouts or negatives all look at the same history, and continue the same thoughts. Here
the sequences of one owner sit side by side in a table (owner, w), and are queries against one set of keys
and values: nothing is projected or copied once for each.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(B, T, H*d_kv) -> (B, H, T, d_kv)."""
    return x.view(*x.shape[:2], heads, -1).transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    """The inverse of ``split_heads``: (B, H, T, d_kv) -> (B, T, H*d_kv)."""
    return x.transpose(1, 2).flatten(2)


def attend(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    mask: Tensor | None,
    drop: Callable[[Tensor], Tensor] = lambda weights: weights,
) -> Tensor:
    """softmax(q k) v of T5, unscaled: queries (B, W, H*d_kv) -> (B, W, H*d_kv).

    Two plain products: for a handful of queries an owner, torch's fused attention took from a half more
    to seven times as long on a CPU.

    Args:
        keys: (B, H, d_kv, S), contiguous.
        values: (B, H, S, d_kv), contiguous.
        mask: (B, 1, 1, S), True = real, or None.
        drop: what acts on the weights, dropout or nothing.
    """
    scores = split_heads(query, keys.shape[1]) @ keys  # (B, H, W, S)
    if mask is not None:
        scores.masked_fill_(~mask, -torch.inf)
    return merge_heads(drop(scores.float().softmax(-1).type_as(query)) @ values)


class Seats:
    """Owners of A sequences, ascending (A,), as places in a table (R, W): W is the most that one has."""

    def __init__(self, owner: Tensor, owners: int):
        self.owner, self.owners = owner, owners
        count = torch.bincount(owner, minlength=owners)
        self.width = int(count.max())
        first = count.cumsum(0) - count
        self.place = owner * self.width + torch.arange(len(owner), device=owner.device) - first[owner]
        self.full = len(owner) == owners * self.width

    @classmethod
    def of_each(cls, owners: int, device) -> Seats:
        """One sequence an owner; nothing has to be counted, so nobody waits for the device."""
        seats = cls.__new__(cls)
        seats.owner = seats.place = torch.arange(owners, device=device)
        seats.owners, seats.width, seats.full = owners, 1, True
        return seats

    def select(self, parent: Tensor) -> Seats:
        """The seats of sequences that continue these: ``parent`` (A',), owners ascending."""
        return Seats(self.owner[parent], self.owners)

    def spread(self, x: Tensor) -> Tensor:
        """(A, n) -> (R, W, n); empty seats hold zeros."""
        if not self.full:
            x = x.new_zeros(self.owners * self.width, x.shape[1]).index_copy_(0, self.place, x)
        return x.reshape(self.owners, self.width, -1)

    def collect(self, x: Tensor) -> Tensor:
        """The inverse of ``spread``: (R, W, n) -> (A, n)."""
        x = x.reshape(self.owners * self.width, -1)
        return x if self.full else x.index_select(0, self.place)
