"""The health report of a tokenizer: are all codes used, evenly, and are all IDs different?"""

from __future__ import annotations

import torch
from torch import Tensor

from .collisions import count_collisions

MIN_USED_SHARE = 0.95  # of the reachable codes, min(K, distinct items)
MIN_PERPLEXITY_SHARE = 150 / 256  # of the reachable codes


def codebook_usage(codes: Tensor, K: int) -> tuple[list[int], list[float]]:
    """(number of used codes, perplexity) of each of the m levels, for codes (N, m).

    Perplexity is exp(entropy in nats), from 1 to K.
    """
    used: list[int] = []
    perplexity: list[float] = []
    for column in codes.cpu().T:
        count = torch.bincount(column, minlength=K).double()
        share = count[count > 0] / count.sum()
        used.append(len(share))
        perplexity.append(float((-(share * share.log()).sum()).exp()))
    return used, perplexity


def health_report(
    raw: Tensor, codes: Tensor, K: int, distinct: int | None = None, error: float | None = None
) -> dict:
    """Whether a tokenizer is healthy ("passed"), the "reasons" if it is not, and the measurements.

    A level passes if it uses at least 95 % of the reachable codes, min(K, distinct), with a
    perplexity of at least 150/256 of their number. No collision may remain after the repair. A
    catalogue of at most K distinct items needs only one level, so it fails: K is too large for it.
    ``used`` and ``perplexity`` describe ``raw``, because the repair could hide a collapsed codebook;
    ``used_after`` and ``perplexity_after`` describe ``codes``.

    Args:
        raw: (N, m) codes from the quantiser.
        codes: (N, m) codes after the collision repair.
        K: codes per level.
        distinct: number of distinct embeddings (N if None): identical items have identical codes.
        error: reconstruction error as a share of the embeddings' variance, for the report.
    """
    items, m = codes.shape
    distinct = items if distinct is None else distinct
    reachable = min(K, distinct)
    used, perplexity = codebook_usage(raw, K)
    used_after, perplexity_after = codebook_usage(codes, K)
    collisions = count_collisions(codes)
    reasons = []
    for d in range(m):
        if used[d] < MIN_USED_SHARE * reachable:
            reasons.append(f"level {d + 1} uses {used[d]} of {reachable} codes (at least 95 % needed)")
        if perplexity[d] < MIN_PERPLEXITY_SHARE * reachable:
            need = MIN_PERPLEXITY_SHARE * reachable
            reasons.append(f"level {d + 1} has perplexity {perplexity[d]:.1f} (at least {need:.1f} needed)")
    if reasons and distinct < 2 * K:
        reasons.append(f"{distinct} different items are few for K={K}: choose a smaller tokenizer.K")
    if collisions:
        reasons.append(f"{collisions} items share another item's ID")
    return {
        "items": items,
        "m": m,
        "K": K,
        "used": used,
        "used_share": [round(u / reachable, 4) for u in used],
        "perplexity": [round(p, 2) for p in perplexity],
        "used_after": used_after,
        "perplexity_after": [round(p, 2) for p in perplexity_after],
        "collisions_before": count_collisions(raw),
        "collisions_after": collisions,
        "reconstruction_error": None if error is None else round(error, 6),
        "passed": not reasons,
        "reasons": reasons,
    }
