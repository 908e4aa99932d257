"""The stages of a run, one function each: skipped if done, loaded either way.

A notebook opens its run by ``open_run`` and calls its stage with one line; `streamrec reproduce`
(``reproduction.py``) executes the notebooks.
"""

from __future__ import annotations

import functools
import time
from pathlib import Path

from .groundwork import run_data, run_embeddings, run_neighbours, run_tokenizer
from .runs import (
    CONTROLS,
    ORACLE,
    Run,
    content_hash,
    control_dir,
    counting_hash,
    counting_names,
    grpo_dir,
    grpo_hash,
    open_run,
    pretrain_dir,
    pretrain_hash,
    sft_dir,
    sft_hash,
    tiger_dir,
    tiger_hash,
    tokenizer_hash,
)
from .runtime import read_json
from .stages import done, run_stage

__all__ = [
    "Run",
    "open_run",
    "run_baselines",
    "run_controls",
    "run_data",
    "run_embeddings",
    "run_grpo",
    "run_neighbours",
    "run_pretrain",
    "run_recall",
    "run_results",
    "run_sft",
    "run_tiger",
    "run_tokenizer",
]


def run_tiger(run: Run, seed: int = 0) -> dict:
    """Train and evaluate TIGER: its row of results.json, with ``dir``, where its files are."""
    if not done(run.dir / "tokenizer", tokenizer_hash(run) or "-"):
        run_tokenizer(run)

    def work(part: Path) -> None:
        from .baselines.tiger import train_tiger
        from .recommender import StreamRec

        tokenizer, (_, splits) = run_tokenizer(run), run_data(run)
        result = train_tiger(splits, tokenizer, run.config, seed, part, run.device)
        model = StreamRec(result.model, tokenizer, beams=run.config.evaluate.beams, device=run.device)
        _keep_trained(run, result, model, splits, part)

    return _row_of(run, tiger_dir(run, seed), tiger_hash(run, seed), work)


def run_recall(run: Run):
    """The splits as STREAM-Rec reads them: with ``recall.n`` recalled items behind every history."""
    from .recall import recall_all

    dataset, splits = run_data(run)
    n = run.config.recall.n
    return recall_all(_rules(run, dataset, splits), splits, n) if n else splits


def _rules(run: Run, dataset, splits):
    from .baselines.rules import SequentialRules

    settings = run.config.recall
    return SequentialRules.fit(splits, dataset.n_items, settings.window, settings.reach, settings.fade)


def _keep_memory(run: Run, part: Path) -> None:
    """Whoever loads the model recalls as it did in training."""
    from .recall import Recall

    if run.config.recall.n:
        Recall(_rules(run, *run_data(run)), run.config.recall.n).save(part / "memory.safetensors")


def run_pretrain(run: Run, seed: int = 0) -> dict:
    """Stage 1: the row of STREAM-Rec-PT (see ``run_tiger``), with "direct", what its direct decoder does."""
    if not done(run.dir / "tokenizer", tokenizer_hash(run) or "-"):
        run_tokenizer(run)

    def work(part: Path) -> None:
        from .pretrain import pretrain
        from .recommender import StreamRec

        tokenizer, splits = run_tokenizer(run), run_recall(run)
        result = pretrain(splits, tokenizer, run_neighbours(run), run.config, seed, part, run.device)
        settings = {"beams": run.config.evaluate.beams, "device": run.device}
        direct = StreamRec(result.model, tokenizer, **settings)
        thoughts = run.config.pretrain.n_similar * tokenizer.m
        slow = StreamRec(result.model, tokenizer, l=thoughts, think="greedy", **settings)
        _keep_memory(run, part)
        _keep_trained(run, result, slow, splits, part, direct=direct)

    return _row_of(run, pretrain_dir(run, seed), pretrain_hash(run, seed), work)


def run_sft(run: Run, seed: int = 0) -> dict:
    """Stage 2: the row of STREAM-Rec-SFT (see ``run_tiger``), with "guided", the state-guided scoring.

    The row says too how many thoughts it writes ("l"), the state's weight ("w"), validation by weight
    ("weights"), and what some test users get when it is asked in other ways ("question").
    """
    if not done(pretrain_dir(run, seed), pretrain_hash(run, seed) or "-"):
        run_pretrain(run, seed)

    def work(part: Path) -> None:
        from .question import ask_in_many_ways

        slow, result, splits = _finetuned(run, run.config, seed, part)
        question = ask_in_many_ways(slow, splits.test.to(run.device), bootstrap=run.config.evaluate.bootstrap)
        _keep_finetuned(run, result, slow, splits, part, {"question": question})

    return _row_of(run, sft_dir(run, seed), sft_hash(run, seed), work)


def run_grpo(run: Run, seed: int = 0) -> dict:
    """Stage 3: the row of STREAM-Rec-RL (see ``run_tiger``), with how many thoughts it writes ("l")."""
    if not done(sft_dir(run, seed), sft_hash(run, seed) or "-"):
        run_sft(run, seed)

    def work(part: Path) -> None:
        import torch

        from .backbone import Backbone
        from .embeddings import similar_items
        from .recommender import StreamRec
        from .reinforce import reinforce

        tokenizer, splits = run_tokenizer(run), run_recall(run)
        model, reference = Backbone.load(sft_dir(run, seed)), Backbone.load(pretrain_dir(run, seed))
        near = torch.from_numpy(similar_items(run_embeddings(run), run.config.grpo.K))
        result = reinforce(
            model, reference, splits, tokenizer, near, run.config, seed, part, device=run.device
        )
        l, beams = run.config.sft.l, run.config.evaluate.beams
        slow = StreamRec(result.model, tokenizer, beams, l=l, think="greedy", device=run.device)
        _keep_memory(run, part)
        _keep_trained(run, result, slow, splits, part, {"l": l, "best_block": result.best["epoch"]})

    return _row_of(run, grpo_dir(run, seed), grpo_hash(run, seed), work)


