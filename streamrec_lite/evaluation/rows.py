"""Rows of results.json: metrics and ranks on both splits, their mean over seeds, paired intervals."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from ..common.device import derive_seed
from ..common.files import write_json, write_tensors
from ..common.schemas import Splits
from ..data.sequences import items_before_test
from .evaluate import Recommender, evaluate
from .metrics import LEFT_OUT, METRIC_NAMES, mean_and_deviation, metric_per_user, paired_bootstrap

SPLITS = ("valid", "test", "test_new")  # the last one: test users, new items only


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
        The row and the ranks of ``evaluate_test``, each with "valid" besides.
    """
    valid = evaluate(model, splits.valid.to(device), batch_size=batch_size)
    row, ranks = evaluate_test(model, splits, device, batch_size)
    return {"valid": valid.metrics, **row}, {"valid": valid.ranks, **ranks}


def evaluate_test(
    model: Recommender, splits: Splits, device: torch.device | str = "cpu", batch_size: int = 256
) -> tuple[dict, dict[str, Tensor]]:
    """The test users in both protocols (see ``evaluate``): "test", all items, and "test_new", new items only.

    New items are those that the user has never taken before, even longer ago than the model reads.

    Args:
        model: what is asked.
        splits: its test users are; the other parts say what they took before.
        device: where the model computes.
        batch_size: users asked at once.

    Returns:
        {"test", "test_new": metrics, "users_new": number of users that count in "test_new",
        "users_per_second": of "test"} and {"test", "test_new": ranks (users,), -1 for who does not count}.
    """
    test = splits.test.to(device)
    every = evaluate(model, test, batch_size=batch_size)
    new = evaluate(model, test, batch_size=batch_size, exclude=items_before_test(splits).to(device))
    row = {
        "test": every.metrics,
        "test_new": new.metrics,
        "users_new": int((new.ranks != LEFT_OUT).sum()),
        "users_per_second": every.users_per_second,
    }
    return row, {"test": every.ranks, "test_new": new.ranks}


def accuracy_by_steps(steps: Tensor, ranks: Tensor) -> dict[str, float]:
    """R@1 by the number of steps that an errand takes, {"1": R@1, ...}, from steps and ranks (B,)."""
    hit = (ranks == 1).double()
    return {str(int(h)): float(hit[steps == h].mean()) for h in steps.unique()}


def save_row(folder: Path, row: dict, ranks: dict[str, Tensor], steps: Tensor | None = None) -> None:
    """Keep a row as row.json, and the ranks of all users' targets by split as ranks.safetensors.

    Args:
        folder: where to.
        row: of the model; with ``steps`` it gets "by_steps" (``accuracy_by_steps`` of "test").
        ranks: (users,) by split.
        steps: (users,) how many steps each test user's errand takes, on the workshop.
    """
    if steps is not None:
        row = {**row, "by_steps": accuracy_by_steps(steps, ranks["test"])}
    write_tensors(folder / "ranks.safetensors", ranks)
    write_json(folder / "row.json", row)


def summary(rows: list[dict]) -> dict:
    """Mean and standard deviation over the rows of several seeds: split -> metric -> {"mean", "sd"}."""
    return {split: mean_and_deviation([row[split] for row in rows]) for split in SPLITS}


def versus(ranks: dict[str, list[Tensor]], reference: str, resamples: int) -> dict:
    """Paired bootstrap of each model against ``reference``, over a user's mean of the seeds.

    All models get the same resamples: two that answer alike have the same interval. Users with rank
    ``LEFT_OUT`` do not count; they are the same for all models.

    Args:
        ranks: model -> ranks (users,) of each seed.
        reference: the model that the others are compared with.
        resamples: of the bootstrap.

    Returns:
        model -> metric -> what ``paired_bootstrap`` says; {} if no user counts.
    """
    ranks = {model: [r[r != LEFT_OUT] for r in over_seeds] for model, over_seeds in ranks.items()}
    if not len(ranks[reference][0]):
        return {}
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
