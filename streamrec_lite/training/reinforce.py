"""Stage 3, the run: write rollouts, judge them, update; never end below the fine-tuned model.

Dropout is off throughout: the policy that is updated is the one that wrote the rollouts, and a ratio
(eq. 20) starts at exactly 1. Validation N@10 is watched from before the first update.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ..common.device import autocast, derive_seed
from ..common.errors import BadInput
from ..common.files import read_tensors, write_json, write_tensors
from ..common.schemas import Prefixes
from ..config.training import GrpoConfig
from ..inference.beam_search import answer_beams, answer_log_probs, item_log_probs
from ..inference.recommender import StreamRec
from ..inference.step_decoder import StepDecoder
from ..model.backbone import Backbone, answer_inputs, history_tokens
from ..model.item_representation import targets
from ..tokenizer.semantic_ids import SemanticTokenizer
from .dpo import reference_log_probs
from .finetune import check_model
from .grpo import Rollouts, combine, credit, grpo_loss, rollout_log_probs, write_rollouts
from .loop import Guard, Hooks, Task, Trained, TrainingJob, train
from .rewards import (
    NAMES,
    format_reward,
    likelihood_reward,
    match_reward,
    ranking_reward,
    reciprocal_reward,
    similarity_reward,
)

WATCHED = 24  # users whose rollouts are written down before every block


@torch.no_grad()
def judge(
    model: Backbone,
    tokenizer,
    batch: Prefixes,
    rollouts: Rollouts,
    after: StepDecoder,
    reference: Tensor,
    negatives: Tensor,
    config: GrpoConfig,
) -> dict[str, Tensor]:
    """Every reward of each rollout, unweighted: name -> (R,). One with weight 0 that is costly is left out.

    Args:
        after: the decoder as it was after the thoughts.
        reference: (B,) log pi_ref of the targets.
        negatives: (B, K) items of similar text.
    """
    user, target = rollouts.user, batch.target[rollouts.user]
    with torch.autocast(target.device.type, enabled=False):
        alike = similarity_reward(rollouts.state, targets(model, tokenizer, batch.target), user)
    parts = {
        "format": format_reward(rollouts.item),
        "match": match_reward(rollouts.answer, tokenizer.tokens[target]),
        "similarity": alike,
    }
    if config.ranking_weight > 0 or config.likelihood_weight > 0:
        own = item_log_probs(after.copy(), tokenizer, rollouts.hidden, target[:, None])[:, 0]
        parts["likelihood"] = likelihood_reward(own, reference[user], config.likelihood_bound)
        if config.ranking_weight > 0:  # only items above the target count: the others stop early
            others = item_log_probs(after.copy(), tokenizer, rollouts.hidden, negatives[user], own)
            parts["ranking"] = ranking_reward(own, others)
    if config.reciprocal_weight > 0:
        found = answer_beams(after.copy(), tokenizer.trie, rollouts.hidden, 10, 10)
        parts["reciprocal"] = reciprocal_reward(found.item, target)
    return parts


Encoded = tuple[Tensor, Tensor | None]  # states (B, S, d) and mask (B, S)


class Collected(NamedTuple):
    """A batch of rollouts with all that updates on it want to know."""

    rollouts: Rollouts
    rewards: dict[str, Tensor]  # unweighted, (R,) each
    anchor: Tensor  # (R, l + m) log-probabilities under the fine-tuned model, for the KL term
    old: Tensor | None  # (R, l + m) under the policy that wrote; None: it is the one that is updated


@torch.no_grad()
def collect(
    model: Backbone,
    start: Backbone,
    tokenizer,
    batch: Prefixes,
    reference: Tensor,
    negatives: Tensor,
    l: int,
    config: GrpoConfig,
    encoded: Encoded | None = None,
) -> Collected:
    """Let ``model`` write G rollouts for each user of ``batch``, and judge them; see ``judge``.

    Both in ``config.rollout_precision``: which rollouts are drawn is chance anyway. Log-probabilities that
    are compared with each other are not read off there, but from teacher-forced passes of one precision.

    ``start``: the fine-tuned model that the KL term refers to. ``encoded``: what ``model.encode`` made of
    the histories, where the caller has it.
    """
    tokens, tau = history_tokens(tokenizer.tokens, batch.history), config.temperature
    states, mask = encoded or model.encode(tokens)
    with autocast(tokens.device, config.rollout_precision):
        rollouts, after = write_rollouts(model, tokenizer, states, mask, l, config.G, tau)
        rewards = judge(model, tokenizer, batch, rollouts, after, reference, negatives, config)
    anchor = rollout_log_probs(start, tokenizer, *start.encode(tokens), rollouts, tau, entropy=False)[0]
    old = None
    if config.updates_per_batch > 1:
        old = rollout_log_probs(model, tokenizer, states, mask, rollouts, tau, entropy=False)[0]
    return Collected(rollouts, rewards, anchor, old)


def update_losses(
    model: Backbone,
    tokenizer,
    batch: Prefixes,
    found: Collected,
    config: GrpoConfig,
    encoded: Encoded | None = None,
) -> dict[str, Tensor]:
    """The loss of one update on collected rollouts (eq. 20), and what the log says of it.

    ``encoded``: what ``model.encode`` made of the histories, with gradients, where the caller has it.
    """
    states, mask = encoded or model.encode_history(tokenizer, batch.history)
    log_prob, entropy = rollout_log_probs(model, tokenizer, states, mask, found.rollouts, config.temperature)
    rollouts, weights = found.rollouts, weights_of(config)
    l, m = rollouts.thought.shape[1], rollouts.answer.shape[1]
    advantage = credit(found.rewards, weights, l, m, config.G, config.reward_order, config.credit_assignment)
    old = log_prob.detach() if found.old is None else found.old
    losses = grpo_loss(log_prob, old, found.anchor, advantage, config.epsilon, config.beta)
    if config.target_likelihood_weight > 0:
        answer = target_cost(model, tokenizer, batch, states, mask, rollouts, config)
        losses |= {
            "loss": losses["loss"] + config.target_likelihood_weight * answer,
            "answer": answer.detach(),
        }
    spread = {"advantage std": advantage.std(correction=0), "entropy": entropy.detach().mean()}
    return {**losses, **spread, **describe_rewards(found.rewards, config)}


def target_cost(
    model: Backbone, tokenizer, batch: Prefixes, states: Tensor, mask: Tensor | None, rollouts, config
) -> Tensor:
    """Mean of -log P(c_j | c_<j, thoughts, history) of the targets, after a quarter of the thoughts written.

    The expected likelihood reward (eq. 26) depends on the weights in two ways: through which thoughts are
    written, and through what the target's probability is after them. GRPO takes rewards for constants
    and follows the first way alone; this is the second one (ours).
    """
    few = max(1, config.G // 4)
    thought = rollouts.thought.view(batch.n_examples, config.G, -1)[:, :few].flatten(0, 1)
    items = batch.target.repeat_interleave(few)
    inputs = answer_inputs(model, thought, tokenizer.tokens[items])
    hidden = model.decode_groups(inputs, model.cross(states, "thinking", mask), mask)
    return -answer_log_probs(model, tokenizer, hidden[:, -tokenizer.m :], items, config.temperature).mean()


def weights_of(config: GrpoConfig) -> dict[str, float]:
    """The weight of each reward, by name."""
    return {name: getattr(config, f"{name}_weight") for name in NAMES}


def describe_rewards(parts: dict[str, Tensor], config: GrpoConfig) -> dict[str, Tensor]:
    """What the log says: each reward raw and weighted, the total, and how many groups teach nothing."""
    weights, G = weights_of(config), config.G
    total = sum(weights[name] * value for name, value in parts.items())
    groups = total.view(-1, G)
    spread = groups.max(dim=1).values - groups.min(dim=1).values
    log = {f"reward {name}": value.mean() for name, value in parts.items()}
    log |= {f"weighted {name}": weights[name] * value.mean() for name, value in parts.items()}
    log |= {f"reward {name} std": value.std(correction=0) for name, value in parts.items()}
    return log | {
        "reward": total.mean(),
        "reward std": total.std(correction=0),
        "frac_reward_zero_std": (spread == 0).float().mean(),
        "invalid": (parts["format"] < 0).float().mean(),
        "match depth": parts["match"].mean(),
    }


def reinforce(
    model: Backbone,
    reference: Backbone,
    job: TrainingJob,
    tokenizer: SemanticTokenizer,
    neighbours: Tensor,
) -> Trained:
    """Reinforce the fine-tuned ``model`` by ``loop.train``, where a block of updates is an epoch.

    ``model`` is changed in place. What comes back has the best validation N@10 of all blocks that are
    better than the fine-tuned model by more than luck (``grpo.min_gain_in_std_errors``: of several blocks
    one always looks better), or is the fine-tuned model as it was. Before every block the rollouts of a
    few users are written to ``work_dir/rollouts-BLOCK.json``.

    Args:
        reference: pi_ref, the pretrained model with its direct decoder.
        neighbours: (N, K or more) items of similar text, nearest first.
    """
    job = job.on_device()
    work_dir, config, settings, device = job.work_dir, job.config, job.config.grpo, job.device
    check_model(model, tokenizer)
    if neighbours.shape[1] < settings.K:
        rule = f"there are only {neighbours.shape[1]} neighbours an item"
        raise BadInput(f"grpo.K={settings.K}", rule, "give a smaller number")
    model, tokenizer = model.to(device), tokenizer.to(device)
    splits = job.splits
    neighbours, train_rows = neighbours[:, : settings.K].to(device), splits.train.n_examples
    table = _reference_table(reference.to(device), tokenizer, splits.train, work_dir)
    start = copy.deepcopy(model).eval().requires_grad_(False)  # the KL term's reference
    held: dict = {}

    def loss(model: Backbone, batch: Prefixes, rows: Tensor) -> dict[str, Tensor]:
        model.eval()
        encoded = model.encode_history(tokenizer, batch.history)  # once for both
        if held.get("rows") is not rows:
            negatives, l = neighbours[batch.target], config.sft.l
            found = collect(model, start, tokenizer, batch, table[rows], negatives, l, settings, encoded)
            held.update(rows=rows, found=found)
        return update_losses(model, tokenizer, batch, held["found"], settings, encoded)

    def rows(block: int) -> Tensor:
        generator = torch.Generator().manual_seed(derive_seed(job.seed, "grpo", "users", block))
        count = min(train_rows, settings.batches_per_block * settings.batch_size)
        return torch.randperm(train_rows, generator=generator)[:count].to(device)

    watched = torch.linspace(0, train_rows - 1, min(WATCHED, train_rows)).long().to(device)

    def prepare(model: Backbone, block: int) -> dict:
        batch, l = splits.train.select(watched), config.sft.l
        model.eval()
        found = collect(model, start, tokenizer, batch, table[watched], neighbours[batch.target], l, settings)
        sheet = rollout_table(batch, found, settings)
        write_json(work_dir / f"rollouts-{block - 1}.json", sheet)
        return {}

    def recommender(model: Backbone) -> StreamRec:
        return StreamRec(model, tokenizer, config.evaluate.beams, l=config.sft.l, think="greedy")

    hooks = Hooks(prepare, epoch_examples=rows, updates_per_batch=settings.updates_per_batch)
    guard = Guard(settings.max_drop, settings.min_gain_in_std_errors)
    return train(Task("Reinforcement", "grpo", loss, recommender, hooks, guard), model, job)


def _reference_table(reference: Backbone, tokenizer, prefixes: Prefixes, work_dir: Path) -> Tensor:
    """log pi_ref(target | history) of every training prefix: (rows,), computed once."""
    path, device = work_dir / "reference.safetensors", prefixes.target.device
    if not path.exists():
        none = torch.zeros(tokenizer.n_items, 0, dtype=torch.long, device=device)
        table = reference_log_probs(reference, tokenizer, prefixes, none)[:, 0]
        write_tensors(path, {"log_probs": table.contiguous()})
    return read_tensors(path)[0]["log_probs"].to(device)


def rollout_table(batch: Prefixes, found: Collected, config: GrpoConfig) -> list[dict]:
    """What was thought, answered and earned, one entry a rollout; items are numbers, thoughts tokens."""
    weights, rollouts = weights_of(config), found.rollouts
    advantage = combine(found.rewards, weights, config.G, config.reward_order).tolist()
    total = sum(weights[name] * value for name, value in found.rewards.items()).tolist()
    return [
        {
            "user": int(batch.user[row]),
            "target": int(batch.target[row]),
            "thoughts": rollouts.thought[i].tolist(),
            "item": int(rollouts.item[i]),
            **{name: round(float(value[i]), 4) for name, value in found.rewards.items()},
            "reward": round(total[i], 4),
            "advantage": round(advantage[i], 4),
        }
        for i, row in enumerate(rollouts.user.tolist())
    ]
