"""Rows of results.json: metrics and ranks on both splits, their mean over seeds, paired intervals."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from ..common.device import derive_seed
from ..common.files import write_json, write_tensors
from ..common.schemas import Splits
from .evaluate import Recommender, evaluate
from .metrics import METRIC_NAMES, mean_and_deviation, metric_per_user, paired_bootstrap


def evaluate_splits(
    model: Recommender, splits: Splits, device: torch.device | str = "cpu", batch_size: int = 256
) -> tuple[dict, dict[str, Tensor]]:
    """The metrics of a row, and the ranks behind them.

    Args:
        model: what is asked.
        splits: its validation and test users are.
        device: where the model computes.
        batch_size: users asked at once.

    Returns:
        {"valid", "test": metrics, "users_per_second"} and {"valid", "test": ranks (users,)}.
    """
    parts = {"valid": splits.valid.to(device), "test": splits.test.to(device)}
    results = {name: evaluate(model, part, batch_size=batch_size) for name, part in parts.items()}
    row: dict = {name: result.metrics for name, result in results.items()}
    row["users_per_second"] = results["test"].users_per_second
    return row, {name: result.ranks for name, result in results.items()}


def save_row(folder: Path, row: dict, ranks: dict[str, Tensor]) -> None:
    """Keep a row as row.json, and the ranks of all users' targets by split as ranks.safetensors."""
    write_tensors(folder / "ranks.safetensors", ranks)
    write_json(folder / "row.json", row)


def summary(rows: list[dict]) -> dict:
    """Mean and standard deviation over the rows of several seeds: split -> metric -> {"mean", "sd"}."""
    return {split: mean_and_deviation([row[split] for row in rows]) for split in ("valid", "test")}


def versus(ranks: dict[str, list[Tensor]], reference: str, resamples: int) -> dict:
    """Paired bootstrap of each model against ``reference``, over a user's mean of the seeds.

    All models get the same resamples: two that answer alike have the same interval.

    Args:
        ranks: model -> ranks (users,) of each seed.
        reference: the model that the others are compared with.
        resamples: of the bootstrap.

    Returns:
        model -> metric -> what ``paired_bootstrap`` says.
    """
    mean = {
        model: {
            name: sum(metric_per_user(r, name) for r in over_seeds) / len(over_seeds) for name in METRIC_NAMES
        }
        for model, over_seeds in ranks.items()
    }
    return {
        model: {
            name: paired_bootstrap(
                mean[model][name], mean[reference][name], resamples, derive_seed("bootstrap", name)
            )
            for name in METRIC_NAMES
        }
        for model in ranks
        if model != reference
    }