def run_controls(run: Run, seed: int = 0) -> dict[str, dict]:
    """The rows of ``question.CONTROLS``, by name; nothing unless the run's ``sft.controls`` says "all"."""
    if run.config.sft.controls == "none":
        return {}

    def work(name: str, part: Path) -> None:
        from .baselines.tiger import train_tiger
        from .question import control_config
        from .recommender import StreamRec

        config = control_config(run.config, name)
        if name.endswith("tiger"):
            tokenizer = run_tokenizer(run)
            splits = run_recall(run) if name == "recalling-tiger" else run_data(run)[1]
            result = train_tiger(splits, tokenizer, config, seed, part, run.device)
            fast = StreamRec(result.model, tokenizer, beams=config.evaluate.beams, device=run.device)
            _keep_trained(run, result, fast, splits, part)
            return
        slow, result, splits = _finetuned(run, config, seed, part)
        _keep_finetuned(run, result, slow, splits, part)

    return {
        name: _row_of(run, control_dir(run, name, seed), sft_hash(run, seed), functools.partial(work, name))
        for name in CONTROLS
    }


def _row_of(run: Run, folder: Path, hash_: str | None, work) -> dict:
    """Do a stage whose folder keeps a row of results.json; returns the row, with "dir"."""
    run_stage(run.dir, folder.relative_to(run.dir).as_posix(), hash_, work)
    return {**read_json(folder / "row.json"), "dir": str(folder)}


def _finetuned(run: Run, config, seed: int, part: Path):
    """(StreamRec, Trained, Splits) of a fine-tuning by ``config``, which starts at the run's stage 1."""
    from .backbone import Backbone
    from .optim import quicken_dropout
    from .recommender import StreamRec
    from .sft import finetune

    tokenizer, splits = run_tokenizer(run), run_recall(run)
    model = quicken_dropout(Backbone.load(pretrain_dir(run, seed)))
    neighbours = run_neighbours(run)
    result = finetune(model, splits, tokenizer, neighbours, config, seed, part, device=run.device)
    slow = StreamRec(
        result.model, tokenizer, config.evaluate.beams, l=config.sft.l, think="greedy", device=run.device
    )
    return slow, result, splits


def _keep_finetuned(run: Run, result, slow, splits, part: Path, more: dict | None = None) -> None:
    """Choose the state's weight on validation, and keep both ways to answer."""
    from .recommender import StreamRec
    from .retrieval import choose_weight

    users = splits.valid.to(run.device)
    w, weights = choose_weight(slow.model, slow.tokenizer, users, slow.l, slow.beams)
    guided = StreamRec(
        slow.model, slow.tokenizer, slow.beams, l=slow.l, think="greedy", w=w, device=run.device
    )
    more = {"l": slow.l, "w": w, "weights": weights, **(more or {})}
    _keep_memory(run, part)
    _keep_trained(run, result, slow, splits, part, more, guided=guided)


def _keep_trained(run: Run, result, model, splits, part: Path, more: dict | None = None, **others) -> None:
    """Save a trained model with its row of results.json.

    ``more``: what else the row says. ``others``: further ways to ask the model, by name; their ranks
    are kept as "NAME test", like the first way's as "test".
    """
    from .artifacts import save_row
    from .evaluate import evaluate

    def asked(recommender) -> tuple[dict, dict]:
        parts = {"valid": splits.valid.to(run.device), "test": splits.test.to(run.device)}
        size = run.config.evaluate.batch_size
        results = {name: evaluate(recommender, part, batch_size=size) for name, part in parts.items()}
        answer = {name: result.metrics for name, result in results.items()}
        answer["users_per_second"] = results["test"].users_per_second
        return answer, {name: result.ranks for name, result in results.items()}

    result.model.save(part)
    row, ranks = asked(model)
    row |= {
        "train_seconds": result.train_seconds,
        "epochs": result.epochs,
        "parameters": sum(p.numel() for p in result.model.parameters()),
        "precision": result.precision,
        **(more or {}),
    }
    for name, other in others.items():
        row[name], seen = asked(other)
        ranks |= {f"{name} {split}": values for split, values in seen.items()}
    save_row(part, row, ranks)


def run_baselines(run: Run) -> dict[str, dict]:
    """Rows of the models that only count, and of the oracle on the playground, by name.

    They only count, so one row serves every seed: results.json has it under seed "0".
    """
    if not content_hash(run):
        run_data(run)
    cache: list = []

    def work(name: str, part: Path) -> None:
        from .artifacts import save_row
        from .evaluate import evaluate

        cache.append(cache[0] if cache else run_data(run))
        dataset, splits = cache[0]
        begin = time.perf_counter()
        model = _counting_model(run, name, dataset, splits)
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


def _counting_model(run: Run, name: str, dataset, splits):
    if name == ORACLE:
        return _Oracle(dataset.world)
    if name == "SequentialRules":
        return _rules(run, dataset, splits)
    from .baselines import counting

    return getattr(counting, name).fit(splits, dataset.n_items)


class _Oracle:
    """The playground's best ranking, asked like any model."""

    def __init__(self, world):
        self.world = world

    def topk(self, prefixes, k: int):
        return self.world.oracle_topk(prefixes, k)


def run_results(run: Run) -> dict:
    """Gather the rows of all models in results.json and table2.md; returns what results.json holds.

    ``BadInput`` if a model of this release has no row yet.
    """
    from .report import write_results

    return write_results(run)
