"""Trajectories of states: the states s_0..s_l that a train of thought leads to, and how close they are.

One teacher-forced pass over [BOS, o_1..o_l] gives the states. It is the same for the annotator's thoughts
(``annotated_trajectory``; the annotator knows the target) and for the model's own (``own_trajectory``).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...common.device import derive_seed
from ...common.schemas import BOS, Prefixes
from ...data.sequences import iterate_batches
from ...evaluation.metrics import rank_by_score
from ...inference.step_decoder import StepDecoder
from ...inference.thinking import generate_thoughts, write_thoughts
from ...model.backbone import Backbone
from ...model.item_representation import item_table
from ...tokenizer.semantic_ids import SemanticTokenizer
from ...training.annotator import STRATEGIES, annotate


class Trajectory(NamedTuple):
    """The thoughts of B examples and the states that they lead to, on the CPU."""

    thought: Tensor  # (B, l) int64, code tokens o_1..o_l
    s: Tensor  # (B, l + 1, d) float32, states s_0..s_l
    r: Tensor  # (B, l, d) float32, residuals r_1..r_l = MLP_r(t - s_{i-1})
    norm: Tensor  # (B, l + 1) float32, the gap |t - s_i|
    rank: Tensor  # (B, l + 1) int64, the target's rank among all items by s_i . t(item); 1 is best
    target: Tensor  # (B,) int64

    @property
    def steps(self) -> int:
        """The number of thoughts l."""
        return self.thought.shape[1]


@torch.inference_mode()
def item_representations(model: Backbone, tokenizer: SemanticTokenizer) -> Tensor:
    """t of every item, which states are compared with: (N, d) float32 on the CPU."""
    return item_table(model, tokenizer).cpu()


@torch.inference_mode()
def trajectory_of(
    model: Backbone,
    tokenizer: SemanticTokenizer,
    prefixes: Prefixes,
    thought: Tensor,
    batch_size: int | None = None,
) -> Trajectory:
    """The trajectory of given thoughts, which the model reads after the histories.

    Args:
        model: with a thinking decoder.
        tokenizer: of the items.
        prefixes: B examples.
        thought: (B, l) code tokens.
        batch_size: examples at a time; None: chosen by ``iterate_batches``.
    """
    model.eval()
    device = model.shared.weight.device
    table = item_representations(model, tokenizer)
    (B, l), d = thought.shape, table.shape[1]
    s, r = torch.zeros(B, l + 1, d), torch.zeros(B, l, d)
    for rows, batch in iterate_batches(prefixes.to(device), batch_size):
        here = rows.cpu()
        start = torch.full((len(here), 1), BOS)
        inputs = torch.cat([start, thought[here].cpu()], dim=1).to(device)
        states, mask = model.encode_history(tokenizer, batch.history)
        batch_s = model.states(model.decode(inputs, states, mask, "thinking"))  # (b, l + 1, d)
        t = table[batch.target.cpu()].to(device)[:, None]
        s[here], r[here] = batch_s.cpu(), model.residual_head(t - batch_s[:, :-1]).cpu()
    return _measured(thought.cpu(), s, r, table, prefixes.target.cpu())


def _measured(thought: Tensor, s: Tensor, r: Tensor, table: Tensor, target: Tensor) -> Trajectory:
    """The trajectory of states s_0..s_l, with its gaps and ranks."""
    norm = (table[target][:, None] - s).norm(dim=-1)
    rank = torch.stack([_ranks(s[:, i], table, target) for i in range(s.shape[1])], dim=1)
    return Trajectory(thought, s, r, norm, rank, target)


def _ranks(s: Tensor, table: Tensor, target: Tensor, chunk: int = 256) -> Tensor:
    """The target's rank among all items for states (B, d): (B,) int64."""
    parts = zip(s.split(chunk), target.split(chunk), strict=True)
    return torch.cat([rank_by_score(item, state @ table.T) for state, item in parts])


