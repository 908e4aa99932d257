"""``streamrec bench``: how fast the parts are, each as a ratio to a named alternative in one run.

Two variants take turns, and medians are compared: on shared machines the speed drifts by a factor
of two within minutes, so single times say little and ratios of neighbours say a lot.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from ..baselines.tiger import tiger_loss
from ..common.device import autocast, matmul_rate, pick_device, resolve_precision, seed_everything
from ..common.errors import BadInput, did_you_mean
from ..common.files import write_json
from ..common.schemas import PAD, Prefixes
from ..config.sections import BackboneConfig, EvalConfig
from ..config.training import TrainConfig
from ..data.sequences import length_batches
from ..inference.beam_search import beam_search
from ..model.backbone import Backbone
from ..model.sequences import history_tokens
from ..tokenizer.semantic_ids import SemanticTokenizer
from ..training.optim import make_optimizer, use_byte_dropout
from ..training.train_step import TrainStep
from .common import (
    Subject,
    as_transformers_t5,
    capture_all_shapes,
    clock,
    of_dataset,
    of_run,
    random_ids,
    take_turns,
)
from .neural import bench_sasrec
from .reinforcement import bench_sampling, bench_update
from .thinking import bench_annotate, bench_finetuning, bench_thinking

LARGE = BackboneConfig(d_model=128, d_ff=1024, num_layers=4, num_heads=6, d_kv=64, dropout=0.1)


def main(
    names: Sequence[str] = (),
    dataset: str | None = None,
    out: str | Path | None = None,
    run: str | Path | None = None,
) -> dict:
    """Run the named benchmarks (default: all), print a line for each figure, write JSON to ``out``.

    Args:
        names: of ``BENCHMARKS``.
        dataset: whose histories are used; default: a playground of 4,344 items.
        out: file for the figures.
        run: a finished run instead, with its histories, its semantic IDs and its trained models.
    """
    for name in names:
        if name not in BENCHMARKS:
            raise BadInput(f"benchmark {name!r}", "unknown benchmark", did_you_mean(name, BENCHMARKS))
    if run and dataset:
        raise BadInput("--dataset and --run", "a run has a data set of its own", "give one of them")
    device = pick_device()
    subject = of_run(run, device) if run else of_dataset(dataset, device)
    rates = {kind: matmul_rate(kind, device.type) / 1e9 for kind in ("float32", "bfloat16")}
    report: dict = {"device": str(device), "threads": torch.get_num_threads(), "dataset": subject.name}
    report |= {"matrix GFLOP/s": {kind: round(rate, 1) for kind, rate in rates.items()}}
    print(f"{device}, {report['threads']} threads, {subject.name}; matrix products: "
          + ", ".join(f"{kind} {rate:,.0f} GFLOP/s" for kind, rate in rates.items()))  # fmt: skip
    for name in names or BENCHMARKS:
        print(f"\n{name}: {(BENCHMARKS[name].__doc__ or '').splitlines()[0]}")
        report[name] = BENCHMARKS[name](subject)
        for key, value in report[name].items():
            print(f"  {key}: {value:,.4g}" if isinstance(value, float) else f"  {key}: {value}")
    if out:
        write_json(out, report)
    return report


def bench_beam(subject: Subject) -> dict:
    """Constrained beam of 20, users/s, against generate() with prefix_allowed_tokens_fn."""
    trie = _beam_against_generate("trie", subject)
    vocabulary = _beam_against_generate("vocabulary", subject)
    return trie | {f"{key}, softmax over the vocabulary": value for key, value in vocabulary.items()}


def _beam_against_generate(softmax: Literal["trie", "vocabulary"], subject: Subject) -> dict:
    """generate's ``renormalize_logits`` is the softmax over the trie, so both score alike either way."""
    splits, tokenizer, device = subject.splits, subject.tokenizer, subject.device
    seed_everything(0, "bench")
    sizes = BackboneConfig(softmax=softmax, recency_embeddings=0)
    model = Backbone(sizes, tokenizer.vocab_size).to(device).eval()
    t5 = as_transformers_t5(model).to(device).eval()
    rows = torch.randperm(splits.test.n_examples, generator=torch.Generator().manual_seed(0)).to(device)
    many, few = splits.test.select(rows[:1024]), splits.test.select(rows[:32])
    children: dict[tuple, set] = {}
    for row in tokenizer.tokens[:-1].tolist():
        for j in range(tokenizer.m):
            children.setdefault(tuple(row[:j]), set()).add(row[j])
    allowed = {prefix: sorted(codes) for prefix, codes in children.items()}

    def ours(users: Prefixes, beams=20):
        for at in length_batches(users.length, EvalConfig().batch_size, None):
            history = users.select(at).history
            answers = beam_search(model, tokenizer.trie, history_tokens(tokenizer.tokens, history), beams, 20)
        return answers

    def theirs(users: Prefixes):
        tokens = history_tokens(tokenizer.tokens, users.history)
        return t5.generate(
            input_ids=tokens, attention_mask=tokens != PAD, num_beams=20, num_return_sequences=20,
            do_sample=False, max_new_tokens=tokenizer.m, min_new_tokens=tokenizer.m, length_penalty=0.0,
            prefix_allowed_tokens_fn=lambda _, ids: allowed[tuple(ids.tolist()[1:])],
            renormalize_logits=softmax == "trie", return_dict_in_generate=True, output_scores=True,
        )  # fmt: skip

    tokens = history_tokens(tokenizer.tokens, few.history)
    mine, other = beam_search(model, tokenizer.trie, tokens, 20, 20), theirs(few)
    speed = take_turns(
        {"ours": lambda: 1024 / clock(lambda: ours(many), device),
         "generate": lambda: 32 / clock(lambda: theirs(few), device)}, 3,
    )  # fmt: skip
    same = tokenizer.items_of(other.sequences[:, 1:]).view_as(mine.item) == mine.item
    gap = (other.sequences_scores.view_as(mine.score) - mine.score).abs().max()
    return {
        "ours, users/s": speed["ours"],
        "generate, users/s": speed["generate"],
        "ratio": speed["ours"] / speed["generate"],
        "same beams": float(same.float().mean()),
        "largest difference of scores": float(gap),
    }


