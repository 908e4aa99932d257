"""The benchmarks of thinking: annotating, answering after thoughts, and an epoch of fine-tuning."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor

from ..baselines.tiger import tiger_loss
from ..common.device import autocast, resolve_precision, seed_everything
from ..common.schemas import BOS, FIRST_CODE, Prefixes
from ..config.sections import BackboneConfig, EvalConfig
from ..config.training import SftConfig, TrainConfig
from ..data.sequences import iterate_batches, length_batches
from ..evaluation.metrics import rank_by_score
from ..inference.beam_search import beam_search
from ..inference.step_decoder import StepDecoder
from ..inference.thinking import think_and_answer
from ..model.backbone import Backbone
from ..model.item_representation import item_table
from ..model.item_vectors import ItemVectors
from ..model.sequences import history_tokens
from ..tokenizer.kmeans import nearest
from ..tokenizer.semantic_ids import SemanticTokenizer
from ..training.annotator import annotate, annotation_batch_size
from ..training.finetune_loss import finetune_loss
from ..training.optim import make_optimizer, use_byte_dropout
from ..training.train_step import TrainStep
from .common import Subject, capture_all_shapes, clock, take_turns

THOUGHTS = 4


def _fresh(subject: Subject) -> Backbone:
    """An untrained model with both decoders, at the lite preset's sizes for real data."""
    seed_everything(0, "bench")
    model = Backbone(
        BackboneConfig(), subject.tokenizer.vocab_size, ("direct", "thinking"), reads_answer_token=True
    )
    return model.to(subject.device).eval()


def _sample(prefixes: Prefixes, count: int) -> Prefixes:
    rows = torch.randperm(prefixes.n_examples, generator=torch.Generator().manual_seed(0))[:count]
    return prefixes.select(rows.to(prefixes.target.device))


@torch.inference_mode()
def annotate_from_the_start(
    model: Backbone, tokenizer: SemanticTokenizer, prefixes: Prefixes, l: int
) -> Tensor:
    """The thoughts of ``annotate``, without the key-value cache: the decoder runs from BOS at every step.

    Args:
        model: with a thinking decoder.
        tokenizer: gives the items' codes.
        prefixes: B examples.
        l: thoughts of each.

    Returns:
        (B, l) code tokens.
    """
    codes, table = model.shared.weight[FIRST_CODE:], item_table(model, tokenizer)
    thoughts = torch.empty(prefixes.n_examples, l, dtype=torch.long, device=prefixes.target.device)
    for rows, batch in iterate_batches(prefixes, annotation_batch_size(prefixes.target.device)):
        written = torch.full((batch.n_examples, 1), BOS, device=batch.target.device)
        states, mask = model.encode_history(tokenizer, batch.history)
        for _ in range(l + 1):
            s = model.states(model.decode(written, states, mask, "thinking"))[:, -1]
            rank_by_score(batch.target, s @ table.T)  # asked for at every step, as in ``annotate``
            thought = FIRST_CODE + nearest(model.residual_head(table[batch.target] - s), codes)
            written = torch.cat([written, thought[:, None]], dim=1)
        thoughts[rows] = written[:, 1 : l + 1]
    return thoughts


@torch.inference_mode()
def _decoder_alone(
    model: Backbone, tokenizer: SemanticTokenizer, prefixes: Prefixes, thought: Tensor, device: torch.device
) -> float:
    """How many times as fast the cached decoder reads l thoughts as one that starts anew at each."""
    read = torch.cat([torch.full_like(thought[:, :1], BOS), thought], dim=1)
    encoded = [
        (read[rows], *model.encode_history(tokenizer, batch.history))
        for rows, batch in iterate_batches(prefixes, annotation_batch_size(prefixes.target.device))
    ]

    def cached():
        for tokens, states, mask in encoded:
            stepper = StepDecoder(model, states, mask, "thinking")
            for token in tokens.T:
                stepper.step(token)

    def anew():
        for tokens, states, mask in encoded:
            for end in range(1, tokens.shape[1] + 1):
                model.decode(tokens[:, :end], states, mask, "thinking")

    seconds = take_turns({"cached": lambda: clock(cached, device), "anew": lambda: clock(anew, device)}, 7)
    return seconds["anew"] / seconds["cached"]


def bench_annotate(subject: Subject) -> dict:
    """Annotating l = 4 thoughts with the cache, prefixes/s, against the decoder from BOS at each step.

    Both ways share the encoder, the ranks and the search for the nearest code, which are most of the
    work; so the decoder alone has a ratio of its own.
    """
    tokenizer, device = subject.tokenizer, subject.device
    model = subject.trained.get("STREAM-Rec-SFT") or _fresh(subject)
    users = _sample(subject.splits.train, 1024)
    mine = annotate(model, tokenizer, users, THOUGHTS).thought
    same = mine == annotate_from_the_start(model, tokenizer, users, THOUGHTS)
    ways: dict[str, Callable] = {"cache": annotate, "anew": annotate_from_the_start}

    def speed_of(way: Callable) -> float:
        return users.n_examples / clock(lambda: way(model, tokenizer, users, THOUGHTS), device)

    speed = take_turns({name: functools.partial(speed_of, way) for name, way in ways.items()}, 3)
    return {
        "with the cache, prefixes/s": speed["cache"],
        "anew at each step, prefixes/s": speed["anew"],
        "ratio": speed["cache"] / speed["anew"],
        "ratio of the decoder alone": _decoder_alone(model, tokenizer, users, mine, device),
        "same thoughts": float(same.float().mean()),
    }


