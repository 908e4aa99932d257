"""Items that a beam search leaves out: a node of the trie is dead when all items below it are left out.

Dead nodes get no beam, so that the beams that are kept all lead to items that may be answered. To leave items
out after the search would be too late: they would have taken the places of others.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ..tokenizer.trie import Trie


class Exclusion(NamedTuple):
    """The items that are left out for each of R sequences, as paths in the trie."""

    path: Tensor  # (R, E, m + 1) int64, each item's nodes at the depths 0..m
    dead: Tensor  # (R, E, m + 1) bool: is every item below that node left out? False for padding

    @classmethod
    def of(cls, trie: Trie, items: Tensor) -> Exclusion:
        """The exclusion of ``items`` (R, E), -1 is no item; items may repeat."""
        N = trie.n_items
        leaf = torch.where(items >= 0, trie.paths[items.clamp_min(0), trie.m], N).sort(dim=1).values
        repeated = F.pad(leaf[:, 1:] == leaf[:, :-1], (1, 0))
        leaf = leaf.masked_fill(repeated, N).sort(dim=1).values  # each leaf once, N behind them
        path = trie.paths[trie.leaf_item[leaf.clamp_max(N - 1)]]
        dead = torch.zeros_like(path, dtype=torch.bool)
        for depth, first_leaf in enumerate(trie.first_leaf):
            node = path[..., depth].contiguous()
            first, end = first_leaf[node], first_leaf[node + 1]
            n_left_out = torch.searchsorted(leaf, end) - torch.searchsorted(leaf, first)
            dead[..., depth] = (n_left_out == end - first) & (leaf < N)
        return cls(path, dead)

    def mask(self, gain: Tensor, trie: Trie, depth: int, node: Tensor) -> None:
        """Set the gain of dead children to -inf, in place.

        Args:
            gain: (R, W, F) log-probabilities of the children of each beam's node, as ``padded_children``.
            trie: the trie of all semantic IDs.
            depth: of the nodes.
            node: (R, W) the node of each beam.
        """
        below = (node[:, :, None] == self.path[:, None, :, depth]) & self.dead[:, None, :, depth + 1]
        row, beam, item = below.nonzero(as_tuple=True)
        child = self.path[row, item, depth + 1] - trie.start[depth][node[row, beam]]
        gain[row, beam, child] = -torch.inf
