"""Thinking step by step, as tables: how thoughts move the estimate of what a user wants.

A train of thought is followed in one teacher-forced pass over [BOS, o_1..o_l], which gives the
states s_0..s_l. Where the thoughts come from makes no difference to that: the annotator's
(``annotated``, the target is known) and the model's own (``own``) are read the same way.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ...common.device import derive_seed
from ...common.schemas import BOS, Prefixes
from ...data.sequences import iterate_batches
from ...evaluation.metrics import rank_by_score
from ...inference.step_decoder import StepDecoder
from ...inference.thinking import think_ahead, write_thoughts
from ...model import item_representation as targets
from ...model.backbone import Backbone, history_tokens
from ...tokenizer.kmeans import nearest
from ...tokenizer.semantic_ids import token_name
from ...training.annotator import STRATEGIES, annotate, informativeness
from .items import titles


class Walk(NamedTuple):
    """The thoughts of B examples and where they lead, on the CPU."""

    thought: Tensor  # (B, l) int64, code tokens o_1..o_l
    s: Tensor  # (B, l + 1, d) float32, states s_0..s_l
    r: Tensor  # (B, l, d) float32, residuals r_1..r_l = MLP_r(t - s_{i-1})
    norm: Tensor  # (B, l + 1) float32, the gap |t - s_i|
    rank: Tensor  # (B, l + 1) int64, the target's place among all items by s_i . t(item); 1 is best
    target: Tensor  # (B,) int64

    @property
    def steps(self) -> int:
        """How many thoughts there are."""
        return self.thought.shape[1]


@torch.inference_mode()
def item_table(model: Backbone, tokenizer) -> Tensor:
    """t of every item, the rows that states are compared with: (N, d) float32 on the CPU."""
    return targets.item_table(model, tokenizer).cpu()


@torch.inference_mode()
def follow(
    model: Backbone, tokenizer, prefixes: Prefixes, thought: Tensor, batch_size: int | None = None
) -> Walk:
    """Read given thoughts (B, l) after the histories of ``prefixes`` (B rows): a ``Walk``."""
    model.eval()
    device = model.shared.weight.device
    table = item_table(model, tokenizer)
    (B, l), d = thought.shape, table.shape[1]
    s, r = torch.zeros(B, l + 1, d), torch.zeros(B, l, d)
    for rows, batch in iterate_batches(prefixes.to(device), batch_size):
        here = rows.cpu()
        start = torch.full((len(here), 1), BOS)
        inputs = torch.cat([start, thought[here].cpu()], dim=1).to(device)
        states, mask = model.encode(history_tokens(tokenizer.tokens, batch.history))
        moved = model.states(model.decode(inputs, states, mask, "thinking"))  # (b, l + 1, d)
        t = table[batch.target.cpu()].to(device)[:, None]
        s[here], r[here] = moved.cpu(), model.residual_head(t - moved[:, :-1]).cpu()
    return _measured(thought.cpu(), s, r, table, prefixes.target.cpu())


def _measured(thought: Tensor, s: Tensor, r: Tensor, table: Tensor, target: Tensor) -> Walk:
    """The ``Walk`` of states s_0..s_l: gaps and ranks are measured here."""
    norm = (table[target][:, None] - s).norm(dim=-1)
    rank = torch.stack([_ranks(s[:, i], table, target) for i in range(s.shape[1])], dim=1)
    return Walk(thought, s, r, norm, rank, target)


def _ranks(s: Tensor, table: Tensor, target: Tensor, chunk: int = 256) -> Tensor:
    """The target's place among all items for states (B, d): (B,) int64."""
    parts = zip(s.split(chunk), target.split(chunk), strict=True)
    return torch.cat([rank_by_score(item, state @ table.T) for state, item in parts])


def annotated(model: Backbone, tokenizer, prefixes: Prefixes, l: int, **options) -> Walk:
    """What should have been thought, given the targets; ``options`` are those of ``annotate``."""
    prefixes = prefixes.to(model.shared.weight.device)
    return follow(model, tokenizer, prefixes, annotate(model, tokenizer, prefixes, l, **options).thought)


