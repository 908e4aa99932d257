"""The benchmarks of reinforcement: sampling rollouts, and one update with all its rewards."""

from __future__ import annotations

import copy
import dataclasses

import torch

from ..common.device import autocast, resolve_precision, seed_everything
from ..common.schemas import PAD, Prefixes
from ..config.reinforcement import GrpoConfig
from ..config.sections import BackboneConfig
from ..model.backbone import Backbone
from ..model.sequences import history_tokens
from ..tokenizer.semantic_ids import SemanticTokenizer
from ..training.grpo import rollout_log_probs, sample_rollouts
from ..training.optim import make_optimizer
from ..training.rollout_batch import collect_rollouts, update_losses
from .common import Subject, as_transformers_t5, clock, take_turns

THOUGHTS, USERS = 4, 32


def _setting(
    subject: Subject, users: int = USERS
) -> tuple[Backbone, SemanticTokenizer, Prefixes, torch.device]:
    """A model with both decoders at the lite preset's sizes, and users to ask about: those of one update."""
    seed_everything(0, "bench")
    tokenizer, train, device = subject.tokenizer, subject.splits.train, subject.device
    sizes = BackboneConfig(recency_embeddings=0)  # transformers' T5 has none
    model = Backbone(sizes, tokenizer.vocab_size, ("direct", "thinking")).to(device).eval()
    rows = torch.randperm(train.n_examples, generator=torch.Generator().manual_seed(0))[:users]
    return model, tokenizer, train.select(rows.to(device)), device


def bench_sampling(subject: Subject) -> dict:
    """Rollouts, 16 a user, l = 4 thoughts and m codes, tokens/s, against generate(do_sample=True).

    generate samples freely; ours draws answers from the trie, which is more work. "ratio" is ours in the
    precision that stage 3 writes rollouts in here (``grpo.rollout_precision``) to generate in the one that
    is the faster for it; then both in float32.
    """
    precision = resolve_precision(subject.device, GrpoConfig().rollout_precision)
    report: dict = {"precision": precision}
    for users, note in ((USERS, ""), (4 * USERS, f", {4 * USERS} users at once")):
        speed = _sampling_speed(subject, users)
        report |= {f"{name}, tokens/s{note}": value for name, value in speed.items()}
        theirs = max(speed["generate in float32"], speed["generate in bfloat16"])
        report[f"ratio{note}"] = speed[f"ours in {precision}"] / theirs
        report[f"ratio in float32{note}"] = speed["ours in float32"] / speed["generate in float32"]
    return report


def _sampling_speed(subject: Subject, users: int) -> dict[str, float]:
    """Tokens/s of both ways in both precisions, for so many users drawn at random."""
    model, tokenizer, some, device = _setting(subject, users)
    t5 = as_transformers_t5(model, "thinking").to(device).eval()
    G, length = GrpoConfig().G, THOUGHTS + tokenizer.m
    tokens = history_tokens(tokenizer.tokens, some.history)

    def ours():
        sample_rollouts(model, tokenizer, *model.encode(tokens), THOUGHTS, G)

    def theirs():
        t5.generate(
            input_ids=tokens, attention_mask=tokens != PAD, do_sample=True, top_k=0,
            num_return_sequences=G, max_new_tokens=length, min_new_tokens=length,
        )  # fmt: skip

    def speed(work, precision: str, times: int = 1) -> float:
        with torch.no_grad(), autocast(device, precision):
            return users * G * length / clock(work, device, times)

    ways = {  # a turn of either takes about as long
        "ours in float32": lambda: speed(ours, "float32", 5),
        "generate in float32": lambda: speed(theirs, "float32"),
        "ours in bfloat16": lambda: speed(ours, "bfloat16", 5),
        "generate in bfloat16": lambda: speed(theirs, "bfloat16"),
    }
    return take_turns(ways, 7)


def _alike(tokenizer: SemanticTokenizer, items: torch.Tensor, k: int) -> torch.Tensor:
    """The k items that share most codes with each item, the first levels weighing most: (B, k)."""
    weight = 2.0 ** -torch.arange(tokenizer.m, device=items.device)
    codes = tokenizer.codes.to(items.device)
    shared = ((codes[items][:, None] == codes) * weight).sum(-1)
    return shared.scatter(1, items[:, None], -1.0).topk(k, dim=1).indices


def bench_update(subject: Subject) -> dict:
    """One GRPO update of 32 users x 16 rollouts, all rewards included, in passes of the policy.

    A pass is the policy's own forward and backward on the same tokens. Both learn in ``grpo.precision``, and
    rollouts are written and judged in ``grpo.rollout_precision``, by default. With a run the policy is its
    fine-tuned model, as at the beginning of stage 3: of 50 negatives most are soon seen to lie below the
    target. An untrained one gives them all alike.
    """
    model, tokenizer, users, device = _setting(subject)
    report: dict = {"precision": resolve_precision(device, GrpoConfig().precision)}
    tuned = subject.trained.get("STREAM-Rec-SFT")
    ways = {"": tuned, ", untrained": model} if tuned else {"": model}
    for note, policy in ways.items():
        seconds = _update_seconds(copy.deepcopy(policy), tokenizer, users, device)
        report[f"ms an update{note}"] = 1e3 * seconds["update"]
        report[f"ms a forward and backward pass{note}"] = 1e3 * seconds["pass"]
        report[f"ratio{note}"] = seconds["update"] / seconds["pass"]
    return report | {"trained": tuned is not None}


def _update_seconds(
    model: Backbone, tokenizer: SemanticTokenizer, users: Prefixes, device: torch.device
) -> dict[str, float]:
    """Seconds of an update and of a pass; negatives share codes with the target, as similar text does."""
    config, start = GrpoConfig(), copy.deepcopy(model).requires_grad_(False)
    optimizer = make_optimizer(model, dataclasses.replace(config, lr=0.0))
    reference = torch.zeros(users.n_examples, device=device)
    near = _alike(tokenizer, users.target, config.K)
    histories = history_tokens(tokenizer.tokens, users.history)
    found = collect_rollouts(model, start, tokenizer, users, reference, near, THOUGHTS, config)

    def update():
        with autocast(device, config.precision):
            encoded = model.encode(histories)
            found = collect_rollouts(
                model, start, tokenizer, users, reference, near, THOUGHTS, config, encoded
            )
            loss = update_losses(model, tokenizer, users, found, config, encoded)["loss"]
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.max_grad_norm)
        optimizer.step()

    def passes():
        with autocast(device, config.precision):
            states, mask = model.encode(histories)
            log_prob = rollout_log_probs(model, tokenizer, states, mask, found.rollouts)
        optimizer.zero_grad(set_to_none=True)
        log_prob.mean().backward()

    return take_turns({"update": lambda: clock(update, device), "pass": lambda: clock(passes, device)}, 7)
