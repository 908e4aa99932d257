"""A finished run, read whole: the table, differences, groups of users, and where models agree.

Everything is computed from results.json and from the ranks that each model's folder keeps: a tensor
(users,) a seed, 1 is best, 0 means that the target was not among the first ten.
"""

from __future__ import annotations

import dataclasses
import itertools
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ...common.files import read_json, read_tensors
from ...evaluation.metrics import METRIC_NAMES, metric_per_user, recall_at
from ...evaluation.results_table import PAPER, REFERENCE, mean_text
from ...running.results import GUIDED, model_rows
from ...running.run import Run
from ...running.stage_table import ORACLE, TABLE

LENGTHS = (1, 5, 8, 13)  # where groups of history lengths begin
SHARE = 0.2  # of the training interactions: what the head holds, and what the tail holds
BANDS = ("head", "middle", "tail")


def with_all_seeds(run: Run) -> Run:
    """The run with every seed that is finished: a notebook opens it for one, results are of all."""
    seeds = read_json(run.dir / "config.json")["seeds"]

    def finished(seed: int) -> bool:
        rows = model_rows(dataclasses.replace(run, seeds=(seed,))).values()
        return all(run.marker(*part) for row in rows for part in row.values())

    return dataclasses.replace(run, seeds=tuple(s for s in seeds if finished(s)) or run.seeds)


def read_ranks(run: Run) -> dict[str, list[Tensor]]:
    """Ranks of the test users' targets: model -> a tensor (users,) a seed; the oracle, if any, last."""
    ranks: dict[str, list[Tensor]] = {}
    for model, rows in model_rows(run).items():
        for part in rows.values():
            kept = read_tensors(run.folder(*part) / "ranks.safetensors")[0]
            ranks.setdefault(model, []).append(kept["test"])
            if model in GUIDED:
                ranks.setdefault(GUIDED[model], []).append(kept["guided test"])
    if TABLE[ORACLE].applies(run.config):
        ranks[ORACLE] = [read_tensors(run.folder(ORACLE) / "ranks.safetensors")[0]["test"]]
    return ranks


def per_user(ranks: dict[str, list[Tensor]], metric: str = "N@10") -> dict[str, np.ndarray]:
    """A metric's value for every user, the mean over seeds: model -> (users,) float64."""
    return {
        m: torch.stack([metric_per_user(r, metric) for r in rows]).mean(0).numpy()
        for m, rows in ranks.items()
    }


# The table


def main_table(results: dict) -> pd.DataFrame:
    """A row a model, as text: metrics, N@10 minus TIGER's, share of the oracle, size and speed."""
    oracle, table = results.get("oracle"), {}
    for model, rows in results["models"].items():
        summary, rows = results["summary"][model]["test"], list(rows.values())
        cells = {name: mean_text(summary[name]) for name in METRIC_NAMES}
        gap = results[f"versus_{REFERENCE}"].get(model, {}).get("N@10")
        minus = "{mean_difference:+.4f} [{low:+.4f}, {high:+.4f}]".format(**gap) if gap else "-"
        cells[f"N@10 - {REFERENCE} [95 %]"] = minus
        if oracle:
            best = oracle["test"]["N@10"]
            cells["of oracle"] = f"{100 * summary['N@10']['mean'] / best:.1f} %" if best else "-"
        cells["parameters"] = f"{rows[0]['parameters']:,}" if "parameters" in rows[0] else "-"
        cells["train (s)"] = f"{np.mean([row['train_seconds'] for row in rows]):,.1f}"
        cells["users/s"] = f"{np.mean([row['users_per_second'] for row in rows]):,.0f}"
        table[model] = cells
    if oracle:
        table["*oracle*"] = {n: f"{oracle['test'][n]:.4f}" for n in METRIC_NAMES} | {"of oracle": "100 %"}
    return pd.DataFrame(table).T.fillna("-").rename_axis("model")


def paper_table(results: dict, metric: str = "N@10") -> pd.DataFrame:
    """The paper's models that the run has too: the paper's figures and ours, each with its place.

    The data sets differ, so only places compare, and only among these models.
    """
    at = METRIC_NAMES.index(metric)
    shared = [model for model in PAPER if model in results["summary"]]
    columns = {
        "paper, Instruments": [PAPER[model][at] for model in shared],
        "paper, Scientific": [PAPER[model][at + len(METRIC_NAMES)] for model in shared],
        "ours": [results["summary"][model]["test"][metric]["mean"] for model in shared],
    }
    table = pd.DataFrame(columns, index=pd.Index(shared, name=metric))
    for name in columns:
        place = table[name].rank(ascending=False, method="min").astype(int)
        table.insert(table.columns.get_loc(name) + 1, f"place ({name})", place)
    return table


