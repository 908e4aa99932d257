"""The names that `import streamrec_lite` offers, and what the import costs."""

from __future__ import annotations

import subprocess
import sys

import pytest

import streamrec_lite


def test_public_names_are_what_they_say():
    for name in streamrec_lite.__all__:
        value = getattr(streamrec_lite, name)
        assert callable(value), name
        assert value.__name__ == name
    with pytest.raises(AttributeError, match="thinkk"):
        _ = streamrec_lite.thinkk


def test_importing_the_package_loads_no_torch():
    code = (
        "import sys, streamrec_lite, streamrec_lite.cli.app, streamrec_lite.running.run;"
        "print([m for m in ('torch', 'transformers', 'pandas', 'numpy') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
