"""streamrec_lite: slow thinking for sequential recommendation, to read, run and measure.

The public names are listed in the order of the pipeline. Each is imported when it is first used, so
``import streamrec_lite`` loads neither torch nor transformers.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.2.0"

_MODULE_OF = {
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
__all__ = list(_MODULE_OF)


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_MODULE_OF[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULE_OF])
