"""What the stages do that every model builds on: data, embeddings, tokenizer (see ``stage_table``)."""

from __future__ import annotations

import torch

from ..common.errors import BadInput
from ..common.files import RunLog, write_tensors
from ..common.store import BRANCH_REMEDY, done
from ..data.dataset import MIN_LENGTH
from ..data.saved import save_dataset
from ..tokenizer.embeddings import embed_items
from ..tokenizer.semantic_ids import SemanticTokenizer
from .stages import Work, run_data, run_embeddings


def read_data(work: Work) -> dict:
    """Read the data set and keep it; ``BadInput`` where the finished stages are of another content."""
    run, _, _, part = work
    dataset = run.source
    if max(map(len, dataset.sequences)) <= MIN_LENGTH:
        rule = "two are held out and the first has no history, so nothing is left to learn from"
        value = f"{dataset.name}: no user has more than {MIN_LENGTH} interactions"
        raise BadInput(value, rule, "bring longer histories")
    before = done(run.folder("data")).get("fingerprint")
    if before not in (None, dataset.fingerprint()):
        raise BadInput(str(run.dir), "the data have changed since its stages were finished", BRANCH_REMEDY)
    return save_dataset(dataset, part)


def embed(work: Work) -> None:
    """Item text to vectors, kept as embeddings.safetensors: (N, d_w) float32."""
    run, _, _, part = work
    vectors = embed_items(run_data(run)[0], run.config.embeddings, work_dir=part)
    write_tensors(part / "embeddings.safetensors", {"embeddings": torch.from_numpy(vectors)})


def fit_tokenizer(work: Work) -> None:
    """Vectors to semantic IDs. It takes a minute, so that a killed one starts anew."""
    run, _, _, part = work
    (part / "log.jsonl").unlink(missing_ok=True)
    log = RunLog(part / "log.jsonl")
    SemanticTokenizer.fit(run_embeddings(run), run.config.tokenizer, log).save(part)
