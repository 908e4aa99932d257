"""Timing that can be trusted on shared machines: variants take turns, and medians are compared."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch


def take_turns(variants: dict[str, Callable[[], float]], rounds: int) -> dict[str, float]:
    """Call the variants in turn, one warm-up round first; the median of what each returns."""
    for run in variants.values():
        run()
    seen = {name: [] for name in variants}
    for _ in range(rounds):
        for name, run in variants.items():
            seen[name].append(run())
    return {name: statistics.median(values) for name, values in seen.items()}


def clock(work: Callable[[], object], device) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start