def same_order(table: pd.DataFrame, a: str = "ours", b: str = "paper, Scientific") -> tuple[int, int]:
    """How many pairs of models stand in the same order in two columns, and how many pairs there are."""
    pairs = list(itertools.combinations(table.index, 2))
    same = [(table.loc[x, a] - table.loc[y, a]) * (table.loc[x, b] - table.loc[y, b]) > 0 for x, y in pairs]
    return sum(bool(s) for s in same), len(pairs)


def tuning_table(results: dict) -> pd.DataFrame:
    """What was tried for each model: a row a try, the kept one first. Empty if no row has "tuning".

    All seeds of a model share one tuning, which stands in each of their rows.
    """
    tried = []
    for model, rows in results["models"].items():
        tries = next((row["tuning"] for row in rows.values() if row.get("tuning")), [])
        tried += [{"model": model, **t, "kept": i == 0} for i, t in enumerate(tries)]
    return pd.DataFrame(tried)


# Differences


def forest(results: dict, metric: str = "N@10", models: list[str] | None = None) -> pd.DataFrame:
    """Each model minus TIGER: difference, low, high, p, and "sure" where the interval excludes 0.

    The best model first. ``models``: only these.
    """
    rows = {}
    for model, by_metric in results[f"versus_{REFERENCE}"].items():
        if model in results["models"] and (models is None or model in models):
            gap = by_metric[metric]
            row = {"difference": gap["mean_difference"], "low": gap["low"], "high": gap["high"]}
            rows[model] = {**row, "p": gap["p"], "sure": gap["low"] > 0 or gap["high"] < 0}
    table = pd.DataFrame.from_dict(rows, orient="index", columns=["difference", "low", "high", "p", "sure"])
    return table.sort_values("difference", ascending=False)


# Groups of users


class Groups(NamedTuple):
    """A partition of the test users."""

    names: tuple[str, ...]
    of: np.ndarray  # (users,) int64, the number of each user's group

    @property
    def users(self) -> np.ndarray:
        """(groups,) how many users each group has."""
        return np.bincount(self.of, minlength=len(self.names))


def length_groups(length: Tensor, starts: tuple[int, ...] = LENGTHS) -> Groups:
    """Users by how many items their history has; ``length`` (users,), groups begin at ``starts``."""
    ends = [*(start - 1 for start in starts[1:]), None]
    names = [f"{a} or more" if b is None else f"{a}" if a == b else f"{a}-{b}"
             for a, b in zip(starts, ends, strict=True)]  # fmt: skip
    return Groups(tuple(names), np.searchsorted(starts, length.cpu().numpy(), side="right") - 1)


def popularity_bands(counts: Tensor, share: float = SHARE) -> np.ndarray:
    """Head (0), middle (1) or tail (2) of each item, (N,), by its training interactions ``counts`` (N,).

    Items stand in order, the most popular first (ties: the lower number). The head is filled until it
    holds ``share`` of all interactions; the tail is what comes once 1 - ``share`` have been counted.
    """
    counts = counts.cpu().numpy()
    order = np.argsort(-counts, kind="stable")
    before = np.cumsum(counts[order]) - counts[order]  # interactions of the items that stand before
    total = counts.sum()
    bands = np.empty(len(counts), dtype=np.int64)
    bands[order] = (before >= share * total).astype(np.int64) + (before >= (1 - share) * total)
    return bands


def popularity_groups(target: Tensor, counts: Tensor, share: float = SHARE) -> Groups:
    """Users by how popular their target is; ``target`` (users,), ``counts`` (N,)."""
    return Groups(BANDS, popularity_bands(counts, share)[target.cpu().numpy()])


