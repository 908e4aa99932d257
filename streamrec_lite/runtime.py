"""Seeds, device, precision, atomic files and the run log: what every stage needs and no method is."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import random
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from .errors import BadInput


def derive_seed(*parts) -> int:
    """A 63-bit seed from any parts, e.g. ``derive_seed(0, "tiger", epoch)``.

    Each epoch seeds its own randomness from its name, so a resumed run needs no generator state.
    """
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "big") >> 1


def seed_everything(*parts) -> int:
    """Seed Python, NumPy and torch from ``derive_seed(*parts)``; returns that seed."""
    import numpy as np
    import torch

    seed = derive_seed(*parts)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    return seed


def pick_device():
    """The GPU if there is one, else the CPU."""
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def describe_machine() -> dict:
    """What a figure was measured on: processor, cores, torch's threads, GPU or None, system."""
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


def duration(seconds: float) -> str:
    """4.2 s, 3 min 5 s, 2 h 10 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


@functools.lru_cache
def matmul_rate(dtype_name: str, device_name: str = "cpu") -> float:
    """FLOP/s of square matrix products, measured now: the best of up to 20 in a quarter second."""
    import torch

    device = torch.device(device_name)
    n = 8192 if device.type == "cuda" else 512
    a = torch.ones(n, n, device=device, dtype=getattr(torch, dtype_name))
    best, begin = 0.0, time.perf_counter()
    for _ in range(20):  # the first ones warm up
        start = time.perf_counter()
        a @ a
        if device.type == "cuda":
            torch.cuda.synchronize()
        now = time.perf_counter()
        best = max(best, 2 * n**3 / (now - start))
        if now - begin > 0.25:  # emulated bfloat16 is very slow: one product tells enough
            break
    return best


def autocast(device, precision: str):
    """An autocast context for "auto", "float32" or "bfloat16" (resolved by ``resolve_precision``)."""
    import torch

    on = resolve_precision(device, precision) == "bfloat16"
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=on)


def resolve_precision(device, precision: str) -> str:
    """ "auto" becomes bfloat16 where its matrix products are measured at least 1.5 times as fast.

    CPUs with AVX-512 BF16 or AMX reach about 4 times; those without emulate it, many times slower.
    The two cases lie so far apart that the choice does not change from run to run on a machine.
    """
    if precision != "auto":
        return precision
    fast = matmul_rate("bfloat16", device.type) >= 1.5 * matmul_rate("float32", device.type)
    return "bfloat16" if fast else "float32"


@contextlib.contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Use ``count`` CPU threads inside the block.

    Layers of a few hundred units gain nothing from a second thread, and where another program has
    the other core every small product waits for it: 15 times slower has been seen.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary name beside ``path``; rename it to ``path`` only if the block succeeds."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary)
        else:
            temporary.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write a UTF-8 file whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value) -> None:
    """Write indented JSON whole or not at all; NaN is refused."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def read_json(path: str | Path):
    """Read JSON; a missing or broken file is ``BadInput``."""
    path = Path(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadInput(str(path), "the file does not exist", "check the path") from None
    except IsADirectoryError:
        raise BadInput(str(path), "it is a folder, and a file is needed", "remove it") from None
    except (ValueError, RecursionError) as error:  # not UTF-8, not JSON
        raise BadInput(str(path), f"the file must be UTF-8 JSON ({error})", "mend or delete it") from None


def write_tensors(path: str | Path, tensors: dict, meta: dict | None = None) -> None:
    """Write named tensors and JSON-able ``meta`` as one safetensors file, whole or not at all."""
    from safetensors.torch import save_file

    tensors = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata={"meta": json.dumps(meta or {})})


def read_tensors(path: str | Path) -> tuple[dict, dict]:
    """Read what ``write_tensors`` wrote: (tensors on the CPU, meta). Broken files are ``BadInput``."""
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise BadInput(
            str(path), "the file does not exist", "check the path, or run the stage that writes it"
        )
    try:
        with safe_open(path, framework="pt") as file:
            meta = json.loads((file.metadata() or {}).get("meta", "{}"))
            names = list(file.keys())
            return {name: file.get_tensor(name) for name in names}, meta
    except (SafetensorError, json.JSONDecodeError, OSError) as error:
        raise BadInput(
            str(path), f"the file must be safetensors ({error})", "delete it and run the stage again"
        ) from None


def load_weights(module, tensors: dict, source: str | Path) -> None:
    """Load ``tensors`` into ``module``; a missing, unknown or misshapen one is ``BadInput``."""
    own = module.state_dict()
    for name in sorted(own.keys() | tensors.keys()):
        if name not in tensors or name not in own:
            state = "is missing" if name in own else "is unknown"
            raise BadInput(
                f"{source}: tensor {name} {state}",
                "a checkpoint must match the model",
                "use the run's own config.json",
            )
        if own[name].shape != tensors[name].shape:
            have, want = tuple(tensors[name].shape), tuple(own[name].shape)
            raise BadInput(
                f"{source}: tensor {name} has shape {have}",
                f"the model needs {want}",
                "use the run's own config.json",
            )
    module.load_state_dict(tensors)


class RunLog:
    """A JSONL file, one row a line, appended at once; ``rows()`` reads it back.

    ``keep_until(epoch)`` drops rows after the epoch that a resumed run starts from.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)

    def write(self, **row) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def rows(self) -> list[dict]:
        if not self.path.exists():
            return []
        rows = []
        for line in self.path.read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(json.JSONDecodeError):  # a line cut short by a kill
                rows.append(json.loads(line))
        return rows

    def keep_until(self, epoch: int) -> None:
        kept = [row for row in self.rows() if row.get("epoch", 0) <= epoch]
        write_text(self.path, "".join(json.dumps(row) + "\n" for row in kept))
