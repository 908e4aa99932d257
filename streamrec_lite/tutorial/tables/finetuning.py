"""Tables of notebook 07, fine-tuning: the parts of the loss, the cost of answers, and DPO's margins."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ...common.device import derive_seed
from ...common.files import read_tensors
from ...common.schemas import BOS, Prefixes
from ...config.training import SftConfig
from ...data.sequences import iterate_batches
from ...evaluation.metrics import metric_per_user, paired_bootstrap
from ...inference.beam_search import answer_log_probs, item_log_probs
from ...inference.step_decoder import StepDecoder
from ...inference.thinking import generate_thoughts
from ...model.backbone import Backbone, answer_inputs
from ...tokenizer.semantic_ids import SemanticTokenizer
from ...training.annotator import annotate
from ...training.channel import substitute_thoughts
from ...training.dpo import reference_log_probs
from ...training.finetune_loss import finetune_loss, gradient_norms
from .channel import KINDS

LOSS_PARTS = {  # the parts of eq. 19, and the setting that is the weight of each; "align" is not in the paper
    "answer": None,
    "thoughts": "thought_weight",
    "state": "delta",
    "quant": "mu",
    "dpo": "lam",
    "align": "align_weight",
}


@dataclasses.dataclass
class AnnotatedBatch:
    """A batch with the other inputs of ``finetune_loss``."""

    batch: Prefixes
    thought: Tensor  # (B, l), annotated
    rejected: Tensor  # (B,)
    reference: Tensor  # (B, 2)
    nearby: Tensor  # (N, k)


def annotate_batch(
    model: Backbone, tokenizer: SemanticTokenizer, prefixes: Prefixes, neighbours: Tensor, l: int
) -> AnnotatedBatch:
    """Annotate examples; DPO's dispreferred item is the nearest item to the target by text.

    Args:
        model: the pretrained model, which is the annotator and the reference.
        tokenizer: of the items.
        prefixes: B examples.
        neighbours: (N, pool) items of similar text, nearest first.
        l: thoughts of each example.
    """
    traces = annotate(model, tokenizer, prefixes, l)
    near = neighbours[:, :1]
    reference = reference_log_probs(model, tokenizer, prefixes, near)
    rejected = near[prefixes.target, 0]
    return AnnotatedBatch(prefixes, traces.thought.clone(), rejected, reference.clone(), neighbours)


def with_all_parts(config: SftConfig) -> SftConfig:
    """The same settings, but every part of the loss is computed: weights of 0 become negligibly small."""
    tiny: dict[str, Any] = {name: 1e-9 for name in ("mu", "lam") if getattr(config, name) == 0}
    return dataclasses.replace(config, **tiny)


def loss_part_table(
    model: Backbone, tokenizer: SemanticTokenizer, example: AnnotatedBatch, config: SftConfig
) -> pd.DataFrame:
    """Value, weight and gradient norm (without the weight) of each part of the loss.

    Args:
        model: to be fine-tuned; it is not changed.
        tokenizer: of the items.
        example: the batch.
        config: with the weights.
    """
    torch.manual_seed(0)
    parts = finetune_loss(model.eval(), tokenizer, *_fields(example), with_all_parts(config))
    norms = gradient_norms(model, parts)
    rows = {
        name: {
            "value": float(parts[name].detach()),
            "weight": 1.0 if setting is None else getattr(config, setting),
            "gradient norm": norms[f"gradient {name}"],
        }
        for name, setting in LOSS_PARTS.items()
    }
    return pd.DataFrame(rows).T


def _fields(example: AnnotatedBatch) -> tuple[Prefixes, Tensor, Tensor, Tensor, Tensor]:
    return example.batch, example.thought, example.rejected, example.reference, example.nearby


def single_loss_table(
    model: Backbone,
    tokenizer: SemanticTokenizer,
    example: AnnotatedBatch,
    config: SftConfig,
    steps: int = 12,
    lr: float = 5e-4,
) -> pd.DataFrame:
    """How every part of the loss changes if one part alone is minimised.

    A row for each part that is minimised, and "all" for the weighted sum; a column for each part's change.

    Args:
        model: it is copied for every row; dropout is off.
        tokenizer: of the items.
        example: the batch to learn.
        config: with the weights of "all".
        steps: AdamW steps on the batch.
        lr: learning rate.
    """
    settings = with_all_parts(config)

    def measure(m: Backbone) -> dict[str, float]:
        torch.manual_seed(0)
        with torch.no_grad():
            parts = finetune_loss(m, tokenizer, *_fields(example), settings)
        return {name: float(parts[name]) for name in LOSS_PARTS}

    before, rows = measure(model.eval()), {}
    for name in (*LOSS_PARTS, "all"):
        learner = copy.deepcopy(model).eval()
        optimizer = torch.optim.AdamW(learner.parameters(), lr=lr)
        for step in range(steps):
            torch.manual_seed(step)
            parts = finetune_loss(learner, tokenizer, *_fields(example), settings)
            optimizer.zero_grad(set_to_none=True)
            parts["loss" if name == "all" else name].backward()
            optimizer.step()
        after = measure(learner)
        rows[name] = {part: after[part] - before[part] for part in LOSS_PARTS}
    return pd.DataFrame(rows).T


@torch.inference_mode()
def answer_cost(model: Backbone, tokenizer: SemanticTokenizer, prefixes: Prefixes, thought: Tensor) -> Tensor:
    """-log P(target | history, thoughts) in nats, teacher-forced: (rows,).

    Args:
        model: with a thinking decoder.
        tokenizer: of the items.
        prefixes: the examples.
        thought: (rows, l) code tokens.
    """
    model.eval()
    cost = torch.zeros(prefixes.n_examples)
    for rows, batch in iterate_batches(prefixes):
        states, mask = model.encode_history(tokenizer, batch.history)
        inputs = answer_inputs(model, thought[rows], tokenizer.tokens[batch.target])
        hidden = model.decode(inputs, states, mask, "thinking")[:, -tokenizer.m :]
        cost[rows.cpu()] = -answer_log_probs(model, tokenizer, hidden, batch.target).sum(1).float().cpu()
    return cost


def answer_cost_by_thought_source(
    models: dict[str, Backbone], tokenizer: SemanticTokenizer, prefixes: Prefixes, l: int
) -> pd.DataFrame:
    """Mean ``answer_cost`` after each kind of thoughts of ``substitute_thoughts``.

    A low cost after annotated thoughts shows no skill: they are made from the target.

    Args:
        models: a column for each.
        tokenizer: of the items.
        prefixes: the examples.
        l: thoughts of each example.
    """
    table = {}
    for name, model in models.items():
        thoughts = substitute_thoughts(model, tokenizer, prefixes, l)
        costs = {kind: answer_cost(model, tokenizer, prefixes, o) for kind, o in thoughts.items()}
        table[name] = {KINDS[kind]: float(cost.mean()) for kind, cost in costs.items()}
    return pd.DataFrame(table)


@torch.inference_mode()
def preference_margins(
    models: dict[str, tuple[Backbone, str, int]],
    tokenizer: SemanticTokenizer,
    prefixes: Prefixes,
    neighbours: Tensor,
) -> pd.DataFrame:
    """log P(target) - log P(its nearest item by text), which DPO increases; a row for each example.

    Args:
        models: a column for each: name -> (model, decoder, l greedy thoughts before the answer).
        tokenizer: of the items.
        prefixes: the examples.
        neighbours: (N, pool) items of similar text, nearest first.
    """
    columns = {}
    for name, (model, decoder, l) in models.items():
        model.eval()
        gap = torch.zeros(prefixes.n_examples)
        for rows, batch in iterate_batches(prefixes):
            stepper = StepDecoder.start(model, tokenizer, batch.history, decoder)
            if decoder == "thinking":
                hidden = generate_thoughts(stepper, l, "greedy").answer_hidden[:, 0]
            else:
                hidden = stepper.step(torch.full_like(batch.target, BOS))
            items = torch.stack([batch.target, neighbours[batch.target, 0]], dim=1)
            log_prob = item_log_probs(stepper, tokenizer, hidden, items)
            gap[rows.cpu()] = (log_prob[:, 0] - log_prob[:, 1]).float().cpu()
        columns[name] = gap.numpy()
    return pd.DataFrame(columns)


def round_table(log: list[dict]) -> pd.DataFrame:
    """Mean gap and rank, codes used, entropy and information from the training log, by round and step."""
    rows = []
    for entry in log:
        if "round" not in entry:
            continue
        for step, (gap, rank) in enumerate(zip(entry["norm"], entry["rank"], strict=True)):
            thoughts = {
                key: entry[key][step - 1] if step else np.nan for key in ("used", "entropy", "information")
            }
            row = {"round": entry["round"], "epoch": entry["epoch"], "step": step, "gap": gap, "rank": rank}
            rows.append({**row, **thoughts})
    return pd.DataFrame(rows)


def difference_to(reference: str, rows: dict[str, dict], split: str = "test") -> pd.DataFrame:
    """N@10 of each model minus the reference's on the same users: difference, low, high (95 %).

    Users are resampled as for results.json: a run of one seed has the same intervals there.

    Args:
        reference: one of ``rows``.
        rows: rows of results.json; "dir" is the folder of their ranks, and rows without it are left out. A
            name that ends with "state-guided" stands for the guided ranks in its folder.
        split: "valid" or "test".
    """

    def values(name: str, row: dict) -> Tensor:
        prefix = "guided " if name.endswith("state-guided") else ""
        kept = read_tensors(Path(row["dir"]) / "ranks.safetensors")[0]
        return metric_per_user(kept[f"{prefix}{split}"], "N@10")

    base, table = values(reference, rows[reference]), {}
    for name, row in rows.items():
        if name != reference and "dir" in row:
            found = paired_bootstrap(values(name, row), base, seed=derive_seed("bootstrap", "N@10"))
            table[name] = {"difference": found["mean_difference"], "low": found["low"], "high": found["high"]}
    return pd.DataFrame(table).T
