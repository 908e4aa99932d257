"""Interactions and item text: sources, the playground, splits and batches."""

from __future__ import annotations

import importlib

_HOME = {
    "Dataset": "dataset",
    "dataset_table": "sources",
    "load_dataset": "sources",
    "PlaygroundWorld": "playground",
    "make_playground": "playground",
    "iterate": "sequences",
    "leave_one_out": "sequences",
    "length_batches": "sequences",
}
__all__ = sorted(_HOME)


def __getattr__(name: str):
    """Import a public name on first use, so that importing the package stays light."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return __all__
