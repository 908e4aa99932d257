"""What the baselines' stages do (see ``stage_table``): counting models, oracle, neural models, mixtures."""

from __future__ import annotations

import shutil
import sys
import time

from torch import Tensor

from ..baselines import counting, neural
from ..baselines.with_rules import WithRules, choose_share
from ..common.files import read_json, write_json, write_tensors
from ..common.schemas import Prefixes, Splits
from ..data.dataset import Dataset
from ..data.workshop_world import errand_steps
from ..evaluation.evaluate import Recommender
from ..evaluation.new_items import first_allowed
from ..evaluation.rows import evaluate_splits, evaluate_test, save_row
from ..inference.recommender import StreamRec
from ..training.loop import TrainingJob
from .stage_table import ORACLE, TABLE
from .stages import Work, run_data, run_tuning


class Oracle:
    """The best ranking of a synthetic shop, asked like any model."""

    def __init__(self, dataset: Dataset):
        assert dataset.world is not None, "only a synthetic shop has an oracle"
        self.world = dataset.world

    def topk(self, prefixes: Prefixes, k: int, exclude: Tensor | None = None) -> Tensor:
        """The k items most likely to come next after each history (B, L), without ``exclude``: (B, k)."""
        length = k if exclude is None else k + exclude.shape[1]
        return first_allowed(self.world.oracle_topk(prefixes, length), k, exclude)


def _counted(name: str, dataset: Dataset, splits: Splits) -> Recommender:
    if name == ORACLE:
        return Oracle(dataset)
    return getattr(counting, name).fit(splits, dataset.n_items)


def count(work: Work) -> None:
    """A model that only counts, or the oracle."""
    run, name, _, part = work
    dataset, splits = run_data(run)
    begin = time.perf_counter()
    model = _counted(name, dataset, splits)
    seconds = time.perf_counter() - begin
    row, ranks = evaluate_splits(model, splits)
    save_row(part, {**row, "train_seconds": seconds, "epochs": 0}, ranks, errand_steps(dataset, splits.test))


def tune_neural(work: Work) -> None:
    """The grid of the baseline "NAME tuning": what each point gave on validation."""
    run, name, _, part = work
    dataset, splits = run_data(run)
    job = TrainingJob(splits, run.config, 0, part, run.device, sys.stderr.isatty())
    rows = neural.tune(name.removesuffix(" tuning"), job, dataset.n_items)
    write_json(part / "tuning.json", rows)


def train_neural(work: Work) -> None:
    """Train and evaluate a neural baseline by the best point of its grid, where the run tunes."""
    run, name, seed, part = work
    dataset, splits = run_data(run)
    tuning, config = run_tuning(run, name), run.config
    if tuning:
        config = neural.with_lr_and_dropout(config, tuning[0]["lr"], tuning[0]["dropout"])
        # The grid was trained with seed 0, so its best model is that of seed 0.
        for file in neural.CHECKPOINT_FILES if seed == 0 else ():
            shutil.copy2(run.folder(f"{name} tuning") / f"best-{file}", part / file)
    job = TrainingJob(splits, config, seed, part, run.device, sys.stderr.isatty())
    result = neural.train_neural(name, job, dataset.n_items)
    write_tensors(part / "model.safetensors", result.model.state_dict())
    row, ranks = evaluate_splits(result.model, splits, run.device, neural.EVAL_BATCH)
    row |= {
        "train_seconds": result.train_seconds,
        "epochs": result.epochs,
        "best_epoch": result.best["epoch"],
        "parameters": sum(p.numel() for p in result.model.parameters()),
        "precision": result.precision,
        "lr": config.baselines.lr,
        "dropout": config.baselines.dropout,
        "tuning": tuning,
    }
    save_row(part, row, ranks, errand_steps(dataset, splits.test))


def mix_with_rules(work: Work) -> None:
    """A trained model together with the sequential rules: its share "w" is chosen on validation."""
    run, name, seed, part = work
    dataset, splits = run_data(run)
    rules = counting.SequentialRules.fit(splits, dataset.n_items)
    trained = TABLE[TABLE[name].needs[0]]
    model = StreamRec.load(run.dir, seed, trained.model, trained.name != "tiger", run.device)
    w, shares = choose_share(model, rules, splits.valid)
    mixture, size = WithRules(model, rules, w), run.config.evaluate.batch_size
    tested, ranks = evaluate_test(mixture, splits, batch_size=size)
    row = read_json(run.folder(trained.name, seed) / "row.json")
    mixed = {
        "valid": shares[str(w)],
        **tested,
        "train_seconds": row["train_seconds"],
        "epochs": row["epochs"],
        "w": w,
        "shares": shares,
    }
    save_row(part, mixed, ranks)
