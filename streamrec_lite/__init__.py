"""streamrec_lite: slow thinking for sequential recommendation, to read, run and measure.

Public names, in the order in which data flows through them; each is loaded when first used, so that
importing the package costs nothing.
"""

from __future__ import annotations

import importlib

__version__ = "0.1.0"

_HOME = {
    "load_dataset": "data.sources",
    "leave_one_out": "data.sequences",
    "embed_items": "tokenizer.embeddings",
    "SemanticTokenizer": "tokenizer.semantic_ids",
    "Backbone": "model.backbone",
    "beam_search": "inference.beam_search",
    "evaluate": "evaluation.evaluate",
    "StreamRec": "inference.recommender",
    "train_tiger": "baselines.tiger",
    "pretrain": "training.pretrain",
    "finetune": "training.finetune",
    "annotate": "training.annotator",
    "reinforce": "training.reinforce",
    "reproduce": "running.reproduce",
}
__all__ = list(_HOME)


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
