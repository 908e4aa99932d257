"""A run and its stages: ``open_run`` and one function a stage. Each name is loaded when first used."""

from __future__ import annotations

import importlib

_HOME = {
    "Run": "run",
    "open_run": "run",
    "run_data": "stages",
    "run_embeddings": "stages",
    "run_tokenizer": "stages",
    "run_neighbours": "stages",
    "run_baselines": "stages",
    "run_neural": "stages",
    "run_mixture": "stages",
    "run_tuning": "stages",
    "run_tiger": "stages",
    "run_pretrain": "stages",
    "run_sft": "stages",
    "run_grpo": "stages",
    "run_controls": "stages",
    "run_results": "stages",
}
__all__ = list(_HOME)


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return __all__
