"""Reinforcement in slow motion, as tables: rollouts by hand, one update, and what each reward drives."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from ...common.device import seed_everything
from ...common.files import read_json
from ...common.schemas import Prefixes
from ...config.sections import GrpoConfig
from ...model.backbone import Backbone, history_tokens
from ...tokenizer.semantic_ids import token_name
from ...training.dpo import reference_log_probs
from ...training.grpo import rollout_log_probs
from ...training.reinforce import Collected, collect, rollout_table, update_losses
from ...training.rewards import NAMES
from .items import titles


@dataclasses.dataclass
class School:
    """What every lesson needs: the fine-tuned model, pi_ref, the catalogue, and l."""

    model: Backbone
    reference: Backbone  # the pretrained model, whose direct decoder is pi_ref
    tokenizer: object
    neighbours: Tensor  # (N, K or more) items of similar text
    l: int

    def collect(self, model: Backbone, batch: Prefixes, config: GrpoConfig, seed: int) -> Collected:
        """Judged rollouts of ``model``, always the same for the same seed."""
        seed_everything(seed, "lesson")
        none = torch.zeros(self.tokenizer.n_items, 0, dtype=torch.long)
        reference = reference_log_probs(self.reference, self.tokenizer, batch, none)[:, 0]
        negatives = self.neighbours[batch.target][:, : config.K]
        exact = dataclasses.replace(config, rollouts="float32")  # small steps are to be seen
        return collect(model, self.model, self.tokenizer, batch, reference, negatives, self.l, exact)


def mixed_user(school: School, prefixes: Prefixes, config: GrpoConfig, seed: int = 0) -> int:
    """The row of ``prefixes`` whose four rollouts differ most in the codes that are right.

    Each user is asked alone, as ``by_hand`` does it: in a batch others would have the first random numbers.
    """
    few, apart = dataclasses.replace(config, G=4), []
    for row in range(prefixes.n_examples):
        found = school.collect(school.model, prefixes.select(torch.tensor([row])), few, seed)
        apart.append(float(found.rewards["match"].std()))
    return max(range(len(apart)), key=apart.__getitem__)


def by_hand(
    school: School, user: Prefixes, dataset, config: GrpoConfig, lr: float = 1e-4, seed: int = 0
) -> pd.DataFrame:
    """Four rollouts of one user, what they earn, and how one update on them alone moves them.

    ``user``: one example. "log P before" and "after" are of the whole rollout, in nats.
    """
    few = dataclasses.replace(config, G=4)
    model = copy.deepcopy(school.model).eval().requires_grad_(True)
    found = school.collect(model, user, few, seed)
    table = sheet_frame(rollout_table(user, found, few), school.tokenizer, dataset)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.0)
    losses = update_losses(model, school.tokenizer, user, found, few)
    losses["loss"].backward()
    optimizer.step()
    with torch.no_grad():
        states, mask = model.encode(history_tokens(school.tokenizer.tokens, user.history))
        after, _ = rollout_log_probs(model, school.tokenizer, states, mask, found.rollouts, few.temperature)
    table["log P before"] = found.rollouts.log_prob.sum(1).tolist()
    table["log P after"] = after.sum(1).tolist()
    table["moved"] = table["log P after"] - table["log P before"]
    return table


def sheet_frame(sheet: list[dict], tokenizer, dataset) -> pd.DataFrame:
    """A rollout sheet with names: thoughts as level:code, items by their titles."""
    table = pd.DataFrame(sheet)
    table["thoughts"] = [
        " ".join(token_name(token, tokenizer.K) for token in row) for row in table["thoughts"]
    ]
    names = [titles(dataset, [item], 40)[0] if item >= 0 else "(no item)" for item in table["item"]]
    table.insert(table.columns.get_loc("item") + 1, "answer", names)
    table["right"] = table["item"] == table["target"]
    return table


def sheets(folder: str | Path, tokenizer, dataset) -> dict[int, pd.DataFrame]:
    """The rollout sheets that stage 3 left: block -> ``sheet_frame``."""
    paths = sorted(Path(folder).glob("rollouts-*.json"), key=lambda p: int(p.stem.split("-")[1]))
    return {int(p.stem.split("-")[1]): sheet_frame(read_json(p), tokenizer, dataset) for p in paths}


def ablation(
    school: School,
    train: Prefixes,
    judged: Prefixes,
    config: GrpoConfig,
    updates: int = 10,
    lr: float = 1e-4,
    seed: int = 0,
) -> pd.DataFrame:
    """Reinforce a little with all rewards, then without each, then with each alone: what becomes of all?

    A row a mix of rewards, a column a reward: its mean over rollouts for ``judged`` after the updates,
    minus before. The same users and the same draws everywhere.
    """
    every = [name for name in NAMES if getattr(config, name) > 0]
    mixes = {"all": every}
    mixes |= {f"without {name}": [n for n in every if n != name] for name in every if name != "format"}
    mixes |= {f"{name} alone": [name] for name in every if name != "format"}

    def earned(model: Backbone) -> dict[str, float]:
        found = school.collect(model, judged, config, seed)
        return {name: float(value.mean()) for name, value in found.rewards.items()}

    before, rows = earned(school.model), {}
    for name, kept in mixes.items():
        mix = dataclasses.replace(config, **{n: 0.0 for n in NAMES if n not in kept})
        model = copy.deepcopy(school.model).eval().requires_grad_(True)
        optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.0)
        for step in range(updates):
            rows_ = torch.randperm(train.n_examples, generator=torch.Generator().manual_seed(step))
            batch = train.select(rows_[: config.batch_size])
            found = school.collect(model, batch, mix, seed + 1 + step)
            losses = update_losses(model, school.tokenizer, batch, found, mix)
            optimizer.zero_grad()
            losses["loss"].backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), mix.clip)
            optimizer.step()
        rows[name] = {n: value - before[n] for n, value in earned(model).items()}
    return pd.DataFrame(rows).T


def log_table(rows: list[dict], tokens: int) -> pd.DataFrame:
    """The run's log by block; block 0 is the fine-tuned model.

    ``tokens``: how many a user's rollouts have together, G * (l + m).
    """
    table = pd.DataFrame(rows).set_index("epoch").rename_axis("block")
    table["rollout tokens/s"] = (table["samples_per_second"] * tokens).round()
    wanted = ["valid N@10", "gain in errors", "reward", "reward std", "frac_reward_zero_std"]
    wanted += ["match depth", "invalid", "kl", "entropy", "clip_ratio low", "clip_ratio high"]
    wanted += ["rollout tokens/s"]
    return table[[name for name in wanted if name in table]]
