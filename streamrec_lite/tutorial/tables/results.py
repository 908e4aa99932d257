"""Tables of notebook 09, results: all models, their differences, groups of users, and overlaps.

Everything is computed from results.json and from the ranks in each model's folder: a tensor (users,) for
each seed; 1 is best, 0 means that the target was not among the first ten, -1 that the user does not count.
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
from ...evaluation.results_table import NEW_METRICS, PAPER, REFERENCE, difference_text, mean_text
from ...running.results import GUIDED, model_rows
from ...running.run import Run
from ...running.stage_table import ORACLE, TABLE

LENGTHS = (1, 5, 8, 13)  # the shortest history of each group
SHARE = 0.2  # of the training interactions: those of the head, and those of the tail
BANDS = ("head", "middle", "tail")


def with_all_seeds(run: Run) -> Run:
    """The run with all its finished seeds: a notebook opens it with one, but results are over all."""
    seeds = read_json(run.dir / "config.json")["seeds"]

    def finished(seed: int) -> bool:
        rows = model_rows(dataclasses.replace(run, seeds=(seed,))).values()
        return all(run.marker(*part) for row in rows for part in row.values())

    return dataclasses.replace(run, seeds=tuple(s for s in seeds if finished(s)) or run.seeds)


def read_ranks(run: Run, split: str = "test") -> dict[str, list[Tensor]]:
    """Ranks of the targets in "test" or "test_new": model -> (users,) for each seed; the oracle last."""
    ranks: dict[str, list[Tensor]] = {}
    for model, rows in model_rows(run).items():
        for part in rows.values():
            kept = read_tensors(run.folder(*part) / "ranks.safetensors")[0]
            ranks.setdefault(model, []).append(kept[split])
            if model in GUIDED:
                ranks.setdefault(GUIDED[model], []).append(kept[f"guided {split}"])
    if TABLE[ORACLE].applies(run.config):
        ranks[ORACLE] = [read_tensors(run.folder(ORACLE) / "ranks.safetensors")[0][split]]
    return ranks


def metric_by_user(ranks: dict[str, list[Tensor]], metric: str = "N@10") -> dict[str, np.ndarray]:
    """A metric of every user, the mean over seeds: model -> (users,) float64."""
    return {
        m: torch.stack([metric_per_user(r, metric) for r in rows]).mean(0).numpy()
        for m, rows in ranks.items()
    }


# The table


def main_table(results: dict) -> pd.DataFrame:
    """A row for each model, as text: all items, new items only ("new"), N@10 minus TIGER's, size, speed."""
    oracle, table = results.get("oracle"), {}
    for model, rows in results["models"].items():
        summary, rows = results["summary"][model]["test"], list(rows.values())
        cells = {name: mean_text(summary[name]) for name in METRIC_NAMES}
        cells[f"N@10 - {REFERENCE} [95 %]"] = difference_text(results[f"versus_{REFERENCE}"], model)
        if oracle:
            best = oracle["test"]["N@10"]
            cells["of oracle"] = f"{100 * summary['N@10']['mean'] / best:.1f} %" if best else "-"
        new = results["summary"][model]["test_new"]
        cells |= {f"new {name}": mean_text(new[name]) for name in NEW_METRICS}
        cells[f"new N@10 - {REFERENCE} [95 %]"] = difference_text(results[f"versus_{REFERENCE}_new"], model)
        cells["parameters"] = f"{rows[0]['parameters']:,}" if "parameters" in rows[0] else "-"
        cells["train (s)"] = f"{np.mean([row['train_seconds'] for row in rows]):,.1f}"
        cells["users/s"] = f"{np.mean([row['users_per_second'] for row in rows]):,.0f}"
        table[model] = cells
    if oracle:
        table["*oracle*"] = {n: f"{oracle['test'][n]:.4f}" for n in METRIC_NAMES} | {"of oracle": "100 %"}
        table["*oracle*"] |= {f"new {n}": f"{oracle['test_new'][n]:.4f}" for n in NEW_METRICS}
    return pd.DataFrame(table).T.fillna("-").rename_axis("model")


