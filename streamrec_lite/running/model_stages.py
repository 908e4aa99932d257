"""The stages of a run, one function each: skipped if done, loaded either way.

A notebook opens its run by ``open_run`` and calls its stage with one line; `streamrec reproduce`
(``reproduction.py``) executes the notebooks.
"""

from __future__ import annotations

import functools
from pathlib import Path

from .baseline_stages import run_baselines, run_mixture, run_neural, run_tuning
from .run import (
    CONTROLS,
    MIXED,
    Run,
    control_dir,
    control_hash,
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
from .shared_stages import row_of, run_data, run_embeddings, run_neighbours, run_tokenizer
from .store import done

__all__ = [
    "Run",
    "open_run",
    "run_baselines",
    "run_controls",
    "run_data",
    "run_embeddings",
    "run_grpo",
    "run_mixture",
    "run_neighbours",
    "run_neural",
    "run_pretrain",
    "run_results",
    "run_sft",
    "run_tiger",
    "run_tokenizer",
    "run_tuning",
]


def run_tiger(run: Run, seed: int = 0) -> dict:
    """Train and evaluate TIGER: its row of results.json, with ``dir``, where its files are."""
    if not done(run.dir / "tokenizer", tokenizer_hash(run) or "-"):
        run_tokenizer(run)

    def work(part: Path) -> None:
        from ..baselines.tiger import train_tiger
        from ..inference.recommender import StreamRec

        tokenizer, (_, splits) = run_tokenizer(run), run_data(run)
        result = train_tiger(splits, tokenizer, run.config, seed, part, run.device)
        model = StreamRec(result.model, tokenizer, beams=run.config.evaluate.beams, device=run.device)
        _keep_trained(run, result, model, splits, part)

    return row_of(run, tiger_dir(run, seed), tiger_hash(run, seed), work)


def run_pretrain(run: Run, seed: int = 0) -> dict:
    """Stage 1: the row of STREAM-Rec-PT (see ``run_tiger``), with "direct", what its direct decoder does."""
    if not done(run.dir / "tokenizer", tokenizer_hash(run) or "-"):
        run_tokenizer(run)

    def work(part: Path) -> None:
        from ..inference.recommender import StreamRec
        from ..training.pretrain import pretrain

        tokenizer, (_, splits) = run_tokenizer(run), run_data(run)
        result = pretrain(splits, tokenizer, run_neighbours(run), run.config, seed, part, run.device)
        settings = {"beams": run.config.evaluate.beams, "device": run.device}
        direct = StreamRec(result.model, tokenizer, **settings)
        thoughts = run.config.pretrain.n_similar * tokenizer.m
        slow = StreamRec(result.model, tokenizer, l=thoughts, think="greedy", **settings)
        _keep_trained(run, result, slow, splits, part, direct=direct)

    return row_of(run, pretrain_dir(run, seed), pretrain_hash(run, seed), work)


def run_sft(run: Run, seed: int = 0) -> dict:
    """Stage 2: the row of STREAM-Rec-SFT (see ``run_tiger``), with "guided", the state-guided scoring.

    The row says too how many thoughts it writes ("l"), the state's weight ("w"), validation by weight
    ("weights"), and what some test users get when it is asked in other ways ("question").
    """
    if not done(pretrain_dir(run, seed), pretrain_hash(run, seed) or "-"):
        run_pretrain(run, seed)

    def work(part: Path) -> None:
        from .thinking_study import ask_in_many_ways

        slow, result, splits = _finetuned(run, run.config, seed, part)
        question = ask_in_many_ways(slow, splits.test.to(run.device), bootstrap=run.config.evaluate.bootstrap)
        _keep_guided(run, result, slow, splits, part, {"question": question})

    return row_of(run, sft_dir(run, seed), sft_hash(run, seed), work)


def run_grpo(run: Run, seed: int = 0) -> dict:
    """Stage 3: the row of STREAM-Rec-RL, which says what that of ``run_sft`` says, but for the "question"."""
    if not done(sft_dir(run, seed), sft_hash(run, seed) or "-"):
        run_sft(run, seed)

    def work(part: Path) -> None:
        import torch

        from ..inference.recommender import StreamRec
        from ..model.backbone import Backbone
        from ..tokenizer.embeddings import similar_items
        from ..training.reinforce import reinforce

        tokenizer, (_, splits) = run_tokenizer(run), run_data(run)
        model, reference = Backbone.load(sft_dir(run, seed)), Backbone.load(pretrain_dir(run, seed))
        near = torch.from_numpy(similar_items(run_embeddings(run), run.config.grpo.K))
        result = reinforce(
            model, reference, splits, tokenizer, near, run.config, seed, part, device=run.device
        )
        l, beams = run.config.sft.l, run.config.evaluate.beams
        slow = StreamRec(result.model, tokenizer, beams, l=l, think="greedy", device=run.device)
        _keep_guided(run, result, slow, splits, part, {"best_block": result.best["epoch"]})

    return row_of(run, grpo_dir(run, seed), grpo_hash(run, seed), work)


def run_controls(run: Run, seed: int = 0) -> dict[str, dict]:
    """The rows of ``question.CONTROLS``, by name; nothing unless the run's ``sft.controls`` says "all"."""
    if run.config.sft.controls == "none":
        return {}

    def work(name: str, part: Path) -> None:
        from ..baselines.tiger import train_tiger
        from ..inference.recommender import StreamRec
        from .thinking_study import control_config

        config = control_config(run.config, name)
        if name in ("deep-tiger", "item-tiger"):
            tokenizer, (_, splits) = run_tokenizer(run), run_data(run)
            items = name == "item-tiger"
            result = train_tiger(splits, tokenizer, config, seed, part, run.device, items=items)
            fast = StreamRec(result.model, tokenizer, beams=config.evaluate.beams, device=run.device)
            _keep_trained(run, result, fast, splits, part)
            return
        slow, result, splits = _finetuned(run, config, seed, part)
        _keep_guided(run, result, slow, splits, part)

    return {
        name: row_of(
            run, control_dir(run, name, seed), control_hash(run, name, seed), functools.partial(work, name)
        )
        for name in CONTROLS
    }


def _finetuned(run: Run, config, seed: int, part: Path):
    """(StreamRec, Trained, Splits) of a fine-tuning by ``config``, which starts at the run's stage 1."""
    from ..inference.recommender import StreamRec
    from ..model.backbone import Backbone
    from ..training.finetune import finetune
    from ..training.optim import quicken_dropout

    tokenizer, (_, splits) = run_tokenizer(run), run_data(run)
    model = quicken_dropout(Backbone.load(pretrain_dir(run, seed)), run.device)
    neighbours = run_neighbours(run)
    result = finetune(model, splits, tokenizer, neighbours, config, seed, part, device=run.device)
    slow = StreamRec(
        result.model, tokenizer, config.evaluate.beams, l=config.sft.l, think="greedy", device=run.device
    )
    return slow, result, splits


def _keep_guided(run: Run, result, slow, splits, part: Path, more: dict | None = None) -> None:
    """Choose the state's weight on validation, and keep both ways to answer."""
    from ..inference.recommender import StreamRec
    from ..inference.state_guided import choose_weight

    users = splits.valid.to(run.device)
    w, weights = choose_weight(slow.model, slow.tokenizer, users, slow.l, slow.beams)
    guided = StreamRec(
        slow.model, slow.tokenizer, slow.beams, l=slow.l, think="greedy", w=w, device=run.device
    )
    more = {"l": slow.l, "w": w, "weights": weights, **(more or {})}
    _keep_trained(run, result, slow, splits, part, more, guided=guided)


def _keep_trained(run: Run, result, model, splits, part: Path, more: dict | None = None, **others) -> None:
    """Save a trained model with its row of results.json.

    ``more``: what else the row says. ``others``: further ways to ask the model, by name; their ranks
    are kept as "NAME test", like the first way's as "test".
    """
    from ..evaluation.evaluate import evaluate
    from .artifacts import save_row

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
        "ids": model.tokenizer.fingerprint(),
        **(more or {}),
    }
    for name, other in others.items():
        row[name], seen = asked(other)
        ranks |= {f"{name} {split}": values for split, values in seen.items()}
    save_row(part, row, ranks)


def run_results(run: Run) -> dict:
    """Gather the rows of all models in results.json and table2.md; returns what results.json holds.

    ``BadInput`` if a model of this release has no row yet.
    """
    from .results import check_rows, write_results

    check_rows(run)  # before minutes are spent on mixtures
    for stage in MIXED:
        for seed in run.seeds:
            run_mixture(run, stage, seed)
    return write_results(run)
