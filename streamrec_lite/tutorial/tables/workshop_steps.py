"""Tables of notebook 10, steps: the errands themselves, and the steps that models take.

An errand of h steps leads from its start over the true steps x_1..x_h to the goal x_h. A thought names an
item where the tokenizer has one level (m = 1); with m levels, m thoughts name one.
"""

from __future__ import annotations

from typing import NamedTuple

import pandas as pd
import torch
from torch import Tensor

from ...common.schemas import Prefixes, Splits
from ...data.dataset import Dataset
from ...data.workshop_world import MAX_STEPS, WorkshopWorld
from ...inference.recommender import StreamRec
from ...inference.thinking import write_thoughts
from ...model.backbone import Backbone
from ...running.run import Run
from ...running.stages import row_of, run_tokenizer
from ...training.channel import answers_after
from .style import titles
from .thinking import closest_items
from .trajectory import item_representations, trajectory_of


def load_model(run: Run, name: str, seed: int) -> StreamRec:
    """A model of the stage table that thinks, as it is asked: l greedy thoughts, on the CPU."""
    row, beams = row_of(run, name, seed), run.config.evaluate.beams
    model, ids = Backbone.load(run.folder(name, seed)), run_tokenizer(run)
    return StreamRec(model, ids, beams, l=row["l"], think="greedy", device="cpu")


# The world


def errand_table(world: WorkshopWorld, dataset: Dataset, user: Prefixes) -> pd.DataFrame:
    """The true steps of one example: step, guide (that is read) and part (that it leads to)."""
    start, pile = world.read(user)
    steps = int(world.steps(user)[0])
    guides = [world.n_parts - 1 + int(row) for row in pile[0, :steps]]
    parts = [int(start[0]), *world.path(user, steps)[0].tolist()]
    columns = {
        "step": range(steps + 1),
        "guide": ["-", *titles(dataset, guides)],
        "part": titles(dataset, parts),
    }
    return pd.DataFrame(columns)


def guide_table(world: WorkshopWorld, dataset: Dataset, parts: int = 6) -> pd.DataFrame:
    """Where the guides lead from the first few parts: a row for each part, a column for each guide."""
    names = titles(dataset, range(world.n_parts, world.n_parts + world.n_guides))
    columns = {name: titles(dataset, world.leads_to[1 + i, :parts]) for i, name in enumerate(names)}
    return pd.DataFrame(columns, index=pd.Index(titles(dataset, range(parts)), name="from"))


def combination_table(world: WorkshopWorld, splits: Splits) -> pd.DataFrame:
    """Combinations of a pile and a part by split, a row for each number of steps.

    Columns: possible, train, test (different ones in each) and "test, seen in training".
    """
    seen = [_combinations(world, part) for part in (splits.train, splits.test)]
    rows = {}
    for h in range(1, MAX_STEPS + 1):
        train, test = ({c for c in part if len(c) == h + 1} for part in seen)
        possible = world.n_parts * world.n_guides**h
        rows[h] = {"possible": possible, "train": len(train), "test": len(test)}
        rows[h]["test, seen in training"] = len(test & train)
    return pd.DataFrame(rows).T.rename_axis(index="steps")


def _combinations(world: WorkshopWorld, prefixes: Prefixes) -> set[tuple[int, ...]]:
    """The different (part, guide_1, ..., guide_h) of the examples."""
    start, pile = world.read(prefixes)
    rows = torch.cat([start[:, None], pile], dim=1).unique(dim=0).tolist()
    return {tuple(row[: 1 + sum(guide > 0 for guide in row[1:])]) for row in rows}


# The steps that a model takes


class Walk(NamedTuple):
    """What a model thinks about B errands, l items long, and what it would answer after each thought."""

    item: Tensor  # (B, l) int64, what thought i names; -1 for no item
    path: Tensor  # (B, l) int64, the true step i; after the last one it stays there
    steps: Tensor  # (B,) int64, h
    state_item: Tensor  # (B, l + 1) int64, the item closest to the state s_i
    residual: Tensor  # (B, l + 1) |t(the true next step) - s_i|; for i = l: the goal
    probability: Tensor  # (B, l + 1) of the goal, if the model answers after i thoughts


