"""Attention of many short sequences to shared keys and values, as a few large matrix products.

A user's beams, rollouts or negatives all attend to the same history, and continue the same thoughts. Here
the sequences of one owner are side by side in a table (owner, w), and are queries against one copy of the
keys and values: nothing is projected or copied for each sequence.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

MAX_IMBALANCE = 2  # if one owner has more than this many times the mean, owners may have several rows


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

    Two plain products: with few queries for each owner, torch's fused attention took 1.5 to 7 times as long
    on a CPU.

    Args:
        query: (B, W, H*d_kv), W queries of each user.
        keys: (B, H, d_kv, S), contiguous.
        values: (B, H, S, d_kv), contiguous.
        mask: (B, 1, 1, S), True = real, or None.
        drop: dropout of the attention weights; by default none.
    """
    scores = (split_heads(query, keys.shape[1]) @ keys).float()  # (B, H, W, S)
    if mask is not None:  # adding takes a third of the time of masked_fill with a broadcast mask
        scores.add_(torch.where(mask, 0.0, -torch.inf))
    return merge_heads(drop(scores.softmax(-1).type_as(query)) @ values)


class SequenceTable:
    """Packs A sequences, sorted by user, into a table (R, W).

    One user's sequences are then queries against one copy of the user's keys and values. A row of the table
    belongs to one user, its owner.

    An owner has one row, and W is the largest number of sequences of one owner. If a few owners have many
    more than the others, this table would be mostly empty: then W is the mean number, and an owner has as
    many rows as it needs.

    Args:
        owner: (A,) owner of each sequence, ascending.
        owners: number of owners.
    """

    def __init__(self, owner: Tensor, owners: int):
        self.owner, self.owners = owner, owners
        count = torch.bincount(owner, minlength=owners)
        self.width, mean = int(count.max()), -(-len(owner) // owners)
        self.rows = None  # (R,) owner of each row; None: one row for each owner, in order
        first = count.cumsum(0) - count
        turn = (
            torch.arange(len(owner), device=owner.device) - first[owner]
        )  # number of the sequence among its owner's
        if self.width > MAX_IMBALANCE * mean:
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
    def one_each(cls, owners: int, device: torch.device | str) -> SequenceTable:
        """A table of one sequence for each owner; nothing is counted, so no host synchronisation."""
        layout = cls.__new__(cls)
        layout.owner = layout.place = torch.arange(owners, device=device)
        layout.owners = layout.size = owners
        layout.width, layout.rows, layout.full = 1, None, True
        return layout

    def select(self, parent: Tensor) -> SequenceTable:
        """The table of the sequences ``parent`` (A',); one may come several times, owners stay ascending."""
        return SequenceTable(self.owner[parent], self.owners)

    def for_rows(self, x: Tensor) -> Tensor:
        """What each row's owner has: (owners, ...) -> (R, ...)."""
        return x if self.rows is None else x.index_select(0, self.rows)

    def to_table(self, x: Tensor) -> Tensor:
        """Sequences (A, n) -> table (R, W, n); empty places hold zeros."""
        if not self.full:
            x = x.new_zeros(self.size, x.shape[1]).index_copy_(0, self.place, x)
        return x.reshape(self.size // self.width, self.width, -1)

    def from_table(self, x: Tensor) -> Tensor:
        """The inverse of ``to_table``: (R, W, n) -> (A, n)."""
        x = x.reshape(self.size, -1)
        return x if self.full else x.index_select(0, self.place)
