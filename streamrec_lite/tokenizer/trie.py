"""The trie (prefix tree) of all semantic IDs, as a few integer tensors on the device."""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..common.errors import BadInput


class PaddedChildren(NamedTuple):
    """The children of nodes (...), padded to F, the largest number of children at their depth."""

    code: Tensor  # (..., F) the code that leads to each child, 0..K-1
    node: Tensor  # (..., F) the children: nodes one level deeper
    real: Tensor  # (..., F) bool; False for padding


class Trie:
    """The trie of the semantic IDs of N items: one node for each prefix of an ID.

    Nodes are numbered per depth, in lexicographic order of their prefixes; the root is node 0 of
    depth 0. The children of node ``v`` at depth ``j`` are the consecutive nodes
    ``start[j][v] .. start[j][v + 1] - 1`` of depth ``j + 1``. The edge to node ``w`` of depth
    ``j + 1`` has the code ``child_code[j][w]``; the codes of siblings increase. A node at depth m is a
    leaf and stands for the item ``leaf_item[node]``.

    start       m int64 tensors, the j-th of shape (nodes at depth j, plus one,)
    child_code  m int64 tensors, the j-th of shape (nodes at depth j + 1,)
    leaf_item   (N,) int64
    """

    def __init__(self, m: int, K: int, start: list[Tensor], child_code: list[Tensor], leaf_item: Tensor):
        self.m, self.K = m, K
        self.start, self.child_code, self.leaf_item = start, child_code, leaf_item
        self.max_children = [int(s.diff().max()) for s in start]  # at each depth

    @classmethod
    def from_codes(cls, codes: Tensor, K: int) -> Trie:
        """The trie of ``codes`` (N, m), values 0..K-1; ``BadInput`` if two items share an ID.

        The codes are sorted lexicographically; the first row of every prefix starts a node. This
        takes seconds for 1,000,000 items of 4 codes.
        """
        rows = codes.cpu().numpy()
        count, m = rows.shape
        if count == 0:
            raise BadInput("an empty catalogue", "a trie needs at least one item", "check the items file")
        # numpy uses radix sort for 16-bit integers
        columns = rows.astype(np.uint16) if K <= 65536 else rows
        order = np.lexsort(columns.T[::-1])
        rows = rows[order]
        is_first = np.zeros(count, dtype=bool)  # is this the first row of its prefix of j+1 codes?
        is_first[0] = True
        first = np.zeros(1, dtype=np.int64)  # the first row of each node at depth j
        start: list[Tensor] = []
        child_code: list[Tensor] = []
        for j in range(m):
            is_first[1:] |= rows[1:, j] != rows[:-1, j]
            node = np.cumsum(is_first) - 1  # each row's node at depth j+1
            start.append(torch.from_numpy(np.append(node[first], node[-1] + 1)))
            first = np.flatnonzero(is_first)
            child_code.append(torch.from_numpy(rows[first, j].astype(np.int64)))
        if len(first) < count:
            row = int(np.flatnonzero(~is_first)[0])
            pair = sorted(int(i) for i in order[row - 1 : row + 1])
            raise BadInput(
                f"items {pair[0]} and {pair[1]} share the semantic ID {rows[row].tolist()}",
                "every item has its own ID",
                "repair the collisions (SemanticTokenizer.fit does)",
            )
        return cls(m, K, start, child_code, torch.from_numpy(order.astype(np.int64)))

    @property
    def n_items(self) -> int:
        """N, the number of items."""
        return self.leaf_item.shape[0]

    @property
    def device(self) -> torch.device:
        """The device of all tensors."""
        return self.leaf_item.device

    def n_nodes(self, depth: int) -> int:
        """The number of nodes at ``depth``: of distinct prefixes of that many codes."""
        return 1 if depth == 0 else self.child_code[depth - 1].shape[0]

    @property
    def nbytes(self) -> int:
        """Size of all tensors in bytes."""
        return sum(t.numel() * t.element_size() for t in (*self.start, *self.child_code, self.leaf_item))

    def to(self, device: torch.device | str) -> Trie:
        """A copy on ``device``, or this trie itself if it is there already."""
        if self.leaf_item.device == torch.device(device):
            return self
        start = [t.to(device) for t in self.start]
        child_code = [t.to(device) for t in self.child_code]
        return Trie(self.m, self.K, start, child_code, self.leaf_item.to(device))

    @functools.cached_property
    def paths(self) -> Tensor:
        """The path of nodes to each item: (N, m + 1) int64, from depth 0 (the root) to depth m (its leaf)."""
        with torch.inference_mode(False):  # cached for training, which cannot use inference tensors
            nodes = [torch.arange(self.n_items, device=self.device)]  # leaves, in trie order
            for j in reversed(range(self.m)):
                parent = torch.repeat_interleave(self.start[j].diff())  # of each node at depth j + 1
                nodes.append(parent[nodes[-1]])
            ordered = torch.stack(nodes[::-1], dim=1)
            return torch.empty_like(ordered).index_copy_(0, self.leaf_item, ordered)

    @functools.cached_property
    def first_leaf(self) -> list[Tensor]:
        """For each depth 0..m: the first leaf below each node, and at the end N: (nodes + 1,) int64."""
        with torch.inference_mode(False):  # cached for training, which cannot use inference tensors
            first = [torch.arange(self.n_items + 1, device=self.device)]
            for start in reversed(self.start):
                first.append(first[-1][start])
        return first[::-1]

    @functools.cached_property
    def has_single_item(self) -> list[Tensor]:
        """For each depth 0..m: which nodes have exactly one item below them, (nodes,) bool."""
        return [first.diff() == 1 for first in self.first_leaf]

    def padded_children(self, depth: int, node: Tensor) -> PaddedChildren:
        """The children of each ``node`` (...) at ``depth``, padded: (..., F)."""
        if depth == 0 and node.numel() > 1:  # all rows are the root: look it up once
            return PaddedChildren(
                *(x.expand(*node.shape, -1) for x in self.padded_children(0, node.new_zeros(1)))
            )
        first, end = self.start[depth][node], self.start[depth][node + 1]
        child = first[..., None] + torch.arange(self.max_children[depth], device=self.device)
        real = child < end[..., None]
        child = child.clamp_max(self.n_nodes(depth + 1) - 1)
        return PaddedChildren(self.child_code[depth][child], child, real)

    def children(self, depth: int, node: int) -> tuple[Tensor, Tensor]:
        """The children of one node, not padded, for tables and figures: (nodes at ``depth + 1``, codes)."""
        low, high = int(self.start[depth][node]), int(self.start[depth][node + 1])
        return torch.arange(low, high, device=self.device), self.child_code[depth][low:high]

    def child(self, depth: int, node: Tensor, code: Tensor) -> Tensor:
        """The child of each ``node`` (...) with the given ``code`` (...), -1 if there is none: (...) int64.

        By binary search among a node's sorted children. The child of node -1 is -1.
        """
        low = self.start[depth][node.clamp(min=0)]
        end = self.start[depth][node.clamp(min=0) + 1]
        high, codes = end, self.child_code[depth]
        for _ in range(self.K.bit_length()):
            middle = (low + high) // 2
            below = (low < high) & (codes[middle.clamp(max=len(codes) - 1)] < code)
            low = torch.where(below, middle + 1, low)
            high = torch.where(below, high, middle)
        found = (node >= 0) & (low < end) & (codes[low.clamp(max=len(codes) - 1)] == code)
        return torch.where(found, low, torch.full_like(low, -1))

    def lookup(self, codes: Tensor) -> Tensor:
        """The items (...) with the IDs ``codes`` (..., m); -1 where no item has that ID."""
        node = torch.zeros(codes.shape[:-1], dtype=torch.int64, device=codes.device)
        for j in range(self.m):
            node = self.child(j, node, codes[..., j])
        item = self.leaf_item[node.clamp(min=0)]
        return torch.where(node >= 0, item, torch.full_like(item, -1))