def own(model: Backbone, tokenizer, prefixes: Prefixes, l: int, batch_size: int | None = None) -> Walk:
    """What the model thinks by itself: its l most likely thoughts, one after the other.

    The targets have no part in the thoughts; they only tell how far off the states are.
    """
    thought = write_thoughts(model, tokenizer, prefixes.to(model.shared.weight.device), l, batch_size)
    return follow(model, tokenizer, prefixes, thought, batch_size)


@torch.inference_mode()
def own_together(
    model: Backbone, tokenizer, prefixes: Prefixes, l: int, n: int = 16, batch_size: int = 64, seed: int = 0
) -> Walk:
    """What the model thinks by itself in n trains of thought, drawn independently: states are their means.

    It is eq. 3's sum for the states. One train of thought is one guess and may mislead; ``thought`` holds
    the first of them.
    """
    model.eval()
    torch.manual_seed(derive_seed(seed, "own together"))
    device = model.shared.weight.device
    table = targets.item_table(model, tokenizer)
    B, d = prefixes.n_examples, table.shape[1]
    thought, s, r = torch.zeros(B, l, dtype=torch.long), torch.zeros(B, l + 1, d), torch.zeros(B, l, d)
    for rows, batch in iterate_batches(prefixes.to(device), batch_size):
        here = rows.cpu()
        states, mask = model.encode(history_tokens(tokenizer.tokens, batch.history))
        found = think_ahead(StepDecoder(model, states, mask, "thinking"), l, "sample", n)
        moved = model.states(found.hidden.flatten(0, 1)).view(len(here), n, l + 1, d).mean(dim=1)
        gap = table[batch.target][:, None] - moved[:, :-1]
        thought[here], s[here] = found.token[:, 0].cpu(), moved.cpu()
        r[here] = model.residual_head(gap).cpu()
    return _measured(thought, s, r, table.cpu(), prefixes.target.cpu())


# One example


def closest(s: Tensor, table: Tensor, k: int = 3) -> Tensor:
    """The k items with the largest s . t(item), best first: states (..., d), table (N, d) -> (..., k)."""
    return (s @ table.T).topk(min(k, len(table)), dim=-1).indices


def step_table(walk: Walk, row: int, tokenizer, dataset, table: Tensor, k: int = 3) -> pd.DataFrame:
    """One example step by step, a row a state s_0..s_l.

    Columns: step (i), thought (o_i, the one read just before; "-" at step 0), residual (|r_i|, what
    it was chosen for), gap (|t - s_i|), rank (the target's under s_i) and nearest (titles of the k
    items closest to s_i). ``table`` (N, d) is that of ``item_table``.
    """
    near = closest(walk.s[row], table, k)
    return pd.DataFrame(
        {
            "step": range(walk.steps + 1),
            "thought": ["-", *(token_name(int(o), tokenizer.K) for o in walk.thought[row])],
            "residual": [np.nan, *walk.r[row].norm(dim=-1).tolist()],
            "gap": walk.norm[row].tolist(),
            "rank": walk.rank[row].tolist(),
            "nearest": ["; ".join(titles(dataset, items, 30)) for items in near.tolist()],
        }
    )


def typical(walk: Walk) -> int:
    """The example whose gaps and (log) ranks lie closest to the medians over all examples."""
    seen = torch.cat([walk.norm, walk.rank.log()], dim=1)
    spread = seen.std(dim=0, correction=0).clamp_min(1e-6)
    return int(((seen - seen.median(dim=0).values) / spread).square().sum(dim=1).argmin())


def hand_walk(s_0: Tensor, t: Tensor, target: int, codes: Tensor, l: int) -> pd.DataFrame:
    """The annotator without a model, for pencil and paper: both MLPs are the identity, and d_i is
    the embedding of the thought just read. So s_i = s_0 + o_1 + ... + o_i.

    Args:
        s_0: (d,), t: item representations (N, d), codes: (m*K, d).

    Returns:
        step, thought (index of a code, -1 at step 0), state, left (t - s_i), gap, rank; l + 1 rows.
    """
    s, rows, thought = s_0, [], -1
    for i in range(l + 1):
        r = t[target] - s
        rank = 1 + int((t @ s > t[target] @ s).sum())
        rows.append((i, thought, tuple(s.tolist()), tuple(r.tolist()), float(r.norm()), rank))
        thought = int(nearest(r[None], codes)[0])  # eq. 12
        s = s + codes[thought]
    return pd.DataFrame(rows, columns=["step", "thought", "state", "left", "gap", "rank"])


