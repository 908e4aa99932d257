"""Seeds, devices, numerical precision, CPU threads, and a description of the machine."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import BadInput

if TYPE_CHECKING:  # importing the package loads no torch
    import torch


def derive_seed(*parts: object) -> int:
    """A 63-bit seed computed from any values, e.g. ``derive_seed(0, "tiger", epoch)``.

    Every epoch derives a seed from its number, so a resumed run needs no saved generator state.
    """
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "big") >> 1


def seed_everything(*parts: object) -> int:
    """Seed Python, NumPy and torch with ``derive_seed(*parts)``; returns that seed."""
    import numpy as np
    import torch

    seed = derive_seed(*parts)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    return seed


def pick_device() -> torch.device:
    """The GPU if there is one, otherwise the CPU."""
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def describe_machine() -> dict:
    """The machine that a measurement was made on.

    Keys: "cpu", "cores", "threads" (of torch), "gpu" (None without one), "system".
    """
    import platform

    import torch

    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": names[0] if names else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": platform.system(),
    }


def format_duration(seconds: float) -> str:
    """Seconds as text for people: "4.2 s", "3 min 5 s", "2 h 10 min"."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


@functools.lru_cache
def matmul_rate(dtype_name: str, device_name: str = "cpu") -> float:
    """Measured speed of square matrix products in FLOP/s: the best of up to 20 within a quarter second.

    ``dtype_name`` is a torch dtype such as "bfloat16". The result is cached for the process.
    """
    import torch

    device = torch.device(device_name)
    n = 8192 if device.type == "cuda" else 512
    a = torch.ones(n, n, device=device, dtype=getattr(torch, dtype_name))
    best, begin = 0.0, time.perf_counter()
    for _ in range(20):  # the first products warm up the caches
        start = time.perf_counter()
        a @ a
        if device.type == "cuda":
            torch.cuda.synchronize()
        now = time.perf_counter()
        best = max(best, 2 * n**3 / (now - start))
        if now - begin > 0.25:  # emulated bfloat16 is very slow: one product is enough
            break
    return best


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """An autocast context for "auto", "float32" or "bfloat16" (see ``resolve_precision``)."""
    import torch

    enabled = resolve_precision(device, precision) == "bfloat16"
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=enabled)


def resolve_precision(device: torch.device, precision: str) -> str:
    """The precision to compute in, "float32" or "bfloat16"; anything but "auto" is returned as it is.

    "auto" becomes bfloat16 where its matrix products are measured at least 1.5 times as fast. CPUs
    with AVX-512 BF16 or AMX reach about 4 times; others emulate it and are many times slower. The
    two cases are so far apart that the choice is the same on every run on one machine.
    """
    if precision != "auto":
        return precision
    fast = matmul_rate("bfloat16", device.type) >= 1.5 * matmul_rate("float32", device.type)
    return "bfloat16" if fast else "float32"


@contextlib.contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Use ``count`` CPU threads inside the block, then as many as before.

    Layers of a few hundred units gain nothing from a second thread. If another program occupies the
    second core, every small product waits for it: up to 15 times slower has been measured.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def cores() -> int:
    """How many of the processor's cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_machine(gpus: int, jobs: int) -> None:
    """``BadInput`` for a number of GPUs or of jobs for which this machine has not enough."""
    if not 0 <= jobs <= cores():
        rule = f"the number lies between 1 and the {cores()} cores that there are"
        raise BadInput(f"--jobs {jobs}", rule, "leave it out to run two at once")
    if gpus < 0:
        raise BadInput(f"--gpus {gpus}", "the number is at least 0", "leave it out to use what is there")
    if gpus:
        import torch

        if gpus > torch.cuda.device_count():
            rule = f"this machine has {torch.cuda.device_count()}"
            raise BadInput(f"--gpus {gpus}", rule, "give fewer, or leave it out")
