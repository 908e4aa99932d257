"""Attention of many short sequences to what they share, as a few large products.

A user's beams, rollouts or negatives all look at the same history, and continue the same thoughts. Here
the sequences of one owner sit side by side in a table (owner, w), and are queries against one set of keys
and values: nothing is projected or copied once for each.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

LOPSIDED = 2  # where one owner has more than so many times the mean, owners have several rows


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
        query: (B, W, H*d_kv), W queries a user.
        keys: (B, H, d_kv, S), contiguous.
        values: (B, H, S, d_kv), contiguous.
        mask: (B, 1, 1, S), True = real, or None.
        drop: what acts on the weights, dropout or nothing.
    """
    scores = (split_heads(query, keys.shape[1]) @ keys).float()  # (B, H, W, S)
    if mask is not None:  # a sum takes a third of the time of filling where a broadcast mask says so
        scores.add_(torch.where(mask, 0.0, -torch.inf))
    return merge_heads(drop(scores.softmax(-1).type_as(query)) @ values)


class SequenceTable:
    """Packs A sequences, sorted by user, into a table (R, W).

    One user's sequences are then queries against one copy of the user's keys and values. A row of the table
    belongs to one user, here its owner.

    An owner has one row, and W is the most that one owner has. But where a few have many more than the
    others the table would be mostly empty: then W is the mean, and an owner has as many rows as it needs.
    """

    def __init__(self, owner: Tensor, owners: int):
        self.owner, self.owners = owner, owners
        count = torch.bincount(owner, minlength=owners)
        self.width, mean = int(count.max()), -(-len(owner) // owners)
        self.rows = None  # (R,) whose each row is; None: one row an owner, in order
        first = count.cumsum(0) - count
        turn = torch.arange(len(owner), device=owner.device) - first[owner]  # of its owner's sequences
        if self.width > LOPSIDED * mean:
            self.width = mean
            need = (count + mean - 1) // mean
            self.rows = torch.repeat_interleave(need)
            first = need.cumsum(0) - need
        else:
            first = torch.arange(owners, device=owner.device)
        self.place = first[owner] * self.width + turn
        self.size = (owners if self.rows is None else len(self.rows)) * self.width
        self.full = len(owner) == self.size

    @classmethod
    def of_each(cls, owners: int, device) -> SequenceTable:
        """One sequence an owner; nothing is counted, so that there is no host synchronisation."""
        layout = cls.__new__(cls)
        layout.owner = layout.place = torch.arange(owners, device=device)
        layout.owners = layout.size = owners
        layout.width, layout.rows, layout.full = 1, None, True
        return layout

    def select(self, parent: Tensor) -> SequenceTable:
        """The table of sequences that continue these: ``parent`` (A',), owners ascending."""
        return SequenceTable(self.owner[parent], self.owners)

    def for_rows(self, x: Tensor) -> Tensor:
        """Each row's part of what each owner has: (owners, ...) -> (R, ...)."""
        return x if self.rows is None else x.index_select(0, self.rows)

    def spread(self, x: Tensor) -> Tensor:
        """(A, n) -> (R, W, n); empty places hold zeros."""
        if not self.full:
            x = x.new_zeros(self.size, x.shape[1]).index_copy_(0, self.place, x)
        return x.reshape(self.size // self.width, self.width, -1)

    def collect(self, x: Tensor) -> Tensor:
        """The inverse of ``spread``: (R, W, n) -> (A, n)."""
        x = x.reshape(self.size, -1)
        return x if self.full else x.index_select(0, self.place)
