"""Tables of notebook 10, accuracy: which models find the next item, by the steps that an errand takes.

Everything is made of the models' rows: model -> seed -> row (``workshop_rows``). Accuracy is R@1, the share
of test users whose next item is ranked first. Errands of two steps and more ask for held-out combinations.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import pandas as pd

from ...common.errors import BadInput
from ...data.dataset import Dataset
from ...data.workshop_world import WorkshopWorld
from ...running.run import Run, kept_seeds
from ...running.stage_table import ORACLE
from ...running.stages import run_workshop

Rows = dict[str, dict[int, dict]]  # model -> seed -> row
NO_THOUGHTS = ("Direct", "Direct, deeper", "ReaRec", "Pause tokens")  # what they compute has no content
ANNOTATED = ("STREAM-Rec-SFT, as printed", "STREAM-Rec-SFT")  # thoughts by the residual annotator
TRUE, SFT, RL, MORE = "True thoughts", "SFT", "RL", "More supervision"
COMPARED = (*NO_THOUGHTS, *ANNOTATED, TRUE)
CLEAR = 0.1  # a difference in accuracy that a sentence calls clear, in every seed


def world_of(dataset: Dataset) -> WorkshopWorld:
    """The rules of the workshop; ``BadInput`` for any other data set."""
    if not isinstance(dataset.world, WorkshopWorld):
        rule = "this notebook is about the workshop, whose true steps are known"
        raise BadInput(f"dataset {dataset.name!r}", rule, 'set dataset = "workshop"')
    return dataset.world


def workshop_rows(run: Run) -> Rows:
    """The rows of ``run_workshop``: of the run's seeds, and of every other seed for which a model is done."""
    rows: Rows = {}
    for seed in sorted({*run.seeds, *kept_seeds(run.dir)}):
        for model, row in run_workshop(run, seed, train=seed in run.seeds).items():
            rows.setdefault(model, {})[seed] = row
    return rows


def accuracy_by_steps(rows: Rows, models: Iterable[str] = COMPARED) -> pd.DataFrame:
    """Accuracy of each model that has rows, by the steps that an errand takes.

    Columns: model, steps, mean, low and high (over the seeds), seeds (how many) and "of oracle", the mean as
    a share of the oracle's accuracy.
    """
    oracle = next(iter(rows[ORACLE].values()))["by_steps"]
    table = []
    for model in models:
        found = [row["by_steps"] for row in rows.get(model, {}).values()]
        for steps in found[0] if found else ():
            values = [by_steps[steps] for by_steps in found]
            mean, best = statistics.mean(values), oracle[steps]  # exact: never outside the range of seeds
            share = mean / best if best else float("nan")
            table.append((model, int(steps), mean, min(values), max(values), len(values), share))
    columns = ["model", "steps", "mean", "low", "high", "seeds", "of oracle"]
    return pd.DataFrame(table, columns=columns)


def accuracy_table(table: pd.DataFrame, oracle: dict[str, float]) -> pd.DataFrame:
    """``accuracy_by_steps`` for readers, in per cent, a row for each model and one for the oracle.

    A column for each number of steps, the range over seeds in brackets; "2 and more": their mean; "of
    oracle": that as a share of the oracle's; seeds. ``oracle`` is its accuracy by steps.
    """
    best = held_out_accuracy({"by_steps": oracle})
    lines = {}
    for model, part in table.groupby("model", sort=False):
        line = {f"{row.steps} steps": _with_range(row) for row in part.itertuples()}
        mean = part.loc[part["steps"] > 1, "mean"].mean()
        line |= {"2 and more": f"{100 * mean:.1f}", "of oracle": _share(mean, best)}
        lines[model] = {**line, "seeds": int(part["seeds"].iloc[0])}
    line = {f"{steps} steps": f"{100 * value:.1f}" for steps, value in oracle.items()}
    lines[ORACLE] = {**line, "2 and more": f"{100 * best:.1f}", "of oracle": _share(best, best), "seeds": 1}
    found = pd.DataFrame(lines).T.rename_axis(index="R@1 (%)")
    return found.rename(columns={"1 steps": "1 step"})


