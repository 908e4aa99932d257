"""What is timed: whose histories, which semantic IDs, and models where some are trained."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ..common.errors import BadInput
from ..common.files import read_json
from ..common.schemas import Splits
from ..common.store import DONE
from ..config.sections import DataConfig, EmbeddingConfig
from ..config.settings import Config, config_of
from ..data.saved import read_dataset
from ..data.sequences import leave_one_out
from ..data.sources import load_dataset
from ..inference.recommender import StreamRec
from ..model.backbone import Backbone
from ..tokenizer.collisions import repair_collisions
from ..tokenizer.embeddings import embed_items
from ..tokenizer.kmeans import kmeans, nearest
from ..tokenizer.semantic_ids import SemanticTokenizer

ITEMS = 4_344  # of the catalogue that the beam is timed on, as many as scientific-2018 has


class Subject(NamedTuple):
    """What the benchmarks are about. Without a run nothing is trained, and IDs are quickly made."""

    name: str
    splits: Splits  # on the device
    tokenizer: SemanticTokenizer  # on the device
    device: torch.device
    trained: dict[str, Backbone]  # TIGER and STREAM-Rec-SFT of a run, in ``eval`` mode, or nothing


def of_dataset(spec: str | None, device: torch.device) -> Subject:
    """A data set, by default a playground of ``ITEMS`` items, with IDs of its text."""
    config = DataConfig(playground_items=ITEMS, playground_users=4_000)
    data = load_dataset(spec or "playground", config)
    tokenizer = SemanticTokenizer.from_codes(text_ids(data), 256).to(device)
    return Subject(data.name, leave_one_out(data, config.max_history, device), tokenizer, device, {})


def of_run(folder: str | Path, device: torch.device) -> Subject:
    """A run with its IDs, and its models of the smallest seed that has both."""
    folder = Path(folder)
    config = Config.from_dict(config_of(read_json(folder / "config.json")))
    seeds = [int(path.parent.name.removeprefix("seed-")) for path in folder.glob("sft/seed-*/model.json")]
    if not seeds:
        rule = "it has no fine-tuned model to time"
        raise BadInput(str(folder), rule, "run `streamrec reproduce` for it, or give --dataset")
    models = {
        name: StreamRec.load(folder, min(seeds), name, device=device) for name in ("TIGER", "STREAM-Rec-SFT")
    }
    data = read_dataset(folder / "data", config, read_json(folder / "data" / DONE)["fingerprint"])
    splits = leave_one_out(data, config.data.max_history, device)
    tokenizer = models["TIGER"].tokenizer
    trained = {name: model.model.eval() for name, model in models.items()}
    return Subject(data.name, splits, tokenizer, device, trained)


def random_ids(n: int, m: int = 4, K: int = 256, seed: int = 0) -> Tensor:
    """n different semantic IDs (n, m), drawn evenly: the widest tree, and the least like real text."""
    generator = torch.Generator().manual_seed(seed)
    numbers = torch.randint(0, K**m, (n + n // 2 + 16,), generator=generator).unique()
    numbers = numbers[torch.randperm(len(numbers), generator=generator)[:n]]
    return torch.stack([numbers // K**j % K for j in reversed(range(m))], dim=1)


def text_ids(data) -> Tensor:
    """Semantic IDs (N, 4) of a catalogue's text: TF-IDF, then plain residual k-means; takes seconds."""
    config = EmbeddingConfig(model="tfidf")
    latents = torch.from_numpy(embed_items(data, config, progress=False))
    residual, books, codes = latents, [], []
    for level in range(4):
        books.append(kmeans(residual, 256, seed=level))
        codes.append(nearest(residual, books[-1]))
        residual = residual - books[-1][codes[-1]]
    return repair_collisions(torch.stack(codes, dim=1), latents, books)
