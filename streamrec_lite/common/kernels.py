"""Jupyter kernels that run side by side: each talks over sockets in a folder, not over TCP ports."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any


def kernel_manager_class(folder: Path) -> type:
    """A kernel manager whose kernel runs this interpreter and talks over IPC sockets in ``folder``.

    TCP ports are drawn at random, and kernels that start together collide; kernels with a folder each do
    not. No installed kernelspec is asked: "python3" may belong to another environment.
    """
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import AsyncKernelManager

    argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec = KernelSpec(argv=argv, display_name="Python 3", language="python")

    class IpcKernelManager(AsyncKernelManager):
        def __init__(self, **options: Any):
            super().__init__(**options)
            self.transport, self.ip = "ipc", str(folder / "k")
            self.connection_file = str(folder / "kernel.json")

        @property
        def kernel_spec(self) -> KernelSpec:
            return spec

    return IpcKernelManager


def socket_folder() -> str | None:
    """Where sockets go: their path may have 107 bytes, so that a long TMPDIR will not do."""
    return None if len(tempfile.gettempdir()) < 60 or not Path("/tmp").is_dir() else "/tmp"