def training_flops(config: BackboneConfig, vocab: int, length: Tensor, m: int = 4) -> float:
    """Matrix FLOPs of forward and backward (three times forward) a sample, on average.

    Args:
        config: sizes of the model.
        vocab: V, tokens of the vocabulary.
        length: (B,) items of the histories.
        m: code levels.
    """
    d, inner, ff = config.d_model, config.num_heads * config.d_kv, config.d_ff
    s = length.double() * m
    encoder = s * (4 * d * inner + 2 * d * ff) + 2 * s * s * inner
    decoder = m * (6 * d * inner + 2 * d * ff) + s * 2 * d * inner + 2 * m * (m + s) * inner
    return float((3 * 2 * (config.num_layers * (encoder + decoder) + m * d * vocab)).mean())


def bench_training(subject: Subject) -> dict:
    """Training samples/s, against the same T5 padded to 20 items, float32, through a DataLoader."""
    from torch.utils.data import DataLoader

    seed_everything(0, "bench")
    tokenizer, device = subject.tokenizer, subject.device
    config, train = TrainConfig(), subject.splits.train
    model = use_byte_dropout(Backbone(LARGE, tokenizer.vocab_size), device).to(device).train()
    t5 = as_transformers_t5(Backbone(LARGE, tokenizer.vocab_size)).to(device).train()
    table, optimizer = tokenizer.tokens, make_optimizer(model, config)
    plain = torch.optim.AdamW(t5.parameters(), lr=1e-3)
    padded = table[train.history].flatten(1).cpu()
    pairs: Any = list(zip(padded, table[train.target].cpu(), strict=True))
    loader = iter(DataLoader(pairs, batch_size=256, shuffle=True))
    queue: list[Tensor] = []
    precision = resolve_precision(device, "auto")

    def loss(model, batch) -> dict[str, Tensor]:
        return {"loss": tiger_loss(model, tokenizer, batch, config)}

    step = TrainStep(model, loss, None, config, device, capture=True)
    capture_all_shapes(step, train, length_batches(train.length, 256, 0))

    def ours() -> float:  # 16 batches: enough that their lengths are those of an epoch
        nonlocal queue
        queue = queue if len(queue) >= 16 else length_batches(train.length, 256, len(queue))
        chosen, queue = queue[:16], queue[16:]

        def work():
            for at in chosen:
                step(train.select(at), ())
                optimizer.step()

        return sum(map(len, chosen)) / clock(work, device)

    def theirs() -> float:
        def work():
            tokens, labels = (x.to(device) for x in next(loader))
            loss = t5(input_ids=tokens, attention_mask=tokens != PAD, labels=labels).loss
            plain.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(t5.parameters(), config.max_grad_norm)
            plain.step()

        return 256 / clock(work, device)

    speed = take_turns({"ours": ours, "padded": theirs}, 4)
    flops = training_flops(LARGE, tokenizer.vocab_size, train.length, tokenizer.m)
    shares = {
        f"share of the {kind} matrix rate": speed["ours"] * flops / matmul_rate(kind, device.type)
        for kind in ("float32", "bfloat16")
    }
    return {
        "ours, samples/s": speed["ours"],
        "padded, samples/s": speed["padded"],
        "ratio": speed["ours"] / speed["padded"],
        "precision": precision,
        "MFLOP a sample": flops / 1e6,
        **shares,
    }


