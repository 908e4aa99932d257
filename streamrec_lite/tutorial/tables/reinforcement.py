"""Tables of notebook 08, reinforcement: rollouts, one update, the ablation of rewards, and the log."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from ...common.device import seed_everything
from ...common.files import read_json
from ...common.schemas import Prefixes
from ...config.reinforcement import GrpoConfig
from ...data.dataset import Dataset
from ...model.backbone import Backbone
from ...tokenizer.semantic_ids import SemanticTokenizer, token_name
from ...training.dpo import reference_log_probs
from ...training.grpo import rollout_log_probs
from ...training.rewards import REWARD_NAMES
from ...training.rollout_batch import RolloutBatch, collect_rollouts, rollout_table, update_losses
from .style import titles


@dataclasses.dataclass
class RolloutModels:
    """What the examples of notebook 08 share: the fine-tuned model, pi_ref, the items, and l."""

    model: Backbone
    reference: Backbone  # the pretrained model, whose direct decoder is pi_ref
    tokenizer: SemanticTokenizer
    neighbours: Tensor  # (N, K or more) items of similar text
    l: int

    def collect(self, model: Backbone, batch: Prefixes, config: GrpoConfig, seed: int) -> RolloutBatch:
        """Rollouts of ``model`` with their rewards and advantages; the same seed gives the same ones.

        Args:
            model: the policy.
            batch: B users.
            config: rewards and sizes; float32 is used whatever it says.
            seed: of the sampling.
        """
        seed_everything(seed, "lesson")
        none = torch.zeros(self.tokenizer.n_items, 0, dtype=torch.long)
        reference = reference_log_probs(self.reference, self.tokenizer, batch, none)[:, 0]
        negatives = self.neighbours[batch.target][:, : config.K]
        exact = dataclasses.replace(config, rollout_precision="float32")  # small changes must be visible
        return collect_rollouts(model, self.model, self.tokenizer, batch, reference, negatives, self.l, exact)


def user_with_mixed_rollouts(
    models: RolloutModels, prefixes: Prefixes, config: GrpoConfig, seed: int = 0
) -> int:
    """The row of ``prefixes`` whose four rollouts differ most in the reward "match".

    Each user is sampled alone, as in ``one_update_table``, so that the random numbers are the same.

    Args:
        models: with the policy.
        prefixes: the users to choose from.
        config: of the rewards; G is replaced by 4.
        seed: of the sampling.
    """
    few, spread = dataclasses.replace(config, G=4), []
    for row in range(prefixes.n_examples):
        found = models.collect(models.model, prefixes.select(torch.tensor([row])), few, seed)
        spread.append(float(found.rewards["match"].std()))
    return max(range(len(spread)), key=spread.__getitem__)


def one_update_table(
    models: RolloutModels,
    user: Prefixes,
    dataset: Dataset,
    config: GrpoConfig,
    lr: float = 1e-4,
    seed: int = 0,
) -> pd.DataFrame:
    """Four rollouts of one user, their rewards, and how one update on these four changes them.

    "log P before" and "log P after" are of the whole rollout, in nats; "change" is their difference.

    Args:
        models: with the policy; it is copied.
        user: one example.
        dataset: for the titles of items.
        config: of the rewards and the loss; G is replaced by 4.
        lr: learning rate of the update.
        seed: of the sampling.
    """
    few = dataclasses.replace(config, G=4)
    model = copy.deepcopy(models.model).eval().requires_grad_(True)
    found = models.collect(model, user, few, seed)
    table = named_rollouts(rollout_table(user, found, few), models.tokenizer, dataset)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.0)
    losses = update_losses(model, models.tokenizer, user, found, few)
    losses["loss"].backward()
    optimizer.step()
    with torch.no_grad():
        states, mask = model.encode_history(models.tokenizer, user.history)
        after = rollout_log_probs(model, models.tokenizer, states, mask, found.rollouts, few.temperature)
    table["log P before"] = found.rollouts.log_prob.sum(1).tolist()
    table["log P after"] = after.sum(1).tolist()
    table["change"] = table["log P after"] - table["log P before"]
    return table


def named_rollouts(
    rollouts: list[dict[str, Any]], tokenizer: SemanticTokenizer, dataset: Dataset
) -> pd.DataFrame:
    """The rows of ``rollout_table`` for readers: thoughts as level:code, answers as titles."""
    table = pd.DataFrame(rollouts)
    table["thoughts"] = [
        " ".join(token_name(token, tokenizer.K) for token in row) for row in table["thoughts"]
    ]
    names = [titles(dataset, [item], 40)[0] if item >= 0 else "(no item)" for item in table["item"]]
    table.insert(list(table.columns).index("item") + 1, "answer", names)
    table["right"] = table["item"] == table["target"]
    return table


def read_rollouts(
    folder: str | Path, tokenizer: SemanticTokenizer, dataset: Dataset
) -> dict[int, pd.DataFrame]:
    """The rollouts that stage 3 recorded before each block of updates: block -> ``named_rollouts``."""
    paths = sorted(Path(folder).glob("rollouts-*.json"), key=lambda p: int(p.stem.split("-")[1]))
    return {int(p.stem.split("-")[1]): named_rollouts(read_json(p), tokenizer, dataset) for p in paths}


def reward_ablation(
    models: RolloutModels,
    train: Prefixes,
    judged: Prefixes,
    config: GrpoConfig,
    updates: int = 10,
    lr: float = 1e-4,
    seed: int = 0,
) -> pd.DataFrame:
    """How all rewards change after a few updates with all rewards, without each one, and with each alone.

    A row for each choice of rewards, a column for each reward: its mean over the rollouts of ``judged``
    after the updates, minus before. Users and random numbers are the same in every row.

    Args:
        models: with the policy; it is copied for every row.
        train: the users to learn from.
        judged: the users whose rewards are compared.
        config: of the rewards and the loss.
        updates: how many.
        lr: learning rate.
        seed: of the sampling.
    """
    every = [name for name in REWARD_NAMES if getattr(config, f"{name}_weight") > 0]
    choices = {"all": every}
    choices |= {f"without {name}": [n for n in every if n != name] for name in every if name != "format"}
    choices |= {f"{name} alone": [name] for name in every if name != "format"}

    def mean_rewards(model: Backbone) -> dict[str, float]:
        found = models.collect(model, judged, config, seed)
        return {name: float(value.mean()) for name, value in found.rewards.items()}

    before, rows = mean_rewards(models.model), {}
    for name, kept in choices.items():
        without: dict[str, Any] = {f"{n}_weight": 0.0 for n in REWARD_NAMES if n not in kept}
        chosen = dataclasses.replace(config, **without)
        model = copy.deepcopy(models.model).eval().requires_grad_(True)
        optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.0)
        for step in range(updates):
            order = torch.randperm(train.n_examples, generator=torch.Generator().manual_seed(step))
            batch = train.select(order[: config.batch_size])
            found = models.collect(model, batch, chosen, seed + 1 + step)
            losses = update_losses(model, models.tokenizer, batch, found, chosen)
            optimizer.zero_grad()
            losses["loss"].backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), chosen.max_grad_norm)
            optimizer.step()
        rows[name] = {n: value - before[n] for n, value in mean_rewards(model).items()}
    return pd.DataFrame(rows).T


def block_table(rows: list[dict], tokens: int) -> pd.DataFrame:
    """The training log by block of updates; block 0 is the fine-tuned model.

    ``tokens``: how many tokens the rollouts of one user have together, G * (l + m).
    """
    table = pd.DataFrame(rows).set_index("epoch").rename_axis("block")
    table["rollout tokens/s"] = (table["samples_per_second"] * tokens).round()
    wanted = ["valid N@10", "gain in errors", "reward", "reward std", "frac_reward_zero_std"]
    wanted += ["match depth", "invalid", "kl", "entropy", "clip_ratio low", "clip_ratio high"]
    wanted += ["rollout tokens/s"]
    return table[[name for name in wanted if name in table]]
