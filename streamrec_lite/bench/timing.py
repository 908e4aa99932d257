"""Timing that can be trusted on shared machines: variants take turns, and medians are compared."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from ..common.schemas import Prefixes
from ..training.train_step import EAGER_STEPS, TrainStep


def take_turns(variants: dict[str, Callable[[], float]], rounds: int) -> dict[str, float]:
    """Call the variants in turn, one warm-up round first; the median of what each returns."""
    for run in variants.values():
        run()
    seen = {name: [] for name in variants}
    for _ in range(rounds):
        for name, run in variants.items():
            seen[name].append(run())
    return {name: statistics.median(values) for name, values in seen.items()}


def clock(work: Callable[[], object], device, times: int = 1) -> float:
    """Seconds of one call, the mean of ``times`` in a row."""
    start = time.perf_counter()
    for _ in range(times):
        work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / times


def get_to_know(step: TrainStep, train: Prefixes, batches: list[Tensor]) -> None:
    """Let a GPU record a step of every shape that comes, so that this is not timed."""
    if step.capture:
        for at in {(len(at), int(train.length[at].max())): at for at in batches}.values():
            for _ in range(EAGER_STEPS + 1):
                step(train.select(at), ())
