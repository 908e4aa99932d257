"""Runs of the tiny notebooks: opened, and made by ``reproduce`` in this process."""

from __future__ import annotations

from pathlib import Path

from tiny_notebooks import TINY

from streamrec_lite import running
from streamrec_lite.running.reproduce import reproduce
from streamrec_lite.running.run import Run

GROUPS = ("data", "embeddings", "tokenizer", "tiger", "baselines", "pretrain", "sft", "grpo", "results")
COUNTING = ("Popularity", "Markov", "SequentialRules")
NEURAL = ("Caser", "GRU4Rec", "SASRec", "BERT4Rec", "ReaRec")
TRAINED = ("TIGER", "STREAM-Rec-PT", "STREAM-Rec-SFT", "STREAM-Rec-RL")
GUIDED = "STREAM-Rec-SFT, state-guided"
BOTH = (GUIDED, "STREAM-Rec-RL, state-guided")
MIXED = [f"{model}, with rules" for model in ("TIGER", *BOTH)]


def opened(out: Path, *more: str, seeds=(0,), branch: str = "") -> Run:
    return running.open_run(out, "playground", "smoke", [*TINY, *more], seeds, branch)


def again(out: Path, *more: str, **options) -> list[str]:
    """Call ``reproduce`` in this process; returns what it told."""
    told: list[str] = []
    options = {"preset": "smoke", "out": out, "overrides": [*TINY, *more], "tell": told.append, **options}
    reproduce("playground", **options)
    return told


def parameters_of(out: Path) -> dict:
    """What a job is given to open the run."""
    run = opened(out)
    parameters = {"run_dir": str(run.dir), "dataset": "playground", "preset": "smoke", "seed": 0}
    return parameters | {"overrides": list(run.overrides), "seeds": [0]}
