"""What all benchmarks share: what is timed, how it is timed, and the T5 of transformers to compare with."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..common.errors import BadInput
from ..common.files import read_json
from ..common.schemas import BOS, PAD, Prefixes, Splits
from ..common.store import DONE
from ..config.sections import DataConfig, EmbeddingConfig
from ..config.settings import Config, config_of
from ..data.dataset import Dataset
from ..data.saved import read_dataset
from ..data.sequences import split_examples
from ..data.sources import load_dataset
from ..inference.recommender import StreamRec
from ..model.backbone import Backbone
from ..tokenizer.collisions import repair_collisions
from ..tokenizer.embeddings import embed_items
from ..tokenizer.kmeans import kmeans, nearest
from ..tokenizer.semantic_ids import SemanticTokenizer
from ..training.train_step import EAGER_STEPS, TrainStep

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
    return Subject(data.name, split_examples(data, config.max_history, device), tokenizer, device, {})


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
    splits = split_examples(data, config.data.max_history, device)
    tokenizer = models["TIGER"].tokenizer
    trained = {name: model.model.eval() for name, model in models.items()}
    return Subject(data.name, splits, tokenizer, device, trained)


def random_ids(n: int, m: int = 4, K: int = 256, seed: int = 0) -> Tensor:
    """n different semantic IDs, drawn evenly: the widest trie, and the least like that of real text.

    Args:
        n: items.
        m: code levels.
        K: codes a level.
        seed: of the draw.

    Returns:
        (n, m) int64.
    """
    generator = torch.Generator().manual_seed(seed)
    numbers = torch.randint(0, K**m, (n + n // 2 + 16,), generator=generator).unique()
    numbers = numbers[torch.randperm(len(numbers), generator=generator)[:n]]
    return torch.stack([numbers // K**j % K for j in reversed(range(m))], dim=1)


def text_ids(data: Dataset) -> Tensor:
    """Semantic IDs (N, 4) of a catalogue's text: TF-IDF, then plain residual k-means; takes seconds."""
    config = EmbeddingConfig(model="tfidf")
    latents = torch.from_numpy(embed_items(data, config, progress=False))
    residual, books, codes = latents, [], []
    for level in range(4):
        books.append(kmeans(residual, 256, seed=level))
        codes.append(nearest(residual, books[-1]))
        residual = residual - books[-1][codes[-1]]
    return repair_collisions(torch.stack(codes, dim=1), latents, books)


def take_turns(variants: dict[str, Callable[[], float]], rounds: int) -> dict[str, float]:
    """The median of what each variant returns, called in turn after one warm-up round.

    On shared machines the speed drifts by a factor of two within minutes, so single times say little and
    ratios of neighbours say a lot.
    """
    for run in variants.values():
        run()
    seen: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(rounds):
        for name, run in variants.items():
            seen[name].append(run())
    return {name: statistics.median(values) for name, values in seen.items()}


def clock(work: Callable[[], object], device: torch.device, times: int = 1) -> float:
    """Seconds of one call, the mean of ``times`` in a row."""
    start = time.perf_counter()
    for _ in range(times):
        work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / times


def capture_all_shapes(step: TrainStep, train: Prefixes, batches: list[Tensor]) -> None:
    """On a GPU: capture the step for every shape of batch beforehand, so that capturing is not timed."""
    if step.capture:
        for at in {(len(at), int(train.length[at].max())): at for at in batches}.values():
            for _ in range(EAGER_STEPS + 1):
                step(train.select(at), ())


def as_transformers_t5(model: Backbone, decoder: str = "direct") -> Any:
    """``T5ForConditionalGeneration`` with the weights of ``model`` and one of its decoders."""
    from transformers import T5Config, T5ForConditionalGeneration

    sizes: dict[str, Any] = {
        k: v
        for k, v in vars(model.config).items()
        if k not in ("dropout", "softmax", "recency_embeddings", "decoder_layers")
    }
    fixed: dict[str, Any] = {
        "vocab_size": model.vocab_size,
        "dropout_rate": model.config.dropout,
        "pad_token_id": PAD,
        "decoder_start_token_id": BOS,
        "eos_token_id": None,
    }
    t5 = T5ForConditionalGeneration(T5Config(**fixed, **sizes))
    state = {"shared.weight": model.shared.weight}
    state |= {f"encoder.{k}": v for k, v in model.encoder.state_dict().items()}
    state |= {f"decoder.{k}": v for k, v in model.decoders[decoder].state_dict().items()}
    t5.load_state_dict(state, strict=False)
    return t5
