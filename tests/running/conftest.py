"""A tiny run that `reproduce` made, once a session, and copies of it that a test may damage."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from tiny_notebooks import COMMAND, TINY, environment, write_all


@pytest.fixture(scope="session")
def notebooks(tmp_path_factory):
    return write_all(tmp_path_factory.mktemp("notebooks"))


@pytest.fixture(scope="session")
def finished(tmp_path_factory, notebooks):
    """A run that `reproduce` made through its notebooks in another process: (folder, what it printed)."""
    out = tmp_path_factory.mktemp("runs") / "tiny"
    command = [*COMMAND, "reproduce", "--preset", "smoke", "--out", str(out)]
    command += [part for setting in TINY for part in ("--set", setting)]
    process = subprocess.run(command, env=environment(notebooks), capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    return out, process.stdout


@pytest.fixture
def copied(finished, tmp_path, notebooks, monkeypatch):
    """A copy of the finished run that a test may damage."""
    monkeypatch.setenv("STREAMREC_NOTEBOOKS", str(notebooks))
    return Path(shutil.copytree(finished[0], tmp_path / "tiny"))