def annotated_trajectory(
    model: Backbone, tokenizer: SemanticTokenizer, prefixes: Prefixes, l: int, **options: Any
) -> Trajectory:
    """The trajectory of the annotator's thoughts.

    Args:
        model: with a thinking decoder.
        tokenizer: of the items.
        prefixes: the examples, with the targets that the annotator uses.
        l: thoughts of each example.
        options: of ``annotate``, such as ``strategy``.
    """
    prefixes = prefixes.to(model.shared.weight.device)
    return trajectory_of(
        model, tokenizer, prefixes, annotate(model, tokenizer, prefixes, l, **options).thought
    )


def own_trajectory(
    model: Backbone,
    tokenizer: SemanticTokenizer,
    prefixes: Prefixes,
    l: int,
    batch_size: int | None = None,
) -> Trajectory:
    """The trajectory of the model's own greedy thoughts: at each step the most likely code.

    The thoughts do not depend on the targets, which only serve to measure gaps and ranks.

    Args:
        model: with a thinking decoder.
        tokenizer: of the items.
        prefixes: the examples.
        l: thoughts of each example.
        batch_size: examples at a time; None: chosen by ``iterate_batches``.
    """
    thought = write_thoughts(model, tokenizer, prefixes.to(model.shared.weight.device), l, batch_size)
    return trajectory_of(model, tokenizer, prefixes, thought, batch_size)


@torch.inference_mode()
def mean_sampled_trajectory(
    model: Backbone,
    tokenizer: SemanticTokenizer,
    prefixes: Prefixes,
    l: int,
    n: int = 16,
    batch_size: int = 64,
    seed: int = 0,
) -> Trajectory:
    """The mean states of n sampled trains of thought: eq. 3's sum over thoughts, applied to states.

    ``thought`` of the result holds the first train of each example.

    Args:
        model: with a thinking decoder.
        tokenizer: of the items.
        prefixes: the examples.
        l: thoughts of a train.
        n: trains of thought of each example, sampled independently.
        batch_size: examples at a time.
        seed: of the sampling.
    """
    model.eval()
    torch.manual_seed(derive_seed(seed, "own together"))
    device = model.shared.weight.device
    table = item_table(model, tokenizer)
    B, d = prefixes.n_examples, table.shape[1]
    thought, s, r = torch.zeros(B, l, dtype=torch.long), torch.zeros(B, l + 1, d), torch.zeros(B, l, d)
    for rows, batch in iterate_batches(prefixes.to(device), batch_size):
        here = rows.cpu()
        states, mask = model.encode_history(tokenizer, batch.history)
        found = generate_thoughts(StepDecoder(model, states, mask, "thinking"), l, "sample", n)
        batch_s = model.states(found.hidden.flatten(0, 1)).view(len(here), n, l + 1, d).mean(dim=1)
        gap = table[batch.target][:, None] - batch_s[:, :-1]
        thought[here], s[here] = found.token[:, 0].cpu(), batch_s.cpu()
        r[here] = model.residual_head(gap).cpu()
    return _measured(thought, s, r, table.cpu(), prefixes.target.cpu())


def trajectories_by_strategy(
    model: Backbone,
    tokenizer: SemanticTokenizer,
    prefixes: Prefixes,
    l: int,
    neighbours: Tensor,
    seed: int = 0,
) -> dict[str, Trajectory]:
    """The same examples annotated with each strategy of the annotator.

    Args:
        model: with a thinking decoder.
        tokenizer: of the items.
        prefixes: the examples.
        l: thoughts of each example.
        neighbours: (N, pool) items of similar text, nearest first.
        seed: of the strategy "random".
    """
    options = {"neighbours": neighbours.to(model.shared.weight.device), "seed": seed}
    return {
        name: annotated_trajectory(model, tokenizer, prefixes, l, strategy=name, **options)
        for name in STRATEGIES
    }
