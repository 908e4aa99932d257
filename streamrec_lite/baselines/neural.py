"""The neural baselines of Table 2: one loop, one loss, one small grid for each of them."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import torch

from ..common.device import seed_everything
from ..common.files import read_json, write_json
from ..common.schemas import Splits
from ..config.settings import Config
from ..config.training import BaselineConfig
from ..training.loop import Task, Trained, TrainingJob, train
from ..training.optim import use_byte_dropout
from .bert4rec import BERT4Rec
from .caser import Caser
from .gru4rec import GRU4Rec
from .rearec import ReaRec
from .sasrec import SASRec
from .sequence import ItemModel

MODELS = {"Caser": Caser, "GRU4Rec": GRU4Rec, "SASRec": SASRec, "BERT4Rec": BERT4Rec, "ReaRec": ReaRec}
RATES = (0.001, 0.003, 0.005)  # the paper's
DROPOUTS = (0.2, 0.5)  # the first one while the rate is chosen
TIE_RATIO = (
    0.99  # a validation N@10 of at least this share of the best is as good: less than one standard error
)
EVAL_BATCH = 512  # users ranked at once
KEPT = ("checkpoint.safetensors", "best.safetensors", "log.jsonl")  # what ``loop.train`` continues from


def build(name: str, splits: Splits, n_items: int, settings: BaselineConfig) -> ItemModel:
    """A model of ``MODELS`` with fresh weights.

    Args:
        name: one of ``MODELS``.
        splits: tell how long histories are.
        n_items: items of the catalogue.
        settings: sizes and dropout.
    """
    return MODELS[name](n_items, settings, places=splits.test.history.shape[1])


def train_neural(name: str, job: TrainingJob, n_items: int) -> Trained:
    """Train by ``loop.train``, with the learning rate and the dropout of ``job.config.baselines``."""
    device, settings = torch.device(job.device), job.config.baselines
    seed_everything(job.seed, "baselines", name, "weights")
    model = use_byte_dropout(build(name, job.splits, n_items, settings), device).to(device)
    task = Task(
        name=name,
        section="baselines",
        loss=lambda model, batch, rows: {"loss": model.loss(batch)},
        recommender=lambda model: model,
    )
    return train(task, model, job.on_device(), EVAL_BATCH)


def with_values(config: Config, lr: float, dropout: float) -> Config:
    """The settings with another learning rate and dropout for the baselines."""
    return dataclasses.replace(
        config, baselines=dataclasses.replace(config.baselines, lr=lr, dropout=dropout)
    )


def tune(name: str, job: TrainingJob, n_items: int) -> list[dict]:
    """Choose the rate at the first dropout, then the dropout at that rate, on validation, with seed 0.

    Keeps the best's ``KEPT`` files. Returns a row for each training: lr, dropout, "valid N@10" and R@10,
    the epoch it was reached in, epochs and seconds; the one that ``choose`` takes comes first. A training
    that diverges is reported with N@10 0. Killed, it continues.
    """

    def point(lr: float, dropout: float) -> dict:
        folder = work_dir / f"lr-{lr}-dropout-{dropout}"
        if not (folder / "row.json").exists():
            values = with_values(job.config, lr, dropout)
            row: dict = {"lr": lr, "dropout": dropout}
            try:
                result = train_neural(name, job._replace(config=values, seed=0, work_dir=folder), n_items)
                row |= {"valid N@10": result.best["N@10"], "valid R@10": result.best["R@10"]}
                row |= {"best epoch": result.best["epoch"], "epochs": result.epochs}
                row |= {"train_seconds": result.train_seconds}
            except FloatingPointError as error:
                row |= {"valid N@10": 0.0, "valid R@10": 0.0, "failed": str(error)}
            write_json(folder / "row.json", row)
        return read_json(folder / "row.json")

    work_dir = Path(job.work_dir)
    rows = [point(lr, DROPOUTS[0]) for lr in RATES]
    lr = choose(rows)["lr"]
    rows += [point(lr, dropout) for dropout in DROPOUTS[1:]]
    chosen = choose(rows)
    if "failed" in chosen:
        raise FloatingPointError(f"{name}: every training of the grid diverged: {chosen['failed']}")
    rows = [chosen, *sorted((row for row in rows if row is not chosen), key=lambda row: -row["valid N@10"])]
    best = work_dir / f"lr-{rows[0]['lr']}-dropout-{rows[0]['dropout']}"
    for kept in KEPT:
        shutil.copy2(best / kept, work_dir / f"best-{kept}")
    for folder in work_dir.glob("lr-*"):
        shutil.rmtree(folder)
    return rows


def choose(rows: list[dict]) -> dict:
    """The row with the best validation N@10; of those as good (``TIE_RATIO``), the one with the best R@10."""
    enough = TIE_RATIO * max(row["valid N@10"] for row in rows)
    return max((row for row in rows if row["valid N@10"] >= enough), key=lambda row: row["valid R@10"])