def bench_thinking(subject: Subject) -> dict:
    """Time a user of l = 4 greedy thoughts and a beam of 20, against the same beam without thoughts.

    With a run: its STREAM-Rec-SFT with and without thoughts, and its TIGER. An untrained model's beams
    go wherever chance sends them, and two decoders' to different parts of the trie, deeper or less
    deep: then much of the ratio is chance, too.
    """
    tokenizer, device = subject.tokenizer, subject.device
    slow = subject.trained.get("STREAM-Rec-SFT") or _fresh(subject)
    fast = subject.trained.get("TIGER", slow)
    users = _sample(subject.splits.test, 1024)

    def ask(answer: Callable[[Tensor], object]) -> float:
        def work():
            for at in length_batches(users.length, EvalConfig().batch_size, None):
                answer(history_tokens(tokenizer.tokens, users.select(at).history))

        return clock(work, device) / users.n_examples

    ways = {
        "at once": lambda tokens: beam_search(fast, tokenizer.trie, tokens, 20, 10),
        "no thoughts": lambda tokens: think_and_answer(slow, tokenizer.trie, tokens, 0, "greedy"),
        "thinking": lambda tokens: think_and_answer(slow, tokenizer.trie, tokens, THOUGHTS, "greedy"),
    }
    seconds = take_turns({name: functools.partial(ask, way) for name, way in ways.items()}, 7)
    return {
        "ms a user, at once": 1e3 * seconds["at once"],
        "ms a user, thinking decoder without thoughts": 1e3 * seconds["no thoughts"],
        "ms a user, after 4 thoughts": 1e3 * seconds["thinking"],
        "ratio": seconds["thinking"] / seconds["at once"],
        "ratio to the same decoder without thoughts": seconds["thinking"] / seconds["no thoughts"],
        "trained": bool(subject.trained),
    }


def bench_finetuning(subject: Subject) -> dict:
    """Time of a fine-tuning epoch, its share of annotation included, in TIGER epochs of the same sizes."""
    tokenizer, device = subject.tokenizer, subject.device
    tiger, model = _fresh(subject), _fresh(subject)
    model.item_vectors = ItemVectors.of(tokenizer, model.config.d_model, in_answer_logits=True)  # as in SFT
    config, train = SftConfig(), subject.splits.train
    for each in (tiger, model):
        use_byte_dropout(each, device).train()
    optimizers = {each: make_optimizer(each, config) for each in (tiger, model)}
    batches = length_batches(train.length, config.batch_size, 0)[:24]
    users = _sample(train, 1024)
    nearby = torch.randint(0, tokenizer.n_items, (tokenizer.n_items, config.similar_pool), device=device)

    def fast(model: Backbone, batch: Prefixes) -> dict[str, Tensor]:
        return {"loss": tiger_loss(model, tokenizer, batch, TrainConfig())}

    def slow(model: Backbone, batch: Prefixes) -> dict[str, Tensor]:
        shape = (batch.n_examples, config.l)
        thought = torch.randint(FIRST_CODE, tokenizer.vocab_size, shape, device=batch.target.device)
        rejected, reference = (
            batch.target.flip(0),
            torch.zeros(batch.n_examples, 2, device=batch.target.device),
        )
        return finetune_loss(model, tokenizer, batch, thought, rejected, reference, nearby, config)

    steps = {tiger: TrainStep(tiger, fast, None, config, device, capture=True)}
    steps[model] = TrainStep(model, slow, None, config, device, capture=True)
    for step in steps.values():
        capture_all_shapes(step, train, batches)

    def timed(learner: Backbone) -> float:
        def work():
            for at in batches:
                steps[learner](train.select(at), ())
                optimizers[learner].step()

        return clock(work, device) / sum(map(len, batches))

    def annotating() -> float:
        with autocast(device, config.precision):
            seconds = clock(lambda: annotate(model, tokenizer, users, config.l), device) / users.n_examples
        model.train()
        return seconds

    seconds = take_turns(
        {
            "TIGER": lambda: timed(tiger),
            "fine-tuning": lambda: timed(model),
            "annotating": annotating,
        },
        4,
    )
    epoch = seconds["fine-tuning"] + seconds["annotating"] / config.epochs_per_round
    return {
        "TIGER, samples/s": 1 / seconds["TIGER"],
        "fine-tuning, samples/s": 1 / seconds["fine-tuning"],
        "annotating, prefixes/s": 1 / seconds["annotating"],
        "precision": resolve_precision(device, "auto"),
        "ratio": epoch / seconds["TIGER"],
    }
