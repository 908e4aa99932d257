"""A run and its stages: ``open_run`` and one function a stage. Each name is loaded when first used."""

from __future__ import annotations

import importlib

_HOME = {
    "Run": "run",
    "open_run": "run",
    "run_data": "shared_stages",
    "run_embeddings": "shared_stages",
    "run_tokenizer": "shared_stages",
    "run_neighbours": "shared_stages",
    "run_baselines": "baseline_stages",
    "run_neural": "baseline_stages",
    "run_tuning": "baseline_stages",
    "run_mixture": "baseline_stages",
    "run_tiger": "model_stages",
    "run_pretrain": "model_stages",
    "run_sft": "model_stages",
    "run_grpo": "model_stages",
    "run_controls": "model_stages",
    "run_results": "model_stages",
}
__all__ = list(_HOME)


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return __all__
