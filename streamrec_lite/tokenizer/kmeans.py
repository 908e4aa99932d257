"""k-means for codebooks: seeded, reproducible, and with no unused centres."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

MAX_DISTANCES = 2**22  # entries of a distance matrix (rows, K) held at once: 16 MiB of float32


def _rows_per_chunk(K: int) -> int:
    """The number of rows whose distances to K centres are computed at once."""
    return max(64, MAX_DISTANCES // K)


def nearest(h: Tensor, book: Tensor) -> Tensor:
    """The nearest code of each row, argmin_k |h - e_k|: (n,) int64, the lower index on ties.

    Rows ``h`` (n, c), codebook ``book`` (K, c).
    """
    half = 0.5 * book.square().sum(dim=1)  # |h|^2 is the same for every k
    return torch.cat([(half - part @ book.T).argmin(dim=1) for part in h.split(_rows_per_chunk(len(book)))])


def kmeans(x: Tensor, K: int, seed: int, steps: int = 10) -> Tensor:
    """K centres (K, c) of the rows x (n, c): k-means++ initialisation, then ``lloyd``.

    Args:
        x: (n, c) rows to cluster.
        K: number of centres.
        seed: of the initialisation, which uses a random sample of at most 64 K rows.
        steps: iterations of ``lloyd``.
    """
    generator = torch.Generator().manual_seed(seed)
    pick = torch.randperm(len(x), generator=generator)[: 64 * K].to(x.device)
    sample = x[pick]
    book = sample[:1].repeat(K, 1)
    distance = torch.full((len(sample),), torch.inf, device=x.device)
    for k in range(1, K):
        distance = torch.minimum(distance, (sample - book[k - 1]).square().sum(dim=1))
        if not distance.sum() > 0:  # fewer distinct rows than centres: the others stay unused
            break
        mass = distance.double().cumsum(dim=0)
        draw = torch.rand((), generator=generator, dtype=torch.float64).to(x.device) * mass[-1]
        book[k] = sample[torch.searchsorted(mass, draw, right=True).clamp(max=len(sample) - 1)]
    return lloyd(sample, book, steps)


def lloyd(x: Tensor, book: Tensor, steps: int) -> Tensor:
    """Lloyd's algorithm on rows x (n, c), from the centres ``book`` (K, c): new centres (K, c).

    A centre without rows moves to a badly fitted row (see ``replace_dead_codes``), if x has enough
    distinct rows.
    """
    book = book.clone()
    for _ in range(steps):
        code = nearest(x, book)
        count = torch.bincount(code, minlength=len(book))
        total = torch.zeros_like(book)
        for rows in torch.arange(len(x), device=x.device).split(_rows_per_chunk(len(book))):
            # Sums by a product with a one-hot matrix: deterministic on a GPU, unlike index_add.
            total += F.one_hot(code[rows], len(book)).to(x.dtype).T @ x[rows]
        live = count > 0
        book[live] = total[live] / count[live, None]
        replace_dead_codes(book, x, code)
    return book


@torch.no_grad()
def replace_dead_codes(book: Tensor, h: Tensor, code: Tensor) -> Tensor:
    """Move the unused codes of ``book`` (K, c), in place, to badly fitted rows; returns the indices moved.

    ``h`` (n, c) are the residuals of all items at this level, ``code`` (n,) their codes. Each dead
    code moves to one of the rows with the largest errors. These rows differ from each other, and no
    code loses its last row.
    """
    count = torch.bincount(code, minlength=len(book))
    dead = (count == 0).nonzero()[:, 0]
    if not len(dead):
        return dead
    error = (h - book[code]).square().sum(dim=1)
    worst = error.argsort(descending=True, stable=True)[: 4 * len(dead) + 64]
    worst = worst[(error[worst] > 0) & (count[code[worst]] > 1)]
    distinct = torch.ones(len(worst), dtype=torch.bool, device=h.device)
    distinct[1:] = (h[worst[1:]] != h[worst[:-1]]).any(dim=1)
    rows_left = count.tolist()  # of each code
    chosen: list[int] = []
    for row, old in zip(worst[distinct].tolist(), code[worst[distinct]].tolist(), strict=True):
        if rows_left[old] > 1 and len(chosen) < len(dead):
            rows_left[old] -= 1
            chosen.append(row)
    book[dead[: len(chosen)]] = h[chosen]
    return dead[: len(chosen)]
