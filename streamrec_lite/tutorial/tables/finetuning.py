"""Fine-tuning in slow motion, as tables: each part of the loss, what thoughts give away, what DPO moves."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ...common.device import derive_seed
from ...common.files import read_tensors
from ...common.schemas import BOS, FIRST_CODE, Prefixes
from ...config.sections import SftConfig
from ...data.sequences import iterate_batches
from ...evaluation.metrics import metric_per_user, paired_bootstrap
from ...inference.beam_search import answer_log_probs, item_log_probs
from ...inference.step_decoder import StepDecoder
from ...inference.thinking import think_ahead, write_thoughts
from ...model.backbone import Backbone, answer_inputs, history_tokens
from ...training.annotator import annotate
from ...training.finetune import finetune_loss, gradient_norms

PARTS = {  # of eq. 19, and the setting that weighs each; "align" is ours
    "answer": None,
    "thoughts": "thought",
    "state": "delta",
    "quant": "mu",
    "dpo": "lam",
    "align": "align",
}


@dataclasses.dataclass
class Example:
    """A batch with all that ``finetune_loss`` wants to know of it."""

    batch: Prefixes
    thought: Tensor  # (B, l), annotated
    rejected: Tensor  # (B,)
    reference: Tensor  # (B, 2)
    nearby: Tensor  # (N, k)


def make_example(model: Backbone, tokenizer, prefixes: Prefixes, neighbours: Tensor, l: int) -> Example:
    """Annotate ``prefixes`` and draw what each target is preferred to: its nearest item by text."""
    from ...training.dpo import reference_log_probs

    traces = annotate(model, tokenizer, prefixes, l)
    near = neighbours[:, :1]
    reference = reference_log_probs(model, tokenizer, prefixes, near)
    rejected = near[prefixes.target, 0]
    return Example(prefixes, traces.thought.clone(), rejected, reference.clone(), neighbours)


def all_parts(config: SftConfig) -> SftConfig:
    """The same settings with every part computed: those of weight 0 get a weight too small to matter."""
    tiny = {name: 1e-9 for name in ("mu", "lam") if getattr(config, name) == 0}
    return dataclasses.replace(config, **tiny)


def part_table(model: Backbone, tokenizer, example: Example, config: SftConfig) -> pd.DataFrame:
    """A row a part of the loss: its value, its weight and its pull, the norm of its gradient."""
    torch.manual_seed(0)
    parts = finetune_loss(model.eval(), tokenizer, *_fields(example), all_parts(config))
    pulls = gradient_norms(model, parts)
    rows = {
        name: {
            "value": float(parts[name].detach()),
            "weight": 1.0 if setting is None else getattr(config, setting),
            "pull": pulls[f"gradient {name}"],
        }
        for name, setting in PARTS.items()
    }
    return pd.DataFrame(rows).T


def _fields(example: Example):
    return example.batch, example.thought, example.rejected, example.reference, example.nearby


def one_at_a_time(
    model: Backbone, tokenizer, example: Example, config: SftConfig, steps: int = 12, lr: float = 5e-4
) -> pd.DataFrame:
    """What learning one part alone does to the others: rows the part learned, columns the change of each.

    A copy of the model takes ``steps`` steps on this one batch for each part, and one more for all
    parts together as ``config`` weighs them ("all"). Dropout is off, so that changes are learning.
    """
    settings = all_parts(config)

    def measure(m: Backbone) -> dict[str, float]:
        torch.manual_seed(0)
        with torch.no_grad():
            parts = finetune_loss(m, tokenizer, *_fields(example), settings)
        return {name: float(parts[name]) for name in PARTS}

    before, rows = measure(model.eval()), {}
    for name in (*PARTS, "all"):
        pupil = copy.deepcopy(model).eval()
        optimizer = torch.optim.AdamW(pupil.parameters(), lr=lr)
        for step in range(steps):
            torch.manual_seed(step)
            parts = finetune_loss(pupil, tokenizer, *_fields(example), settings)
            optimizer.zero_grad(set_to_none=True)
            parts["loss" if name == "all" else name].backward()
            optimizer.step()
        after = measure(pupil)
        rows[name] = {part: after[part] - before[part] for part in PARTS}
    return pd.DataFrame(rows).T


@torch.inference_mode()
def answer_cost(model: Backbone, tokenizer, prefixes: Prefixes, thought: Tensor) -> Tensor:
    """Nats that the target costs after given thoughts (rows, l), teacher-forced: (rows,)."""
    model.eval()
    cost = torch.zeros(prefixes.n_examples)
    for rows, batch in iterate_batches(prefixes):
        states, mask = model.encode(history_tokens(tokenizer.tokens, batch.history))
        inputs = answer_inputs(model, thought[rows], tokenizer.tokens[batch.target])
        hidden = model.decode(inputs, states, mask, "thinking")[:, -tokenizer.m :]
        cost[rows.cpu()] = -answer_log_probs(model, tokenizer, hidden, batch.target).sum(1).float().cpu()
    return cost


def who_thought(models: dict[str, Backbone], tokenizer, prefixes: Prefixes, l: int) -> pd.DataFrame:
    """Nats an answer costs after no thoughts, own ones, annotated ones, another user's, and any codes.

    A column a model. What annotated thoughts save is not skill: they come from the target.
    """
    generator = torch.Generator().manual_seed(0)
    shape, device = (prefixes.n_examples, l), prefixes.target.device
    any_codes = FIRST_CODE + torch.randint(0, tokenizer.m * tokenizer.K, shape, generator=generator)
    table = {}
    for name, model in models.items():
        own = write_thoughts(model, tokenizer, prefixes, l)
        sources = {
            "none": own[:, :0],
            "its own": own,
            "annotated": annotate(model, tokenizer, prefixes, l).thought,
            "another user's": own.roll(1, dims=0),
            "any codes": any_codes.to(device),
        }
        costs = {s: float(answer_cost(model, tokenizer, prefixes, o).mean()) for s, o in sources.items()}
        table[name] = costs
    return pd.DataFrame(table)


@torch.inference_mode()
def margins(
    models: dict[str, tuple[Backbone, str, int]], tokenizer, prefixes: Prefixes, neighbours: Tensor
) -> pd.DataFrame:
    """log P(target) - log P(its nearest item by text), a column a model: what DPO pushes apart.

    ``models``: name -> (model, decoder, l greedy thoughts before the answer).
    """
    columns = {}
    for name, (model, decoder, l) in models.items():
        model.eval()
        gap = torch.zeros(prefixes.n_examples)
        for rows, batch in iterate_batches(prefixes):
            states, mask = model.encode(history_tokens(tokenizer.tokens, batch.history))
            stepper = StepDecoder(model, states, mask, decoder)
            if decoder == "thinking":
                hidden = think_ahead(stepper, l, "greedy").answer[:, 0]
            else:
                hidden = stepper.step(torch.full_like(batch.target, BOS))
            items = torch.stack([batch.target, neighbours[batch.target, 0]], dim=1)
            log_prob = item_log_probs(stepper, tokenizer, hidden, items)
            gap[rows.cpu()] = (log_prob[:, 0] - log_prob[:, 1]).float().cpu()
        columns[name] = gap.numpy()
    return pd.DataFrame(columns)


def round_table(log: list[dict]) -> pd.DataFrame:
    """A row a round and step from the training log: mean gap and rank; codes used, entropy, information."""
    rows = []
    for entry in log:
        if "round" not in entry:
            continue
        for step, (gap, rank) in enumerate(zip(entry["norm"], entry["rank"], strict=True)):
            said = {
                key: entry[key][step - 1] if step else np.nan for key in ("used", "entropy", "information")
            }
            row = {"round": entry["round"], "epoch": entry["epoch"], "step": step, "gap": gap, "rank": rank}
            rows.append({**row, **said})
    return pd.DataFrame(rows)


def against(rows: dict[str, dict], reference: str, split: str = "test") -> pd.DataFrame:
    """N@10 of each model minus the reference's on the same users: difference, low, high (95 %).

    ``rows``: rows of results.json with "dir", where their ranks lie; those without one are left out. A
    name that ends with "state-guided" stands for the guided ranks of its folder. Users are resampled as in
    ``report.versus``: by the defaults, a run of one seed has the same intervals here and in results.json.
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