def paper_comparison(results: dict, metric: str = "N@10") -> pd.DataFrame:
    """The models that both the paper and the run have: the paper's metric and ours, each with its place.

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
        table.insert(list(table.columns).index(name) + 1, f"place ({name})", place)
    return table


def pairs_in_same_order(
    table: pd.DataFrame, a: str = "ours", b: str = "paper, Scientific"
) -> tuple[int, int]:
    """(pairs of models that are in the same order in columns ``a`` and ``b``, all pairs)."""
    pairs = list(itertools.combinations(table.index, 2))
    same = [(table.loc[x, a] - table.loc[y, a]) * (table.loc[x, b] - table.loc[y, b]) > 0 for x, y in pairs]
    return sum(bool(s) for s in same), len(pairs)


def tuning_table(results: dict) -> pd.DataFrame:
    """The settings tried for each model, a row for each, the chosen one first. Empty if nothing was tuned.

    All seeds of a model share one tuning, which is repeated in each of their rows.
    """
    tried: list[dict] = []
    for model, rows in results["models"].items():
        tries: list[dict] = next((row["tuning"] for row in rows.values() if row.get("tuning")), [])
        tried += [{"model": model, **t, "kept": i == 0} for i, t in enumerate(tries)]
    return pd.DataFrame(tried)


# Differences


def difference_table(
    results: dict, metric: str = "N@10", models: list[str] | None = None, new: bool = False
) -> pd.DataFrame:
    """Each model minus TIGER, best first: difference, low, high, p, and whether the interval excludes 0.

    Args:
        results: a results.json.
        metric: a name of ``METRIC_NAMES``.
        models: only these; None: all.
        new: new items only.
    """
    rows = {}
    for model, by_metric in results[f"versus_{REFERENCE}{'_new' if new else ''}"].items():
        if model in results["models"] and (models is None or model in models):
            gap = by_metric[metric]
            row = {"difference": gap["mean_difference"], "low": gap["low"], "high": gap["high"]}
            rows[model] = {**row, "p": gap["p"], "excludes 0": gap["low"] > 0 or gap["high"] < 0}
    table = pd.DataFrame.from_dict(
        rows, orient="index", columns=["difference", "low", "high", "p", "excludes 0"]
    )
    return table.sort_values("difference", ascending=False)


# Groups of users


class UserGroups(NamedTuple):
    """A partition of the test users."""

    names: tuple[str, ...]
    of: np.ndarray  # (users,) int64, the index of each user's group

    @property
    def users(self) -> np.ndarray:
        """(groups,) the number of users in each group."""
        return np.bincount(self.of, minlength=len(self.names))


def length_groups(length: Tensor, starts: tuple[int, ...] = LENGTHS) -> UserGroups:
    """Users grouped by ``length`` (users,) of their history; ``starts`` is the shortest of each group."""
    ends = [*(start - 1 for start in starts[1:]), None]
    names = [f"{a} or more" if b is None else f"{a}" if a == b else f"{a}-{b}"
             for a, b in zip(starts, ends, strict=True)]  # fmt: skip
    return UserGroups(tuple(names), np.searchsorted(starts, length.cpu().numpy(), side="right") - 1)


def popularity_bands(counts: Tensor, share: float = SHARE) -> np.ndarray:
    """Head (0), middle (1) or tail (2) of each item, (N,), by its training interactions ``counts`` (N,).

    Items are sorted, the most popular first (ties: the lower index). The head takes items until it has
    ``share`` of all interactions; the tail begins once 1 - ``share`` of them have been counted.
    """
    popularity = counts.cpu().numpy()
    order = np.argsort(-popularity, kind="stable")
    before = np.cumsum(popularity[order]) - popularity[order]  # interactions of more popular items
    total = popularity.sum()
    bands = np.empty(len(popularity), dtype=np.int64)
    bands[order] = (before >= share * total).astype(np.int64) + (before >= (1 - share) * total)
    return bands


def popularity_groups(target: Tensor, counts: Tensor, share: float = SHARE) -> UserGroups:
    """Users grouped by how popular their target is; ``target`` (users,), ``counts`` (N,)."""
    return UserGroups(BANDS, popularity_bands(counts, share)[target.cpu().numpy()])


def mean_by_group(
    values: dict[str, np.ndarray], groups: UserGroups, reference: str | None = None
) -> pd.DataFrame:
    """Mean of each model in each group that has users: model, group, users, mean, low, high.

    The interval is mean ± 1.96 standard errors over users, in the units of ``values``. With a ``reference``
    the values are differences to that model on the same users, and that model has no rows.
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


