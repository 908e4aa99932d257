"""What TIGER and STREAM-Rec are measured against: models that only count, the oracle, the neural baselines,
and memory beside a model."""

from __future__ import annotations

import functools
import shutil
import sys
import time
from pathlib import Path

from ..common.files import read_json, write_json
from .run import (
    NEURAL,
    ORACLE,
    SEEDED,
    Run,
    content_hash,
    counting_hash,
    counting_names,
    mixed_dir,
    mixed_hash,
    neural_dir,
    neural_hash,
    tuning_dir,
    tuning_hash,
)
from .shared_stages import row_of, run_data
from .store import run_stage


def run_baselines(run: Run) -> dict[str, dict]:
    """Rows of the models that only count, and of the oracle on the playground, by name.

    They only count, so one row serves every seed: results.json has it under seed "0".
    """
    if not content_hash(run):
        run_data(run)
    cache: list = []

    def work(name: str, part: Path) -> None:
        from ..evaluation.evaluate import evaluate
        from .artifacts import save_row

        cache.append(cache[0] if cache else run_data(run))
        dataset, splits = cache[0]
        begin = time.perf_counter()
        model = _counting_model(name, dataset, splits)
        seconds = time.perf_counter() - begin
        valid, test = evaluate(model, splits.valid), evaluate(model, splits.test)
        row = {
            "valid": valid.metrics,
            "test": test.metrics,
            "train_seconds": seconds,
            "epochs": 0,
            "users_per_second": test.users_per_second,
        }
        save_row(part, row, {"valid": valid.ranks, "test": test.ranks})

    rows = {}
    for name in counting_names(run):
        run_stage(run.dir, f"baselines/{name}", counting_hash(run, name), functools.partial(work, name))
        rows[name] = read_json(run.dir / "baselines" / name / "row.json")
    return rows


def _counting_model(name: str, dataset, splits):
    if name == ORACLE:
        return _Oracle(dataset.world)
    from ..baselines import counting, rules

    if name == "SequentialRules":
        return rules.SequentialRules.fit(splits, dataset.n_items)
    return getattr(counting, name).fit(splits, dataset.n_items)


class _Oracle:
    """The playground's best ranking, asked like any model."""

    def __init__(self, world):
        self.world = world

    def topk(self, prefixes, k: int):
        return self.world.oracle_topk(prefixes, k)


def run_neural(run: Run, seed: int = 0) -> dict[str, dict]:
    """Rows of Caser, GRU4Rec, SASRec, BERT4Rec and ReaRec, by name."""
    return {name: run_neural_model(run, name, seed) for name in NEURAL}


def run_neural_model(run: Run, name: str, seed: int = 0) -> dict:
    """Tune, train and evaluate the baseline ``name``: its row, with its "tuning"."""
    if not content_hash(run):
        run_data(run)

    def work(part: Path) -> None:
        from ..baselines.neural import EVAL_BATCH, KEPT, train_neural, with_values
        from ..common.files import write_tensors
        from ..evaluation.evaluate import evaluate
        from .artifacts import save_row

        dataset, splits = run_data(run)
        tuning, config = run_tuning(run, name), run.config
        if tuning:
            config = with_values(config, tuning[0]["lr"], tuning[0]["dropout"])
            for kept in KEPT if seed == 0 else ():  # the grid was trained with seed 0: this is its best
                shutil.copy2(tuning_dir(run, name) / f"best-{kept}", part / kept)
        show = sys.stderr.isatty()
        result = train_neural(name, splits, dataset.n_items, config, seed, part, run.device, show)
        write_tensors(part / "model.safetensors", result.model.state_dict())
        asked = [
            evaluate(result.model, users.to(run.device), batch_size=EVAL_BATCH)
            for users in (splits.valid, splits.test)
        ]
        row = {
            "valid": asked[0].metrics,
            "test": asked[1].metrics,
            "users_per_second": asked[1].users_per_second,
            "train_seconds": result.train_seconds,
            "epochs": result.epochs,
            "best_epoch": result.best["epoch"],
            "parameters": sum(p.numel() for p in result.model.parameters()),
            "precision": result.precision,
            "lr": config.baselines.lr,
            "dropout": config.baselines.dropout,
            "tuning": tuning,
        }
        save_row(part, row, {"valid": asked[0].ranks, "test": asked[1].ranks})

    return row_of(run, neural_dir(run, name, seed), neural_hash(run, name, seed), work)


def run_tuning(run: Run, name: str) -> list[dict]:
    """What each point of the grid gave on validation, best first; nothing where the run does not tune."""
    if run.config.baselines.tune == "none":
        return []

    def work(part: Path) -> None:
        from ..baselines.neural import tune

        dataset, splits = run_data(run)
        show = sys.stderr.isatty()
        write_json(
            part / "tuning.json", tune(name, splits, dataset.n_items, run.config, part, run.device, show)
        )

    folder = tuning_dir(run, name)
    run_stage(run.dir, folder.relative_to(run.dir).as_posix(), tuning_hash(run, name), work)
    return read_json(folder / "tuning.json")


def run_mixture(run: Run, stage: str, seed: int = 0) -> dict:
    """The row of a stage's model together with the rules: "w", chosen on validation, and all "shares"."""

    def work(part: Path) -> None:
        from ..baselines.rules import SequentialRules
        from ..baselines.with_rules import WithRules, choose_share
        from ..evaluation.evaluate import evaluate
        from ..inference.recommender import StreamRec
        from .artifacts import save_row

        dataset, splits = run_data(run)
        rules = SequentialRules.fit(splits, dataset.n_items)
        guided = stage != "tiger"
        model = StreamRec.load(run.dir, seed, SEEDED[stage][0], guided, run.device)
        w, shares = choose_share(model, rules, splits.valid)
        test = evaluate(WithRules(model, rules, w), splits.test, batch_size=run.config.evaluate.batch_size)
        trained = read_json(SEEDED[stage][1](run, seed) / "row.json")
        row = {"valid": shares[str(w)], "test": test.metrics, "users_per_second": test.users_per_second}
        row |= {
            "train_seconds": trained["train_seconds"],
            "epochs": trained["epochs"],
            "w": w,
            "shares": shares,
        }
        save_row(part, row, {"test": test.ranks})

    return row_of(run, mixed_dir(run, stage, seed), mixed_hash(run, stage, seed), work)
