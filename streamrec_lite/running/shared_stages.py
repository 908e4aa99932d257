"""The stages that every model builds on: data, embeddings, tokenizer. Skipped if done, loaded either way."""

from __future__ import annotations

from pathlib import Path

from ..common.errors import BadInput
from ..common.files import read_json
from .run import Run, content_hash, data_hash, embeddings_hash, tokenizer_hash
from .store import done, run_stage


def run_data(run: Run, dataset=None):
    """Read the data set, or what the run keeps of it: ``(Dataset, Splits)`` on the CPU.

    ``dataset``: it, where the caller has read it already.
    """
    from ..data.dataset import MIN_LENGTH
    from ..data.sequences import leave_one_out
    from ..data.sources import load_dataset
    from .artifacts import read_dataset, save_dataset

    def work(part: Path) -> dict:
        nonlocal dataset
        dataset = dataset or load_dataset(run.config.dataset, run.config.data)
        if max(map(len, dataset.sequences)) <= MIN_LENGTH:
            rule = "two are held out and the first has no history, so nothing is left to learn from"
            value = f"{dataset.name}: no user has more than {MIN_LENGTH} interactions"
            raise BadInput(value, rule, "bring longer histories")
        return save_dataset(dataset, part)

    marker = run_stage(run.dir, "data", data_hash(run), work)
    dataset = dataset or read_dataset(run.dir / "data", run.config, marker["fingerprint"])
    return dataset, leave_one_out(dataset, run.config.data.max_history)


def run_embeddings(run: Run):
    """Item text to vectors: (N, d_w) float32."""
    import torch

    from ..common.files import read_tensors, write_tensors
    from ..tokenizer.embeddings import embed_items

    if not content_hash(run):
        run_data(run)

    def work(part: Path) -> None:
        vectors = embed_items(run_data(run)[0], run.config.embeddings, work_dir=part)
        write_tensors(part / "embeddings.safetensors", {"embeddings": torch.from_numpy(vectors)})

    run_stage(run.dir, "embeddings", embeddings_hash(run), work)
    return read_tensors(run.dir / "embeddings" / "embeddings.safetensors")[0]["embeddings"].numpy()


def run_tokenizer(run: Run):
    """Vectors to semantic IDs: a ``SemanticTokenizer`` on the CPU."""
    from ..common.files import RunLog
    from ..tokenizer.semantic_ids import SemanticTokenizer

    vectors = None if done(run.dir / "embeddings", embeddings_hash(run) or "-") else run_embeddings(run)

    def work(part: Path) -> None:
        (part / "log.jsonl").unlink(missing_ok=True)  # it starts anew, it takes a minute
        log = RunLog(part / "log.jsonl")
        given = run_embeddings(run) if vectors is None else vectors
        SemanticTokenizer.fit(given, run.config.tokenizer, log).save(part)

    run_stage(run.dir, "tokenizer", tokenizer_hash(run), work)
    return SemanticTokenizer.load(run.dir / "tokenizer")


def run_neighbours(run: Run):
    """The nearest items by text, nearest first: (N, pretrain.pool) int64 on the CPU."""
    import torch

    from ..tokenizer.embeddings import similar_items

    return torch.from_numpy(similar_items(run_embeddings(run), run.config.pretrain.pool))


def row_of(run, folder: Path, hash_: str | None, work) -> dict:
    """Do a stage whose folder keeps a row of results.json; returns the row, with "dir"."""
    run_stage(run.dir, folder.relative_to(run.dir).as_posix(), hash_, work)
    return {**read_json(folder / "row.json"), "dir": str(folder)}
