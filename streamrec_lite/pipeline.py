"""The stages of a run, one function each: skipped if done, loaded either way.

A notebook opens its run by ``open_run`` and calls its stage with one line; `streamrec reproduce`
(``reproduction.py``) executes the notebooks.
"""

from __future__ import annotations

import functools
import time
from pathlib import Path

from .runs import (
    ORACLE,
    Run,
    content_hash,
    counting_hash,
    counting_names,
    data_hash,
    embeddings_hash,
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
    "run_data",
    "run_embeddings",
    "run_neighbours",
    "run_pretrain",
    "run_results",
    "run_sft",
    "run_tiger",
    "run_tokenizer",
]


def run_data(run: Run, dataset=None):
    """Read the data set, or what the run keeps of it: ``(Dataset, Splits)`` on the CPU.

    ``dataset``: it, where the caller has read it already.
    """
    from .artifacts import read_dataset, save_dataset
    from .data.sequences import leave_one_out
    from .data.sources import load_dataset

    def work(part: Path) -> dict:
        nonlocal dataset
        dataset = dataset or load_dataset(run.config.dataset, run.config.data)
        return save_dataset(dataset, part)

    marker = run_stage(run.dir, "data", data_hash(run), work)
    dataset = dataset or read_dataset(run.dir / "data", run.config, marker["fingerprint"])
    return dataset, leave_one_out(dataset, run.config.data.max_history)


def run_embeddings(run: Run):
    """Item text to vectors: (N, d_w) float32."""
    import torch

    from .embeddings import embed_items
    from .runtime import read_tensors, write_tensors

    if not content_hash(run):
        run_data(run)

    def work(part: Path) -> None:
        vectors = embed_items(run_data(run)[0], run.config.embeddings, work_dir=part)
        write_tensors(part / "embeddings.safetensors", {"embeddings": torch.from_numpy(vectors)})

    run_stage(run.dir, "embeddings", embeddings_hash(run), work)
    return read_tensors(run.dir / "embeddings" / "embeddings.safetensors")[0]["embeddings"].numpy()


def run_tokenizer(run: Run):
    """Vectors to semantic IDs: a ``SemanticTokenizer`` on the CPU."""
    from .runtime import RunLog
    from .semantic_ids import SemanticTokenizer

    vectors = None if done(run.dir / "embeddings", embeddings_hash(run) or "-") else run_embeddings(run)

    def work(part: Path) -> None:
        (part / "log.jsonl").unlink(missing_ok=True)  # it starts anew, it takes a minute
        log = RunLog(part / "log.jsonl")
        given = run_embeddings(run) if vectors is None else vectors
        SemanticTokenizer.fit(given, run.config.tokenizer, log).save(part)

    run_stage(run.dir, "tokenizer", tokenizer_hash(run), work)
    return SemanticTokenizer.load(run.dir / "tokenizer")


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

    folder = tiger_dir(run, seed)
    run_stage(run.dir, folder.relative_to(run.dir).as_posix(), tiger_hash(run, seed), work)
    return {**read_json(folder / "row.json"), "dir": str(folder)}


def run_neighbours(run: Run):
    """The nearest items by text, nearest first: (N, pretrain.pool) int64 on the CPU."""
    import torch

    from .embeddings import similar_items

    return torch.from_numpy(similar_items(run_embeddings(run), run.config.pretrain.pool))


def run_pretrain(run: Run, seed: int = 0) -> dict:
    """Stage 1: the row of STREAM-Rec-PT (see ``run_tiger``), with "direct", what its direct decoder does."""
    if not done(run.dir / "tokenizer", tokenizer_hash(run) or "-"):
        run_tokenizer(run)

    def work(part: Path) -> None:
        from .pretrain import pretrain
        from .recommender import StreamRec

        tokenizer, (_, splits) = run_tokenizer(run), run_data(run)
        result = pretrain(splits, tokenizer, run_neighbours(run), run.config, seed, part, run.device)
        settings = {"beams": run.config.evaluate.beams, "device": run.device}
        direct = StreamRec(result.model, tokenizer, **settings)
        thoughts = run.config.pretrain.n_similar * tokenizer.m
        slow = StreamRec(result.model, tokenizer, l=thoughts, think="greedy", **settings)
        _keep_trained(run, result, slow, splits, part, direct=direct)

    folder = pretrain_dir(run, seed)
    run_stage(run.dir, folder.relative_to(run.dir).as_posix(), pretrain_hash(run, seed), work)
    return {**read_json(folder / "row.json"), "dir": str(folder)}


def run_sft(run: Run, seed: int = 0) -> dict:
    """Stage 2: the row of STREAM-Rec-SFT (see ``run_tiger``), with "guided", the state-guided scoring.

    The row says too how many thoughts it writes ("l"), the state's weight ("w") and validation by
    weight ("weights").
    """
    folder = pretrain_dir(run, seed)
    if not done(folder, pretrain_hash(run, seed) or "-"):
        run_pretrain(run, seed)

    def work(part: Path) -> None:
        from .backbone import Backbone
        from .optim import quicken_dropout
        from .recommender import StreamRec
        from .retrieval import choose_weight
        from .sft import finetune

        tokenizer, (_, splits) = run_tokenizer(run), run_data(run)
        model = quicken_dropout(Backbone.load(folder))
        l, beams = run.config.sft.l, run.config.evaluate.beams
        result = finetune(
            model, splits, tokenizer, run_neighbours(run), run.config, seed, part, device=run.device
        )
        ask = {"beams": beams, "l": l, "think": "greedy", "device": run.device}
        slow = StreamRec(result.model, tokenizer, **ask)
        users = splits.valid.to(run.device)
        w, weights = choose_weight(slow.model, slow.tokenizer, users, l, beams)
        guided = StreamRec(result.model, tokenizer, w=w, **ask)
        more = {"l": l, "w": w, "weights": weights}
        _keep_trained(run, result, slow, splits, part, more, guided=guided)

    name = sft_dir(run, seed).relative_to(run.dir).as_posix()
    run_stage(run.dir, name, sft_hash(run, seed), work)
    return {**read_json(sft_dir(run, seed) / "row.json"), "dir": str(sft_dir(run, seed))}


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
    """Rows of Popularity and Markov, and of the oracle on the playground, by name.

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