def by_group(values: dict[str, np.ndarray], groups: Groups, reference: str | None = None) -> pd.DataFrame:
    """Mean of each model in each group that has users: model, group, users, mean, low, high.

    The interval is mean ± 1.96 standard errors over users, in the units of ``values``. With a
    ``reference`` the values are differences to that model on the same users; it has no rows itself.
    """
    rows = []
    for model, value in values.items():
        if model == reference:
            continue
        value = value if reference is None else value - values[reference]
        for number, name in enumerate(groups.names):
            part = value[groups.of == number]
            if not len(part):
                continue
            error = part.std(ddof=1) / len(part) ** 0.5 if len(part) > 1 else np.nan
            mean = part.mean()
            row = {"model": model, "group": name, "users": len(part), "mean": mean}
            rows.append({**row, "low": mean - 1.96 * error, "high": mean + 1.96 * error})
    return pd.DataFrame(rows)


def wide(table: pd.DataFrame) -> pd.DataFrame:
    """The means of ``by_group``, a row a model and a column a group, in the order in which they came."""
    models, names = (table[column].unique() for column in ("model", "group"))
    return table.pivot(index="model", columns="group", values="mean").loc[models, names]


def intervals(table: pd.DataFrame) -> pd.DataFrame:
    """As ``wide``, of differences and with their intervals, as text: "+0.0100 [-0.0020, +0.0220]"."""
    columns = zip(table["mean"], table["low"], table["high"], strict=True)
    return wide(table.assign(mean=[f"{mean:+.4f} [{low:+.4f}, {high:+.4f}]" for mean, low, high in columns]))


# Agreement


def hits(ranks: dict[str, list[Tensor]], k: int = 10) -> dict[str, np.ndarray]:
    """Whose target is among the first k: model -> (seeds, users) bool; a model that counts has one row."""
    return {m: torch.stack([recall_at(r, k) for r in rows]).bool().numpy() for m, rows in ranks.items()}


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Jaccard: of the users that at least one of two models hits, the share that both hit. (seeds, users)."""
    either = (a | b).sum()
    return float((a & b).sum() / either) if either else float("nan")


def overlap_table(hit: dict[str, np.ndarray]) -> pd.DataFrame:
    """``overlap`` of every two models, seed by seed with the same seed."""
    return pd.DataFrame({b: {a: overlap(hit[a], hit[b]) for a in hit} for b in hit})


def pair_table(hit: dict[str, np.ndarray], reference: str = REFERENCE) -> pd.DataFrame:
    """Each model beside the reference: shares of users that both hit, that one alone hits, and neither."""
    other, rows = hit[reference], {}
    for model, mine in hit.items():
        if model != reference:
            parts = {"both": mine & other, "only this one": mine & ~other}
            parts |= {f"only {reference}": ~mine & other, "neither": ~mine & ~other}
            rows[model] = {name: part.mean() for name, part in parts.items()}
            rows[model]["overlap"] = overlap(mine, other)
    return pd.DataFrame(rows).T.sort_values("overlap", ascending=False)


def between_seeds(hit: dict[str, np.ndarray]) -> dict[str, float]:
    """Mean ``overlap`` of a model with itself, trained with another seed; models of one seed are left out."""
    return {
        model: float(np.mean([overlap(a, b) for a, b in itertools.combinations(mine, 2)]))
        for model, mine in hit.items()
        if len(mine) > 1
    }


def reach(hit: dict[str, np.ndarray]) -> pd.DataFrame:
    """The share of users that at least one of the first 1, 2, 3, ... models hits.

    The best model stands first; then comes whichever adds most (ties: in the order given). Who adds
    most is read from the test users themselves, and no real ensemble knows whom to believe: an upper
    bound.
    """
    left, covered, rows = dict(hit), np.zeros((1, 1), dtype=bool), []
    while left:
        shares = {model: float((covered | mine).mean()) for model, mine in left.items()}
        best = max(shares, key=shares.get)
        alone = float(hit[best].mean())
        covered = covered | left.pop(best)
        rows.append({"model": best, "alone": alone, "at least one": shares[best]})
    return pd.DataFrame(rows)


def main_rows(results: dict, most: int = 6) -> list[str]:
    """The best models by test N@10, TIGER among them; variants, with a comma in the name, left out."""
    score = {m: results["summary"][m]["test"]["N@10"]["mean"] for m in results["models"] if "," not in m}
    best = sorted(score, key=score.get, reverse=True)
    if REFERENCE in best[most:]:
        return [*best[: most - 1], REFERENCE]
    return best[:most]