# Many examples


def population(walk: Walk, k: int = 10) -> pd.DataFrame:
    """A row a step: mean gap, mean and median rank, and the share of examples ranked in the first k."""
    rank = walk.rank.double()
    return pd.DataFrame(
        {
            "step": range(walk.steps + 1),
            "mean gap": walk.norm.double().mean(dim=0).tolist(),
            "mean rank": rank.mean(dim=0).tolist(),
            "median rank": rank.quantile(0.5, dim=0).tolist(),
            f"in first {k} (%)": (100 * (rank <= k).double().mean(dim=0)).tolist(),
        }
    )


def all_strategies(
    model: Backbone, tokenizer, prefixes: Prefixes, l: int, neighbours: Tensor, seed: int = 0
) -> dict[str, Walk]:
    """The same examples annotated in each way that the annotator knows; neighbours (N, pool)."""
    options = {"neighbours": neighbours.to(model.shared.weight.device), "seed": seed}
    return {name: annotated(model, tokenizer, prefixes, l, strategy=name, **options) for name in STRATEGIES}


def saying(walks: dict[str, Walk], tokenizer) -> pd.DataFrame:
    """Do thoughts say something? A row a way of thinking and step; see ``annotator.informativeness``.

    Columns: thoughts, step, codes used, entropy and information on the target's first code (bits),
    chance (the information that shuffled targets would show), own code (share of thoughts that are
    one of the target's m codes), repeated (share that equal the thought before; none at step 1) and
    the median rank after the step.
    """
    tokens = tokenizer.tokens.cpu()
    parts = []
    for name, walk in walks.items():
        report = informativeness(walk.thought, tokenizer, walk.target)
        own_code = (walk.thought[..., None] == tokens[walk.target][:, None]).any(dim=-1)  # (B, l)
        repeated = walk.thought[:, 1:] == walk.thought[:, :-1]
        parts.append(
            pd.DataFrame(
                {
                    "thoughts": name,
                    "step": range(1, walk.steps + 1),
                    "codes used": report["used"],
                    "entropy": report["entropy"],
                    "information": report["information"],
                    "chance": report["chance"],
                    "own code (%)": (100 * own_code.double().mean(dim=0)).tolist(),
                    "repeated (%)": [0.0, *(100 * repeated.double().mean(dim=0)).tolist()],
                    "median rank": walk.rank[:, 1:].double().quantile(0.5, dim=0).tolist(),
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


# A plane to look at


@contextmanager
def threads_kept() -> Iterator[None]:
    """UMAP's compiler sets the number of threads for the whole process; afterwards it is torch's again."""
    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class Plane:
    """A UMAP plane of the items' representations t, into which states can be placed afterwards.

    Args:
        table: t of all items (N, d); up to ``most`` of them are drawn.
        seed: of the choice and of UMAP; the same table gives the same plane.
    """

    def __init__(self, table: Tensor, most: int = 1500, seed: int = 0):
        import umap

        n = len(table)
        rows = np.random.default_rng(seed).choice(n, most, replace=False) if n > most else np.arange(n)
        self.table = np.asarray(table, dtype=np.float32)
        self.rows = np.sort(rows)  # (n,) item indices
        settings = {"min_dist": 0.6, "metric": "cosine", "random_state": seed, "n_jobs": 1}  # as notebook 02
        with threads_kept():
            self.mapper = umap.UMAP(n_neighbors=min(20, len(self.rows) - 1), **settings)
            self.points = self.mapper.fit_transform(self.table[self.rows])  # (n, 2)

    def place(self, vectors) -> np.ndarray:
        """Where vectors (n, d) lie in the plane: (n, 2)."""
        with threads_kept():
            return self.mapper.transform(np.asarray(vectors, dtype=np.float32))

    def item(self, item: int) -> np.ndarray:
        """Where an item lies: (2,)."""
        at = np.flatnonzero(self.rows == item)
        return self.points[at[0]] if len(at) else self.place(self.table[[item]])[0]