def _with_range(row: object) -> str:
    """``83.1``, with several seeds ``83.1 [80.2, 85.0]``."""
    mean, low, high, seeds = (getattr(row, name) for name in ("mean", "low", "high", "seeds"))
    return f"{100 * mean:.1f}" + (f" [{100 * low:.1f}, {100 * high:.1f}]" if seeds > 1 else "")


def _share(value: float, best: float) -> str:
    """``97 %``; a dash where the best is 0."""
    return f"{100 * value / best:.0f} %" if best else "-"


def held_out_accuracy(row: dict) -> float:
    """Accuracy on errands of two steps and more; each number of steps counts alike."""
    values = [value for steps, value in row["by_steps"].items() if int(steps) > 1]
    return float(np.mean(values)) if values else float("nan")


def one_step_accuracy(row: dict) -> float:
    """Accuracy on errands of one step."""
    return row["by_steps"].get("1", float("nan"))


class Gap(NamedTuple):
    """The accuracy of a model minus another's on errands of two steps and more, seed by seed."""

    mean: float
    low: float  # the smallest of all seeds
    high: float
    seeds: int

    @property
    def clear(self) -> bool:
        """Is it larger than ``CLEAR`` in every seed?"""
        return self.low > CLEAR

    def __str__(self) -> str:
        """``+62 points``, with several seeds ``+62 points (+60 to +65 in 3 seeds)``."""
        spread = f" ({100 * self.low:+.0f} to {100 * self.high:+.0f} in {self.seeds} seeds)"
        return f"{100 * self.mean:+.0f} points" + (spread if self.seeds > 1 else "")


def gap(rows: Rows, model: str, other: str) -> Gap:
    """``model`` minus ``other``, over the seeds that both have."""
    seeds = [seed for seed in rows[model] if seed in rows[other]]
    values = [held_out_accuracy(rows[model][s]) - held_out_accuracy(rows[other][s]) for s in seeds]
    return Gap(float(np.mean(values)), min(values), max(values), len(values))


def best_of(rows: Rows, models: Iterable[str]) -> str:
    """The model with the highest ``held_out_accuracy``, the mean over its seeds; one must have rows."""
    means = {m: np.mean([held_out_accuracy(r) for r in rows[m].values()]) for m in models if rows.get(m)}
    return max(means, key=means.__getitem__)


# Thinking longer


def thinking_longer(rows: Rows, model: str) -> dict[str, pd.DataFrame]:
    """Accuracy of a model by how it thinks, the mean over seeds.

    Returns "l" (greedy thoughts) and "n" (sampled trains of thought): a row for each number, a column for
    each number of steps.
    """
    tables = {}
    for parameter in ("l", "n"):
        seeds = [pd.DataFrame(row["longer"][parameter]).T for row in rows[model].values()]
        table = sum(seeds[1:], seeds[0]) / len(seeds)
        table.index, table.columns = table.index.astype(int), table.columns.astype(int)
        tables[parameter] = table.rename_axis(index=parameter, columns="steps")
    return tables


def overthinking_table(by_l: pd.DataFrame) -> pd.DataFrame:
    """What too many thoughts cost, from ``thinking_longer``'s "l": a row for each number of steps.

    Columns: "l = steps" (accuracy with as many thoughts as steps), "longest" (with the most thoughts),
    "lost" (the difference), "best l" (the smallest, where several are equally good) and "at best l".
    """
    rows = {}
    for steps in by_l.columns.tolist():
        column = by_l[steps]
        enough, longest = float(column.loc[steps]), float(column.iloc[-1])
        best = by_l.index.tolist()[int(column.to_numpy().argmax())]
        values = (enough, longest, enough - longest, best, float(column.max()))
        rows[steps] = dict(zip(("l = steps", "longest", "lost", "best l", "at best l"), values, strict=True))
    return pd.DataFrame(rows).T.rename_axis(index="steps").astype({"best l": int})


