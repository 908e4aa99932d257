"""k-means with the care that codebooks need: seeded, the same on every run, and no centre left unused."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

CELLS = 2**22  # entries of a (rows, K) matrix that are held at once: 16 MiB of float32


def chunk(K: int) -> int:
    """Rows whose distances to K centres are computed at once."""
    return max(64, CELLS // K)


def nearest(h: Tensor, book: Tensor) -> Tensor:
    """c = argmin_k |h - e_k| for rows h (n, c) and codes (K, c): (n,) int64, the lower index on ties."""
    half = 0.5 * book.square().sum(dim=1)  # |h|^2 is the same for every k
    return torch.cat([(half - part @ book.T).argmin(dim=1) for part in h.split(chunk(len(book)))])


def kmeans(x: Tensor, K: int, seed: int, steps: int = 10) -> Tensor:
    """K centres (K, c) of rows x (n, c): k-means++ start on at most 64 rows a centre, then ``lloyd``."""
    generator = torch.Generator().manual_seed(seed)
    pick = torch.randperm(len(x), generator=generator)[: 64 * K].to(x.device)
    sample = x[pick]
    book = sample[:1].repeat(K, 1)
    distance = torch.full((len(sample),), torch.inf, device=x.device)
    for k in range(1, K):
        distance = torch.minimum(distance, (sample - book[k - 1]).square().sum(dim=1))
        if not distance.sum() > 0:  # fewer different rows than centres: the rest stay unused
            break
        mass = distance.double().cumsum(dim=0)
        draw = torch.rand((), generator=generator, dtype=torch.float64).to(x.device) * mass[-1]
        book[k] = sample[torch.searchsorted(mass, draw, right=True).clamp(max=len(sample) - 1)]
    return lloyd(sample, book, steps)


def lloyd(x: Tensor, book: Tensor, steps: int) -> Tensor:
    """k-means from the given centres (K, c), which keeps every centre in use where x (n, c) allows it.

    An empty centre moves to the row that its own centre fits worst, one row each.
    """
    book = book.clone()
    for _ in range(steps):
        code = nearest(x, book)
        count = torch.bincount(code, minlength=len(book))
        total = torch.zeros_like(book)
        for rows in torch.arange(len(x), device=x.device).split(chunk(len(book))):
            # A product with a one-hot matrix adds in one fixed order, on a GPU too.
            total += F.one_hot(code[rows], len(book)).to(x.dtype).T @ x[rows]
        live = count > 0
        book[live] = total[live] / count[live, None]
        replace_dead_codes(book, x, code)
    return book


@torch.no_grad()
def replace_dead_codes(book: Tensor, h: Tensor, code: Tensor) -> Tensor:
    """Dead-code replacement, in place: codes of ``book`` (K, c) that no row uses move to badly fitted rows.

    h (n, c) are the current residuals of all items at this level, code (n,) their codes. The rows
    with the largest errors are taken, one for each dead code, among rows that differ and whose code
    has other rows too. Returns the indices of the codes that moved.
    """
    count = torch.bincount(code, minlength=len(book))
    dead = (count == 0).nonzero()[:, 0]
    if not len(dead):
        return dead
    error = (h - book[code]).square().sum(dim=1)
    worst = error.argsort(descending=True, stable=True)[: 4 * len(dead) + 64]
    worst = worst[(error[worst] > 0) & (count[code[worst]] > 1)]
    differ = torch.ones(len(worst), dtype=torch.bool, device=h.device)
    differ[1:] = (h[worst[1:]] != h[worst[:-1]]).any(dim=1)
    left, rows = count.tolist(), []
    for row, own in zip(worst[differ].tolist(), code[worst[differ]].tolist(), strict=True):
        if left[own] > 1 and len(rows) < len(dead):  # its code keeps a row
            left[own] -= 1
            rows.append(row)
    book[dead[: len(rows)]] = h[rows]
    return dead[: len(rows)]