def named_items(model: StreamRec, prefixes: Prefixes) -> Tensor:
    """The items (B, l) that the model's greedy thoughts name; -1 for no item."""
    ids, l = model.tokenizer, model.l // model.tokenizer.m
    return ids.items_of(write_thoughts(model.model, ids, prefixes, l * ids.m).unflatten(1, (l, ids.m)))


@torch.inference_mode()
def walk_of(model: StreamRec, world: WorkshopWorld, prefixes: Prefixes) -> Walk:
    """What ``model`` thinks, greedily, about B examples."""
    ids, l = model.tokenizer, model.l // model.tokenizer.m
    path = world.path(prefixes, max(l, MAX_STEPS))
    goals = prefixes._replace(target=path[:, -1])
    thought = write_thoughts(model.model, ids, prefixes, l * ids.m)
    s = trajectory_of(model.model, ids, goals, thought).s[:, :: ids.m]  # (B, l + 1, d)
    table = item_representations(model.model, ids)
    following = torch.cat([path[:, :l], path[:, -1:]], dim=1)
    cut = {str(i): thought[:, : i * ids.m] for i in range(l + 1)}
    answers = answers_after(model.model, ids, goals, cut, model.beams)
    return Walk(
        item=ids.items_of(thought.unflatten(1, (l, ids.m))),
        path=path[:, :l],
        steps=world.steps(prefixes),
        state_item=closest_items(s, table, 1)[..., 0],
        residual=(table[following] - s).norm(dim=-1),
        probability=torch.stack([found.nats.neg().exp() for found in answers.values()], dim=1),
    )


def state_share(walk: Walk) -> float:
    """The share of states before the goal, s_0..s_{h-1}, whose closest item is the true next step."""
    l = walk.path.shape[1]
    before = torch.arange(l) < walk.steps[:, None]
    return float((walk.state_item[:, :l] == walk.path)[before].double().mean())


def walk_table(walk: Walk, row: int, dataset: Dataset) -> pd.DataFrame:
    """One errand thought by thought, a row for 0..l thoughts.

    Columns: thoughts (how many), thought (the item that the last one names), true step, right, state (the
    item closest to it), residual, P(goal).
    """
    return pd.DataFrame(
        {
            "thoughts": range(walk.residual.shape[1]),
            "thought": ["-", *titles(dataset, walk.item[row])],
            "true step": ["-", *titles(dataset, walk.path[row])],
            "right": ["-", *("yes" if ok else "no" for ok in walk.item[row] == walk.path[row])],
            "state": titles(dataset, walk.state_item[row]),
            "residual": walk.residual[row].tolist(),
            "P(goal)": walk.probability[row].tolist(),
        }
    )


def steps_taken(item: Tensor) -> Tensor:
    """After how many thoughts (B, l) the item stays what it is: (B,), at least 1 where there are thoughts."""
    if not item.shape[1]:
        return torch.zeros(len(item), dtype=torch.long)
    moved = torch.ones_like(item, dtype=torch.bool)
    moved[:, 1:] = item[:, 1:] != item[:, :-1]
    return (moved * torch.arange(1, item.shape[1] + 1)).max(dim=1).values


def steps_taken_table(item: Tensor, steps: Tensor) -> pd.DataFrame:
    """Of the errands of h steps, the share (%) whose thoughts stop after 1, 2, ... items.

    Args:
        item: (B, l) what the thoughts name.
        steps: (B,) h.

    Returns:
        A row for each h, a column for each number of steps taken.
    """
    taken = steps_taken(item)
    columns = range(1, item.shape[1] + 1)
    rows = {
        int(h): {c: 100 * float((taken[steps == h] == c).double().mean()) for c in columns}
        for h in steps.unique()
    }
    return pd.DataFrame(rows).T.rename_axis(index="asked", columns="taken")