def group_columns(table: pd.DataFrame) -> pd.DataFrame:
    """The means of ``mean_by_group``, a row for each model, a column for each group, in the same order."""
    models, names = (table[column].unique() for column in ("model", "group"))
    return table.pivot(index="model", columns="group", values="mean").loc[models, names]


def interval_columns(table: pd.DataFrame) -> pd.DataFrame:
    """As ``group_columns``, but differences with intervals as text: "+0.0100 [-0.0020, +0.0220]"."""
    columns = zip(table["mean"], table["low"], table["high"], strict=True)
    text = [f"{mean:+.4f} [{low:+.4f}, {high:+.4f}]" for mean, low, high in columns]
    return group_columns(table.assign(mean=text))


# Overlap


def hits_by_user(ranks: dict[str, list[Tensor]], k: int = 10) -> dict[str, np.ndarray]:
    """Whether the target is among the first k: model -> (seeds, users) bool; counting models have one row."""
    return {m: torch.stack([recall_at(r, k) for r in rows]).bool().numpy() for m, rows in ranks.items()}


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Jaccard index of two models' hits (seeds, users): of the users that either hits, the share both hit."""
    either = (a | b).sum()
    return float((a & b).sum() / either) if either else float("nan")


def overlap_table(hit: dict[str, np.ndarray]) -> pd.DataFrame:
    """``overlap`` of every two models, each seed with the same seed of the other."""
    return pd.DataFrame({b: {a: overlap(hit[a], hit[b]) for a in hit} for b in hit})


def agreement_table(hit: dict[str, np.ndarray], reference: str = REFERENCE) -> pd.DataFrame:
    """Shares of users that a model and the reference both hit, that only one hits, and that neither hits."""
    other, rows = hit[reference], {}
    for model, mine in hit.items():
        if model != reference:
            parts = {"both": mine & other, "only this one": mine & ~other}
            parts |= {f"only {reference}": ~mine & other, "neither": ~mine & ~other}
            rows[model] = {name: part.mean() for name, part in parts.items()}
            rows[model]["overlap"] = overlap(mine, other)
    return pd.DataFrame(rows).T.sort_values("overlap", ascending=False)


def overlap_between_seeds(hit: dict[str, np.ndarray]) -> dict[str, float]:
    """Mean ``overlap`` of a model with itself trained with another seed; models of one seed are left out."""
    return {
        model: float(np.mean([overlap(a, b) for a, b in itertools.combinations(mine, 2)]))
        for model, mine in hit.items()
        if len(mine) > 1
    }


def coverage_table(hit: dict[str, np.ndarray]) -> pd.DataFrame:
    """The share of users that at least one of the first 1, 2, 3, ... models hits.

    The best model is first, followed each time by the model that adds most (ties: in the given order). This
    is an upper bound for an ensemble: the order uses the test targets, and an ensemble does not know which
    of its models is right.
    """
    left, covered, rows = dict(hit), np.zeros((1, 1), dtype=bool), []
    while left:
        shares = {model: float((covered | mine).mean()) for model, mine in left.items()}
        best = max(shares, key=shares.__getitem__)
        alone = float(hit[best].mean())
        covered = covered | left.pop(best)
        rows.append({"model": best, "alone": alone, "at least one": shares[best]})
    return pd.DataFrame(rows)


def best_models(results: dict, limit: int = 6) -> list[str]:
    """The ``limit`` best models by test N@10, TIGER included; variants (a comma in the name) are left out."""
    score = {m: results["summary"][m]["test"]["N@10"]["mean"] for m in results["models"] if "," not in m}
    best = sorted(score, key=score.__getitem__, reverse=True)
    if REFERENCE in best[limit:]:
        return [*best[: limit - 1], REFERENCE]
    return best[:limit]
