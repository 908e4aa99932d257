"""streamrec_lite: slow thinking for sequential recommendation, to read, run and measure.

Public names, in the order in which data flows through them; each is loaded when first used, so that
importing the package costs nothing.
"""

from __future__ import annotations

import importlib
import sys
import types

__version__ = "0.1.0"

_HOME = {
    "load_dataset": "data.sources",
    "leave_one_out": "data.sequences",
    "embed_items": "embeddings",
    "SemanticTokenizer": "semantic_ids",
    "Backbone": "backbone",
    "beam_search": "decoding",
    "evaluate": "evaluate",
    "StreamRec": "recommender",
    "train_tiger": "baselines.tiger",
    "pretrain": "pretrain",
    "finetune": "sft",
    "annotate": "annotator",
    "reinforce": "reinforce",
    "reproduce": "reproduction",
}
__all__ = list(_HOME)


class _Package(types.ModuleType):
    """The package, with one difference: loading the submodule ``evaluate`` does not hide the function."""

    def __setattr__(self, name: str, value) -> None:
        if not (name in _HOME and isinstance(value, types.ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
