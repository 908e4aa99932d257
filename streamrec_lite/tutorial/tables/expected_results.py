"""Is this normal? What models reach on data sets that are known, and checks that hold on any."""

from __future__ import annotations

from typing import NamedTuple

import pandas as pd

from ...running.stage_table import COUNTING


class Range(NamedTuple):
    """What a test metric is expected to be; ``high`` None: no bound above."""

    low: float
    high: float | None
    source: str


def exactly(value: float, source: str) -> Range:
    """Counting draws no random numbers: the value to its four decimals."""
    return Range(value - 5e-5, value + 5e-5, source)


def about(value: float, source: str, width: float = 0.1) -> Range:
    """Training does: 10 % either way, several times the deviation over seeds."""
    return Range((1 - width) * value, (1 + width) * value, source)


def at_least(value: float, source: str) -> Range:
    return Range(value, None, source)


COUNTED, OURS = "counted, no training", "this package, preset lite"
RECBOLE = "RecBole, cross-entropy, hidden 64, the same test"

SIZES = {(2500, 600): "playground", (8317, 4344): "scientific-2018"}  # users, items
KNOWN = {  # data set -> model -> test R@10, N@10
    "playground": {
        "Popularity": (exactly(0.0732, COUNTED), exactly(0.0346, COUNTED)),
        "Markov": (exactly(0.3484, COUNTED), exactly(0.2043, COUNTED)),
        "SequentialRules": (exactly(0.3664, COUNTED), exactly(0.2134, COUNTED)),
        "TIGER": (about(0.5840, OURS), about(0.3543, OURS)),
        "STREAM-Rec-PT": (about(0.5024, OURS), about(0.2965, OURS)),
        "STREAM-Rec-SFT": (about(0.5940, OURS), about(0.3714, OURS)),
        "STREAM-Rec-RL": (about(0.5940, OURS), about(0.3714, OURS)),
    },
    "scientific-2018": {
        "Popularity": (exactly(0.0231, COUNTED), exactly(0.0162, COUNTED)),
        "Markov": (exactly(0.0898, COUNTED), exactly(0.0678, COUNTED)),
        "SequentialRules": (exactly(0.1041, COUNTED), exactly(0.0776, COUNTED)),
        "SASRec": (about(0.102, RECBOLE), about(0.064, RECBOLE)),
        "GRU4Rec": (at_least(0.0735, RECBOLE), at_least(0.0489, RECBOLE)),
        "Caser": (at_least(0.0504, RECBOLE), at_least(0.0321, RECBOLE)),
        "BERT4Rec": (at_least(0.0494, RECBOLE), at_least(0.0295, RECBOLE)),
        "TIGER": (about(0.0932, OURS), about(0.0606, OURS)),
        "STREAM-Rec-PT": (about(0.0654, OURS), about(0.0413, OURS)),
        "STREAM-Rec-SFT": (about(0.0988, OURS), about(0.0667, OURS)),
        "STREAM-Rec-RL": (about(0.0988, OURS), about(0.0667, OURS)),
        "ReaRec": (about(0.1029, OURS), about(0.0667, OURS)),
    },
}
RANGED = ("R@10", "N@10")
ABOVE, NEAR, BELOW = "above Popularity", "test near validation", "below the oracle"


def known_as(results: dict) -> str | None:
    """The name of the data set in ``KNOWN``, told by its numbers of users and items, or None."""
    data = results.get("data", {})
    name = SIZES.get((data.get("users"), data.get("items")))
    is_playground = results["dataset"] == "playground"
    return name if (name == "playground") == is_playground else None


def verdict(value: float, range_: Range) -> str:
    """'below', 'in range' or 'above'."""
    if value < range_.low:
        return "below"
    return "above" if range_.high is not None and value > range_.high else "in range"


def range_table(results: dict) -> pd.DataFrame:
    """A row a model and metric whose range is known: value, low, high, verdict, where the range is from.

    Empty for other data. The preset smoke trains for seconds: there only counting models are judged. What
    was measured with this package holds for the preset it was measured with.
    """
    rows = []
    for model, ranges in KNOWN.get(known_as(results), {}).items():
        if model not in results["summary"] or (results["preset"] == "smoke" and model not in COUNTING):
            continue
        if ranges[0].source == OURS and results["preset"] != "lite":
            continue
        for metric, range_ in zip(RANGED, ranges, strict=True):
            value = results["summary"][model]["test"][metric]["mean"]
            row = {"model": model, "metric": metric, "value": value, "low": range_.low, "high": range_.high}
            rows.append({**row, "verdict": verdict(value, range_), "range from": range_.source})
    return pd.DataFrame(rows)


def check_table(results: dict, metric: str = "N@10") -> pd.DataFrame:
    """What holds on nearly any data, a row a model; a False is a question.

    Popularity knows nobody, so whoever reads histories should beat it. Validation lies nearer to
    training in time than test, so it is rarely much harder. Nothing beats the oracle but luck.
    """
    rows, floor = {}, results["summary"].get("Popularity", {}).get("test", {}).get(metric)
    for model, summary in results["summary"].items():
        valid, test = (summary[split][metric]["mean"] for split in ("valid", "test"))
        rows[model] = {"validation": valid, "test": test}
        if floor is not None:
            rows[model][ABOVE] = model == "Popularity" or test > floor["mean"]
        rows[model][NEAR] = test <= 1.15 * valid
        if "oracle" in results:
            rows[model][BELOW] = test <= 1.02 * results["oracle"]["test"][metric]
    return pd.DataFrame.from_dict(rows, orient="index")


def failed(results: dict) -> list[str]:
    """Everything that is not normal, in words: what to look into first."""
    ranges, checks = range_table(results), check_table(results)
    odd = ranges[ranges["verdict"] != "in range"] if len(ranges) else ranges
    words = [f"{r.model}: {r.metric} {r.value:.4f} is {r.verdict} its range" for r in odd.itertuples()]
    for model, row in checks.iterrows():
        numbers = f"validation {row['validation']:.4f}, test {row['test']:.4f}"
        words += [
            f"{model}: not {name} ({numbers})" for name in (ABOVE, NEAR, BELOW) if not row.get(name, True)
        ]
    return words
