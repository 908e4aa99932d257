"""A run and its stages: ``open_run`` and one function a stage. Each name is loaded when first used."""

from __future__ import annotations

import importlib

_LOADED = ("data", "embeddings", "tokenizer", "neighbours", "baselines", "neural", "tuning", "mixture")
_TRAINED = ("tiger", "pretrain", "sft", "grpo", "controls", "workshop", "results")
_HOME = {"Run": "run", "open_run": "run"} | {f"run_{name}": "stages" for name in (*_LOADED, *_TRAINED)}
__all__ = list(_HOME)


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return __all__
