"""Stage 3, the run: blocks of updates by GRPO, which never end below the fine-tuned model.

Dropout is off by default: the policy that is updated is the one that sampled the rollouts, so a ratio
(eq. 20) starts at exactly 1. With ``grpo.dropout=on`` updates have dropout, as in the other stages. The model
is evaluated on validation before the first update, and after each block.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from ..common.device import derive_seed
from ..common.errors import BadInput
from ..common.files import write_json
from ..common.schemas import Prefixes
from ..inference.recommender import StreamRec
from ..model.backbone import Backbone
from ..tokenizer.semantic_ids import SemanticTokenizer
from .dpo import stored_reference_log_probs
from .finetune import check_model
from .loop import Guard, Hooks, Task, Trained, TrainingJob, train
from .rollout_batch import Encoded, RolloutBatch, collect_rollouts, rollout_table, update_losses

N_RECORDED_USERS = 24  # users whose rollouts are written to a file before every block


def reinforce(
    model: Backbone,
    reference: Backbone,
    job: TrainingJob,
    tokenizer: SemanticTokenizer,
    neighbours: Tensor,
) -> Trained:
    """Reinforce the fine-tuned ``model`` by ``loop.train``; an epoch of the loop is a block of updates.

    The result has the best validation N@10 of all blocks that beat the fine-tuned model by
    ``grpo.min_gain_in_std_errors`` standard errors; without such a block it is the fine-tuned model. (Of
    several blocks one usually looks better by chance.) With ``grpo.final_weights=last`` it is the last block.
    Before every block the rollouts of a few users are written to ``rollouts-BLOCK.json`` in the job's folder.

    Args:
        model: the fine-tuned model; it is changed in place.
        reference: pi_ref, the pretrained model with its direct decoder.
        job: data, settings, seed, folder and device.
        tokenizer: gives the items' codes.
        neighbours: (N, K or more) items of most similar text to each, nearest first.
    """
    job = job.on_device()
    settings, l, train_set = job.config.grpo, job.config.sft.l, job.splits.train
    device, n_rows = train_set.target.device, train_set.n_examples
    check_model(model, tokenizer)
    if neighbours.shape[1] < settings.K:
        rule = f"there are only {neighbours.shape[1]} neighbours an item"
        raise BadInput(f"grpo.K={settings.K}", rule, "give a smaller number")
    model, tokenizer, neighbours = model.to(device), tokenizer.to(device), neighbours.to(device)
    path, no_items = job.work_dir / "reference.safetensors", neighbours[:, :0]
    log_pi_ref = stored_reference_log_probs(path, reference.to(device), tokenizer, train_set, no_items)[:, 0]
    finetuned = copy.deepcopy(model).eval().requires_grad_(False)

    def collect(
        model: Backbone, batch: Prefixes, rows: Tensor, encoded: Encoded | None = None
    ) -> RolloutBatch:
        negatives = neighbours[batch.target, : settings.K]
        return collect_rollouts(
            model, finetuned, tokenizer, batch, log_pi_ref[rows], negatives, l, settings, encoded
        )

    current: dict = {}  # the rows of the last batch, and its rollouts

    def loss(model: Backbone, batch: Prefixes, rows: Tensor) -> dict[str, Tensor]:
        is_new, encoded = current.get("rows") is not rows, None  # else: a further update on the same rollouts
        if is_new or settings.dropout == "off":  # once for rollouts and update
            encoded = model.eval().encode_history(tokenizer, batch.history)
        if is_new:
            current.update(rows=rows, collected=collect(model, batch, rows, encoded))
        if settings.dropout == "on":
            encoded = model.train().encode_history(tokenizer, batch.history)
        return update_losses(model, tokenizer, batch, current["collected"], settings, encoded)

    def block_examples(block: int) -> Tensor:
        generator = torch.Generator().manual_seed(derive_seed(job.seed, "grpo", "users", block))
        count = min(n_rows, settings.batches_per_block * settings.batch_size)
        return torch.randperm(n_rows, generator=generator)[:count].to(device)

    recorded = torch.linspace(0, n_rows - 1, min(N_RECORDED_USERS, n_rows)).long().to(device)

    def record_rollouts(model: Backbone, block: int) -> dict:
        batch = train_set.select(recorded)
        collected = collect(model.eval(), batch, recorded)
        write_json(job.work_dir / f"rollouts-{block - 1}.json", rollout_table(batch, collected, settings))
        return {}

    def recommender(model: Backbone) -> StreamRec:
        return StreamRec(model, tokenizer, job.config.evaluate.beams, l=l, think="greedy")

    hooks = Hooks(record_rollouts, None, block_examples, settings.updates_per_batch)
    guard = Guard(settings.max_drop, settings.min_gain_in_std_errors, settings.final_weights == "last")
    return train(Task("Reinforcement", "grpo", loss, recommender, hooks, guard), model, job)