def overthinking_findings(tables: dict[str, pd.DataFrame]) -> list[str]:
    """A sentence for each model: what the most thoughts cost, from ``thinking_longer``'s "l"."""
    lines = []
    for model, by_l in tables.items():
        lost, longest = overthinking_table(by_l)["lost"], by_l.index[-1]
        worst = lost.index.tolist()[int(lost.to_numpy().argmax())]
        if lost.max() > CLEAR:
            said = f"overthinks: with {longest} thoughts it loses {100 * lost.max():.0f} points where {worst}"
            lines.append(f"{model} {said} would be enough.")
        else:
            lines.append(f"{model}: more thoughts than steps cost no more than {100 * CLEAR:.0f} points.")
    return lines


# Predictions and lessons


def judge_guess(guess: float | None, measured: float) -> str:
    """A reader's prediction (per cent, or None) beside what was measured (0 to 1)."""
    if guess is None:
        return f"Measured: {100 * measured:.0f} %. You wrote no prediction; change None and run again."
    off = abs(guess - 100 * measured)
    word = "close" if off <= 10 else "not close"
    return f"Measured: {100 * measured:.0f} %. You said {guess:.0f} %: {word}, {off:.0f} points away."


def mean_accuracy(rows: Rows, model: str) -> float:
    """``held_out_accuracy``, the mean over the model's seeds."""
    return float(np.mean([held_out_accuracy(row) for row in rows[model].values()]))


def lessons(rows: Rows) -> list[str]:
    """The three lessons, as far as this run shows them."""
    return [_something_to_compute(rows), _right_thoughts(rows), _stumbles(rows)]


def _something_to_compute(rows: Rows) -> str:
    other = best_of(rows, NO_THOUGHTS)
    first = np.mean([one_step_accuracy(row) for row in rows[TRUE].values()])
    without = np.mean([one_step_accuracy(row) for row in rows[other].values()])
    found, clear = gap(rows, TRUE, other), first - without > CLEAR
    one = f"With one step {TRUE} reach {100 * first:.0f} %, {other} reaches {100 * without:.0f} %"
    many = f"With two steps and more the difference is {found}."
    if not found.clear:
        return f"This run does not show that thinking pays. {one}. {many}"
    more = "even there thoughts are worth something" if clear else "there is nothing to compute"
    return f"Thinking pays when there is something to compute. {one}: {more}. {many}"


def _right_thoughts(rows: Rows) -> str:
    others = [model for model in ("Pause tokens", *ANNOTATED) if rows.get(model)]
    gaps = {model: gap(rows, TRUE, model) for model in others}
    listed = "; ".join(f"{model}, {found}" for model, found in gaps.items())
    shown = f"Two steps and more, {TRUE} minus models that write as many thoughts of another kind: {listed}."
    if all(found.clear for found in gaps.values()):
        return f"Only the right thoughts pay. {shown}"
    return f"This run does not show that only the right thoughts pay. {shown}"


def _stumbles(rows: Rows) -> str:
    sft, more = gap(rows, RL, SFT), gap(rows, RL, MORE)
    shown = f"Two steps and more, {RL} minus {SFT}: {sft}; {RL} minus {MORE}: {more}."
    one = thinking_longer(rows, SFT)["n"].loc[1]  # one sampled train of thought
    right = float(np.mean([value for steps, value in one.items() if int(str(steps)) > 1]))
    before = f"Before reinforcement {100 * right:.0f} % of the sampled answers were right."
    if right > 0 and sft.clear and more.clear:
        lead = "Reinforcement finds the right thoughts when the model sometimes stumbles on them."
        return f"{lead} {before} {shown}"
    if sft.clear:
        return (
            f"Reinforcement finds better thoughts, but not clearly better than supervision. {before} {shown}"
        )
    return f"This run does not show that reinforcement finds the right thoughts. {before} {shown}"
