"""Tables of notebook 10, thoughts: what reinforcement changes in them, and what the annotator writes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ...common.files import RunLog, read_json, read_tensors
from ...common.schemas import Prefixes, Splits
from ...data.dataset import Dataset
from ...data.workshop_world import MAX_STEPS, WorkshopWorld
from ...tokenizer.semantic_ids import SemanticTokenizer
from ...training.channel import derangement
from ...training.world_thoughts import world_thoughts
from .style import titles
from .workshop import Rows

KINDS = ("the target", "this step", "another step", "the start", "something else")


def strategy_table(dataset: Dataset, ids: SemanticTokenizer, user: Prefixes, l: int) -> pd.DataFrame:
    """What the models that are given thoughts learn from one example.

    Args:
        dataset: the workshop.
        ids: of its items.
        user: the example.
        l: number of thoughts.

    Returns:
        A row for True thoughts, for Pause tokens and for three draws of SFT; columns: thoughts (what they
        name) and answer (that is learned after them).
    """
    rows = {}
    draws = [("True thoughts", "true-steps", 0), ("Pause tokens", "pause", 0)]
    draws += [(f"SFT, draw {seed + 1}", "random-steps", seed) for seed in range(3)]
    for name, strategy, seed in draws:
        thought, target = world_thoughts(strategy, dataset, ids, user, l, seed)
        items = ids.items_of(thought[:, : l // ids.m * ids.m].unflatten(1, (-1, ids.m)))[0]
        rows[name] = {
            "thoughts": " → ".join(titles(dataset, items, 24)),
            "answer": titles(dataset, target)[0],
        }
    return pd.DataFrame(rows).T.rename_axis(index="model")


def reward_table(rows: Rows, models: tuple[str, ...], m: int) -> pd.DataFrame:
    """The share of the target's codes that rollouts match from the first on, by block of updates.

    It is the reward of RL. Columns: model, block, mean, low and high (over the seeds).

    Args:
        rows: of all models.
        models: those that were trained by blocks.
        m: code levels; with one level it is the share of right answers.
    """
    found = []
    for model in models:
        logs = [pd.DataFrame(RunLog(f"{row['dir']}/log.jsonl").rows()) for row in rows[model].values()]
        each = pd.concat([log.dropna(subset=["match depth"]).set_index("epoch") for log in logs])
        for block in sorted(set(each.index.tolist())):
            values = each.loc[[block], "match depth"] / m
            found.append((model, block, values.mean(), values.min(), values.max()))
    return pd.DataFrame(found, columns=["model", "block", "mean", "low", "high"])


def read_trains(
    folder: str | Path, ids: SemanticTokenizer, world: WorkshopWorld, splits: Splits
) -> pd.DataFrame:
    """The recorded rollouts before the first and before the last block of reinforcement.

    Args:
        folder: of the reinforced model.
        ids: of the items.
        world: knows the goals.
        splits: with the training users.

    Returns:
        Columns: block, user, steps (h of the user's errand), items (what the thoughts name), answer and goal
        (items), right.
    """
    row_of_user = dict(zip(splits.train.user.tolist(), range(splits.train.n_examples), strict=True))
    paths = sorted(Path(folder).glob("rollouts-*.json"), key=lambda p: int(p.stem.split("-")[1]))
    tables = []
    for path in dict.fromkeys((paths[0], paths[-1])):
        table = pd.DataFrame(read_json(path))
        users = splits.train.select(torch.tensor([row_of_user[user] for user in table["user"]]))
        thoughts = torch.tensor(table["thoughts"].tolist())
        whole = thoughts[:, : thoughts.shape[1] // ids.m * ids.m].unflatten(1, (-1, ids.m))
        goal = world.path(users, MAX_STEPS)[:, -1]
        found = {
            "block": int(path.stem.split("-")[1]),
            "user": table["user"],
            "steps": world.steps(users).tolist(),
            "items": ids.items_of(whole).tolist(),
            "answer": table["item"],
            "goal": goal.tolist(),
            "right": table["item"].to_numpy() == goal.numpy(),
        }
        tables.append(pd.DataFrame(found))
    return pd.concat(tables, ignore_index=True)


def example_trains(trains: pd.DataFrame, dataset: Dataset, count: int = 6) -> pd.DataFrame:
    """Trains of thought of the recorded user whose answers improve most, before and after reinforcement.

    Errands of one step count only where no others were recorded. Of several such users the one with the
    most steps is taken. Columns: block, thoughts, answer, right.
    """
    first, last = trains["block"].min(), trains["block"].max()
    trains = trains[trains["steps"] > 1] if (trains["steps"] > 1).any() else trains
    share = trains.groupby(["user", "steps", "block"])["right"].mean().unstack("block")
    gain = (share[last] - share[first]).reset_index(name="gain")
    user = gain.sort_values(["gain", "steps"], kind="stable")["user"].iloc[-1]
    mine = trains[trains["user"] == user].groupby("block").head(count)
    return pd.DataFrame(
        {
            "block": mine["block"],
            "thoughts": [" → ".join(titles(dataset, items, 24)) for items in mine["items"]],
            "answer": titles(dataset, mine["answer"], 24),
            "right": np.where(mine["right"], "yes", "no"),
        }
    ).set_index("block")


def last_traces(folder: str | Path) -> Tensor:
    """The annotator's thoughts (n, l) of all training examples, code tokens, in its last round."""
    paths = sorted(Path(folder).glob("traces-*.safetensors"), key=lambda p: int(p.stem.split("-")[1]))
    return read_tensors(paths[-1])[0]["thought"]


def annotated_table(
    ids: SemanticTokenizer, world: WorkshopWorld, prefixes: Prefixes, thought: Tensor
) -> pd.DataFrame:
    """What annotated thoughts say on errands of two steps and more, in per cent, and what chance gives.

    A thought counts once, by the first kind that fits: a code of the target, of the true step at its
    position, of another intermediate step, of the start, of something else. The goal is no intermediate
    step. "by chance" gives every errand another one's thoughts.

    Args:
        ids: of the items.
        world: knows the true steps.
        prefixes: n examples.
        thought: (n, l) code tokens.

    Returns:
        A row for each position and "all"; a column for each of ``KINDS`` and each ", by chance".
    """
    rows = (world.steps(prefixes) > 1).nonzero()[:, 0]
    users, own = prefixes.select(rows), thought[rows]
    kinds = {"": _kinds(ids, world, users, own)}
    kinds[", by chance"] = _kinds(ids, world, users, own[derangement(len(own))])
    table = {}
    for name, kind in kinds.items():
        for number, said in enumerate(KINDS):
            column = 100 * (kind == number).double()
            table[f"{said}{name}"] = [*column.mean(dim=0).tolist(), float(column.mean())]
    order = [f"{said}{name}" for said in KINDS for name in kinds]
    positions = [*map(str, range(1, own.shape[1] + 1)), "all"]
    return pd.DataFrame(table, index=pd.Index(positions, name="thought"))[order]


def _kinds(ids: SemanticTokenizer, world: WorkshopWorld, users: Prefixes, thought: Tensor) -> Tensor:
    """The index in ``KINDS`` of each thought (n, l)."""
    l, steps = thought.shape[1], world.steps(users)
    path = world.path(users, MAX_STEPS)
    number = torch.arange(l) // ids.m  # the step that a thought would name
    tokens = ids.tokens.cpu()

    def says(items: Tensor) -> Tensor:
        """Is the thought a code of the item (n, 1 or l)?"""
        return (thought[..., None] == tokens[items]).any(dim=-1)

    between = torch.arange(MAX_STEPS) < steps[:, None] - 1  # (n, MAX_STEPS): steps before the goal
    here = says(path[:, number.clamp_max(MAX_STEPS - 1)]) & (number < steps[:, None] - 1)
    each = torch.stack([says(path[:, i : i + 1]) & between[:, i : i + 1] for i in range(MAX_STEPS)])
    fits = [says(users.target[:, None]), here, each.any(dim=0), says(world.read(users)[0][:, None])]
    kind = torch.full_like(thought, len(KINDS) - 1)
    for i in reversed(range(len(fits))):
        kind = kind.masked_fill(fits[i], i)
    return kind


def annotated_findings(table: pd.DataFrame) -> list[str]:
    """Does the annotator find the intermediate steps? Sentences about ``annotated_table``."""
    every = table.loc["all"]
    steps, chance = (every[f"this step{name}"] + every[f"another step{name}"] for name in ("", ", by chance"))
    line = f"{steps:.1f} % of the annotated thoughts are an intermediate step; by chance {chance:.1f} %."
    if steps == 0:
        line = "no annotated thought is one."
    word = "finds" if steps > 2 * chance and steps > 1 else "does not find"
    target = f"{every['the target']:.1f} % are the target (by chance {every['the target, by chance']:.1f} %)."
    return [f"The residual annotator {word} the steps: {line}", target]
