"""Attention of many short sequences to keys and values that they share, as a few large matrix products.

A user's beams, rollouts or negatives attend to the same history and continue the same thoughts. The user is
the *owner* of these sequences. They are packed side by side into a table (owner, w), as queries against one
copy of the owner's keys and values, so nothing is projected or copied once per sequence. An owner can also
be one train of thought, shared by all answers that continue it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

MAX_IMBALANCE = 2  # if an owner has more than this times the mean, owners get several rows


def split_heads(x: Tensor, heads: int) -> Tensor:
    """Vectors (B, T, H*d_kv) split into heads: (B, H, T, d_kv)."""
    return x.view(*x.shape[:2], heads, -1).transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    """The inverse of ``split_heads``: (B, T, H*d_kv) from (B, H, T, d_kv)."""
    return x.transpose(1, 2).flatten(2)


def attend(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    mask: Tensor | None,
    dropout: Callable[[Tensor], Tensor] = lambda weights: weights,
) -> Tensor:
    """softmax(q k) v (B, W, H*d_kv), unscaled as in T5.

    Two plain matrix products: for a few queries per user, torch's fused attention took 1.5 to 7 times as
    long on a CPU.

    Args:
        query: (B, W, H*d_kv), W queries per user.
        keys: (B, H, d_kv, S), contiguous.
        values: (B, H, S, d_kv), contiguous.
        mask: (B, 1, 1, S), True = real, or None.
        dropout: applied to the attention weights; default: none.
    """
    scores = (split_heads(query, keys.shape[1]) @ keys).float()  # (B, H, W, S)
    if mask is not None:  # adding takes a third of the time of masked_fill with a broadcast mask
        scores.add_(torch.where(mask, 0.0, -torch.inf))
    return merge_heads(dropout(scores.softmax(-1).type_as(query)) @ values)


class SequenceTable:
    """Packs A sequences, sorted by owner, into a table (R, W); every row belongs to one owner.

    Normally each owner has one row, and W is the largest number of sequences of an owner. If a few owners
    have many more sequences than the others, such a table would be mostly empty. Then W is the mean number,
    rounded up, and each owner has as many rows as it needs.

    Args:
        owner: (A,) owner of each sequence, ascending.
        owners: number of owners.
    """

    def __init__(self, owner: Tensor, owners: int):
        self.owner, self.owners = owner, owners
        count = torch.bincount(owner, minlength=owners)
        self.width, mean = int(count.max()), -(-len(owner) // owners)
        self.rows = None  # (R,) the owner of each row; None: one row per owner, in order
        first = count.cumsum(0) - count
        rank = torch.arange(len(owner), device=owner.device) - first[owner]  # among its owner's sequences
        if self.width > MAX_IMBALANCE * mean:
            self.width = mean
            n_rows = (count + mean - 1) // mean
            self.rows = torch.repeat_interleave(n_rows)
            first = n_rows.cumsum(0) - n_rows
        else:
            first = torch.arange(owners, device=owner.device)
        self.position = first[owner] * self.width + rank  # in the flat table
        self.size = (owners if self.rows is None else len(self.rows)) * self.width
        self.full = len(owner) == self.size

    @classmethod
    def one_each(cls, owners: int, device: torch.device) -> SequenceTable:
        """A table with one sequence per owner; nothing is counted, so there is no host synchronisation."""
        layout = cls.__new__(cls)
        layout.owner = layout.position = torch.arange(owners, device=device)
        layout.owners = layout.size = owners
        layout.width, layout.rows, layout.full = 1, None, True
        return layout

    def select(self, parent: Tensor) -> SequenceTable:
        """The table of A' new sequences, each a continuation of ``parent`` (A',), owners ascending."""
        return SequenceTable(self.owner[parent], self.owners)

    def for_rows(self, x: Tensor) -> Tensor:
        """Values of the owners, (owners, ...), repeated for their rows: (R, ...)."""
        return x if self.rows is None else x.index_select(0, self.rows)

    def to_table(self, x: Tensor) -> Tensor:
        """Vectors (A, n) of the sequences as a table (R, W, n); unused positions are zero."""
        if not self.full:
            x = x.new_zeros(self.size, x.shape[1]).index_copy_(0, self.position, x)
        return x.reshape(self.size // self.width, self.width, -1)

    def from_table(self, x: Tensor) -> Tensor:
        """The inverse of ``to_table``: (A, n) from (R, W, n)."""
        x = x.reshape(self.size, -1)
        return x if self.full else x.index_select(0, self.position)
