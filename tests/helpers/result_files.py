"""Results and ranks of made-up models, as a finished run has them."""

from __future__ import annotations

import torch


def ranks():
    """Six users; TIGER with two seeds, Markov counted once, Poor hits nobody."""
    return {
        "Markov": [torch.tensor([1, 0, 2, 0, 0, 0])],
        "TIGER": [torch.tensor([1, 2, 0, 0, 0, 7]), torch.tensor([1, 0, 0, 0, 0, 7])],
        "Poor": [torch.zeros(6, dtype=torch.long)] * 2,
    }


def interval(mean, low, high):
    return {"mean_difference": mean, "low": low, "high": high, "relative": None, "p": 0.04}


def results(**more):
    """A results.json of three models."""
    values = {"Popularity": 0.1, "TIGER": 0.3, "STREAM-Rec-SFT": 0.2, "TIGER, with rules": 0.4}
    names = ("R@5", "R@10", "N@5", "N@10")
    row = {"train_seconds": 2.0, "users_per_second": 1000.0, "parameters": 1234}
    splits = ("valid", "test", "test_new")

    def summary(value):
        return {split: {n: {"mean": value, "sd": 0.01} for n in names} for split in splits}

    gaps = {"Popularity": (-0.2, -0.3, -0.1), "STREAM-Rec-SFT": (-0.1, -0.25, 0.05)}
    gaps["TIGER, with rules"] = (0.1, 0.02, 0.15)
    return {
        "dataset": "playground",
        "preset": "lite",
        "data": {"users": 6, "items": 5},
        "test_users": {"test": 6, "test_new": 5},
        "models": {model: {"0": dict(row), "1": dict(row)} for model in values},
        "summary": {model: summary(value) for model, value in values.items()},
        "versus_TIGER": {m: {n: interval(*gap) for n in names} for m, gap in gaps.items()},
        "versus_TIGER_new": {m: {n: interval(*gap) for n in names} for m, gap in gaps.items()},
        "oracle": {split: dict.fromkeys(names, 0.5) for split in splits},
        **more,
    }
