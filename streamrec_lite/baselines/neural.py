"""Training and tuning of the neural baselines of Table 2, by ``loop.train`` and a small grid."""

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
LEARNING_RATES = (0.001, 0.003, 0.005)  # as in the paper
DROPOUTS = (0.2, 0.5)  # the first one is used while the learning rate is chosen
TIE_RATIO = 0.99  # an N@10 above this share of the best is a tie: it is within one standard error
EVAL_BATCH = 512  # users ranked at once
# ``loop.train`` resumes from these.
CHECKPOINT_FILES = ("checkpoint.safetensors", "best.safetensors", "log.jsonl")


def build_baseline(name: str, splits: Splits, n_items: int, settings: BaselineConfig) -> ItemModel:
    """A model of ``MODELS`` with fresh weights.

    Args:
        name: one of ``MODELS``.
        splits: the longest test history sets the number of positions.
        n_items: N.
        settings: sizes and dropout.
    """
    return MODELS[name](n_items, settings, max_length=splits.test.history.shape[1])


def train_neural(name: str, job: TrainingJob, n_items: int) -> Trained:
    """Train a model of ``MODELS`` with the learning rate and the dropout of ``job.config.baselines``.

    ``loop.train`` says which files it writes.
    """
    device, settings = torch.device(job.device), job.config.baselines
    seed_everything(job.seed, "baselines", name, "weights")
    model = use_byte_dropout(build_baseline(name, job.splits, n_items, settings), device).to(device)
    task = Task(
        name=name,
        section="baselines",
        loss=lambda model, batch, rows: {"loss": model.loss(batch)},
        recommender=lambda model: model,
    )
    return train(task, model, job.on_device(), EVAL_BATCH)


def with_lr_and_dropout(config: Config, lr: float, dropout: float) -> Config:
    """The settings with this learning rate and dropout for the baselines."""
    return dataclasses.replace(
        config, baselines=dataclasses.replace(config.baselines, lr=lr, dropout=dropout)
    )


def tune(name: str, job: TrainingJob, n_items: int) -> list[dict]:
    """Choose the learning rate at the first dropout, then the dropout at that rate, with seed 0.

    Models are compared on validation (``choose``). The ``CHECKPOINT_FILES`` of the best one stay in the
    job's folder as ``best-NAME``. A killed run continues with the training that was interrupted.

    Returns:
        a row for each training, the best one first: "lr", "dropout", "valid N@10", "valid R@10", "best
        epoch", "epochs", "train_seconds". A training that diverged has N@10 0 and its error as "failed".

    Raises:
        FloatingPointError: all trainings diverged.
    """

    def train_point(lr: float, dropout: float) -> dict:
        """The row of one training, read from its folder if it is done."""
        folder = work_dir / f"lr-{lr}-dropout-{dropout}"
        if not (folder / "row.json").exists():
            values = with_lr_and_dropout(job.config, lr, dropout)
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
    rows = [train_point(lr, DROPOUTS[0]) for lr in LEARNING_RATES]
    lr = choose(rows)["lr"]
    rows += [train_point(lr, dropout) for dropout in DROPOUTS[1:]]
    chosen = choose(rows)
    if "failed" in chosen:
        raise FloatingPointError(f"{name}: every training of the grid diverged: {chosen['failed']}")
    rows = [chosen, *sorted((row for row in rows if row is not chosen), key=lambda row: -row["valid N@10"])]
    best = work_dir / f"lr-{rows[0]['lr']}-dropout-{rows[0]['dropout']}"
    for file in CHECKPOINT_FILES:
        shutil.copy2(best / file, work_dir / f"best-{file}")
    for folder in work_dir.glob("lr-*"):
        shutil.rmtree(folder)
    return rows


def choose(rows: list[dict]) -> dict:
    """The row with the best R@10 among those of equally good N@10 (``TIE_RATIO``), on validation."""
    threshold = TIE_RATIO * max(row["valid N@10"] for row in rows)
    return max((row for row in rows if row["valid N@10"] >= threshold), key=lambda row: row["valid R@10"])