def bench_precision(subject: Subject) -> dict:
    """One training step in bfloat16 autocast against float32, and torch's dropout against ours."""
    seed_everything(0, "bench")
    splits, tokenizer, device = subject.splits, subject.tokenizer, subject.device
    batch = splits.train.select(length_batches(splits.train.length, 64, 0)[0])

    def variant(precision: str, quick: bool) -> Callable[[], float]:
        model = Backbone(BackboneConfig(), tokenizer.vocab_size).to(device).train()
        model = use_byte_dropout(model) if quick else model

        def step():
            with autocast(device, precision):
                loss = tiger_loss(model, tokenizer, batch, TrainConfig())
            loss.backward()
            model.zero_grad()

        return lambda: clock(step, device)

    seconds = take_turns(
        {"float32": variant("float32", True), "bfloat16": variant("bfloat16", True),
         "torch dropout": variant("float32", False)}, 5,
    )  # fmt: skip
    return {
        "float32 time / bfloat16 time": seconds["float32"] / seconds["bfloat16"],
        "torch dropout time / ours": seconds["torch dropout"] / seconds["float32"],
        "auto chooses": resolve_precision(device, "auto"),
    }


def bench_scale(subject: Subject) -> dict:
    """Time a user from 10,000 to 1,000,000 items, and what the trie of a million costs.

    Random IDs of a small catalogue differ after two codes, and the beam needs no decoder step for
    the rest: that is most of what the large one costs more.
    """
    seed_everything(0, "bench")
    device, rows = subject.device, EvalConfig().batch_size
    model = Backbone(BackboneConfig(), 3 + 4 * 256).to(device).eval()
    small = SemanticTokenizer.from_codes(random_ids(10_000), 256).to(device)
    many = random_ids(1_000_000)
    seconds = clock(lambda: SemanticTokenizer.from_codes(many, 256).trie, device)
    large = SemanticTokenizer.from_codes(many, 256).to(device)
    generator = torch.Generator().manual_seed(0)

    def users(tokenizer):
        history = torch.randint(0, tokenizer.n_items, (rows, 5), generator=generator).to(device)
        tokens = history_tokens(tokenizer.tokens, history)
        return lambda: clock(lambda: beam_search(model, tokenizer.trie, tokens, 20, 10), device) / rows

    speed = take_turns({"10k": users(small), "1M": users(large)}, 15)
    return {
        "ms a user, 10,000 items": 1e3 * speed["10k"],
        "ms a user, 1,000,000 items": 1e3 * speed["1M"],
        "ratio": speed["1M"] / speed["10k"],
        "trie of 1,000,000 items, s": seconds,
        "trie of 1,000,000 items, MiB": large.trie.nbytes / 2**20,
    }


BENCHMARKS: dict[str, Callable[[Subject], dict]] = {
    "beam": bench_beam,
    "training": bench_training,
    "precision": bench_precision,
    "scale": bench_scale,
    "annotate": bench_annotate,
    "thinking": bench_thinking,
    "finetuning": bench_finetuning,
    "sampling": bench_sampling,
    "update": bench_update,
    "sasrec": bench_sasrec,
}
