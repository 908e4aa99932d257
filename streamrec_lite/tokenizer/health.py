"""The health report of a tokenizer: are the codes used, evenly, and is every ID its item's own?"""

from __future__ import annotations

import torch
from torch import Tensor

from .collisions import count_collisions

USED_SHARE = 0.95
# Perplexity 150 of 256 codes; the same share of the reachable codes for other K and small catalogues.
PERPLEXITY_SHARE = 150 / 256


def codebook_usage(codes: Tensor, K: int) -> tuple[list[int], list[float]]:
    """(used codes, perplexity) a level of codes (N, m); perplexity = exp(entropy in nats), 1..K."""
    used, perplexity = [], []
    for column in codes.cpu().T:
        count = torch.bincount(column, minlength=K).double()
        share = count[count > 0] / count.sum()
        used.append(len(share))
        perplexity.append(float((-(share * share.log()).sum()).exp()))
    return used, perplexity


def health_report(
    raw: Tensor, codes: Tensor, K: int, distinct: int | None = None, error: float | None = None
) -> dict:
    """Judge the quantiser's codes ``raw`` (N, m) and the repaired ``codes`` (N, m).

    distinct: how many items differ in their embedding (identical items cannot use different codes);
    error: the reconstruction error, as a share of the embeddings' variance.

    ``used`` and ``perplexity`` are those of ``raw``, so that the repair cannot hide a collapsed
    codebook; ``used_after`` and ``perplexity_after`` those of the IDs in use. ``passed`` asks on every
    level for at least 95 % of min(K, distinct) codes and a perplexity of at least 150/256 of that
    number, and for no collision after the repair. A catalogue of at most K different items is
    described by one level alone, so it fails, with K as the reason.
    """
    items, m = codes.shape
    distinct = items if distinct is None else distinct
    reachable = min(K, distinct)
    used, perplexity = codebook_usage(raw, K)
    used_after, perplexity_after = codebook_usage(codes, K)
    collisions = count_collisions(codes)
    reasons = []
    for d in range(m):
        if used[d] < USED_SHARE * reachable:
            reasons.append(f"level {d + 1} uses {used[d]} of {reachable} codes (at least 95 % needed)")
        if perplexity[d] < PERPLEXITY_SHARE * reachable:
            need = PERPLEXITY_SHARE * reachable
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
