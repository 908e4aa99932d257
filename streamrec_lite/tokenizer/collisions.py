"""Collision repair: a different semantic ID for every item, at minimum cost; no item is dropped."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..common.errors import BadInput
from .kmeans import nearest


def count_collisions(codes: Tensor) -> int:
    """The number of items whose ID (N, m) an earlier item has too: N minus the number of distinct IDs."""
    columns = codes.cpu().numpy()
    if len(columns) and columns.max() < 2**16:
        columns = columns.astype(np.uint16)  # numpy sorts narrow integers by radix
    rows = columns[np.lexsort(columns.T[::-1])]
    return int((rows[1:] == rows[:-1]).all(axis=1).sum())


def repair_collisions(codes: Tensor, latents: Tensor, codebooks: list[Tensor]) -> Tensor:
    """IDs (N, m), all different, with as little change to ``codes`` as possible.

    ``codes`` (N, m): from the quantiser, with collisions; ``latents`` (N, c); ``codebooks``: m of
    (K, c). Within each group of items with the same first m-1 codes, the last codes are reassigned
    such that the sum of squared distances between the items' last residuals and their codes is
    minimal (an assignment problem). If a prefix has more items than IDs, the surplus first moves to
    the next-best prefixes. Groups without a collision keep their codes. ``BadInput`` if there are
    more than K**m items.
    """
    m, K = len(codebooks), codebooks[0].shape[0]
    if codes.shape[0] > K**m:
        raise BadInput(
            f"{codes.shape[0]} items",
            f"{m} levels of {K} codes give only {K**m} IDs",
            "raise tokenizer.K or m",
        )
    codes, latents = codes.cpu().clone(), latents.detach().cpu().float()
    books = [book.detach().cpu().float() for book in codebooks]
    for level in range(m - 1):
        _make_room(codes, latents, books, level)
    _assign_last(codes, latents, books)
    return codes


def _residual(codes: Tensor, latents: Tensor, books: list[Tensor], level: int) -> Tensor:
    """The residual h of eq. 6 before ``level`` (from 0), given the codes of the levels above: (N, c)."""
    residual = latents.clone()
    for j in range(level):
        residual -= books[j][codes[:, j]]
    return residual


def _prefix_groups(codes: Tensor, depth: int) -> tuple[Tensor, Tensor]:
    """(group of each item (N,), size of each group); a group has the same first ``depth`` codes."""
    if depth == 0:
        return torch.zeros(len(codes), dtype=torch.int64), torch.tensor([len(codes)])
    _, group, size = torch.unique(codes[:, :depth], dim=0, return_inverse=True, return_counts=True)
    return group, size


def _make_room(codes: Tensor, latents: Tensor, books: list[Tensor], level: int) -> None:
    """Move items, in place, until no prefix of ``level + 1`` codes has more items than IDs.

    The items with the least increase of their squared error leave an overfull prefix, each for its
    best sibling prefix. They then take the nearest codes on the lower levels, as in the quantiser.
    """
    m, K = len(books), books[0].shape[0]
    room = min(K ** (m - 1 - level), len(codes))
    group, size = _prefix_groups(codes, level + 1)
    full = (size > room).nonzero()[:, 0]
    if not len(full):
        return
    parents, _ = _prefix_groups(codes, level)
    for parent in parents[torch.isin(group, full)].unique():
        rows = (parents == parent).nonzero()[:, 0]
        before = codes[rows, level].clone()
        residual = _residual(codes[rows], latents[rows], books, level)
        codes[rows, level] = _spill(before, residual, books[level], room)
        moved = rows[codes[rows, level] != before]
        residual = _residual(codes[moved], latents[moved], books, level + 1)
        for j in range(level + 1, m):
            codes[moved, j] = nearest(residual, books[j])
            residual -= books[j][codes[moved, j]]


def _spill(code: Tensor, residual: Tensor, book: Tensor, room: int) -> Tensor:
    """New codes (n,), each used at most ``room`` times; items with the least regret change first."""
    code = code.clone()
    while True:  # every round fills at least one code, so the loop ends
        load = torch.bincount(code, minlength=len(book))
        rows = (load[code] > room).nonzero()[:, 0]
        if not len(rows):
            return code
        cost = torch.cdist(residual[rows].double(), book.double()).square()
        own = cost.gather(1, code[rows, None])[:, 0]
        cost[:, load >= room] = torch.inf
        best, target = cost.min(dim=1)
        regret = (best - own).argsort(stable=True)
        used, old, new = load.tolist(), code[rows].tolist(), target.tolist()
        for i in regret.tolist():
            if used[old[i]] > room and used[new[i]] < room:
                used[old[i]] -= 1
                used[new[i]] += 1
                old[i] = new[i]
        code[rows] = torch.tensor(old)


def _assign_last(codes: Tensor, latents: Tensor, books: list[Tensor]) -> None:
    """Reassign the last codes, in place, within every group of the same first m-1 codes that collides."""
    from scipy.optimize import linear_sum_assignment

    m = len(books)
    _, id_of_item, items_of_id = torch.unique(codes, dim=0, return_inverse=True, return_counts=True)
    group, size = _prefix_groups(codes, m - 1)
    collides = torch.zeros(len(size), dtype=torch.bool)
    collides[group[items_of_id[id_of_item] > 1]] = True
    rows = collides[group].nonzero()[:, 0]
    rows = rows[group[rows].argsort(stable=True)]
    residual = _residual(codes[rows], latents[rows], books, m - 1)
    for part in torch.arange(len(rows)).split(size[collides].tolist()) if len(rows) else ():
        cost = torch.cdist(residual[part].double(), books[-1].double()).square()
        item, code = linear_sum_assignment(cost.numpy())
        codes[rows[part[item]], m - 1] = torch.from_numpy(code)
