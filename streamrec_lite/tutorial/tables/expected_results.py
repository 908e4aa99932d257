"""Expected results: what models reach on known data sets, and checks that hold on nearly any data."""

from __future__ import annotations

from typing import NamedTuple

import pandas as pd

from ...running.stage_table import COUNTING


class ExpectedRange(NamedTuple):
    """The expected range of a test metric; ``high`` None: no upper bound."""

    low: float
    high: float | None
    source: str


def exactly(value: float, source: str) -> ExpectedRange:
    """The value to four decimals, for models that only count: they use no random numbers."""
    return ExpectedRange(value - 5e-5, value + 5e-5, source)


def about(value: float, source: str, width: float = 0.1) -> ExpectedRange:
    """10 % either way, for trained models: several times the deviation over seeds."""
    return ExpectedRange((1 - width) * value, (1 + width) * value, source)


def at_least(value: float, source: str) -> ExpectedRange:
    """Only a lower bound."""
    return ExpectedRange(value, None, source)


COUNTED, OURS = "counted, no training", "this package, preset lite"
RECBOLE = "RecBole, cross-entropy, hidden 64, the same test"

SIZES = {(2500, 600): "playground", (8317, 4344): "scientific-2018"}  # users, items
EXPECTED = {  # data set -> model -> test R@10, N@10
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
RANGE_METRICS = ("R@10", "N@10")
ABOVE, NEAR, BELOW = "above Popularity", "test near validation", "below the oracle"


def known_data_set(results: dict) -> str | None:
    """The name of the data set in ``EXPECTED``, recognised by its numbers of users and items, or None."""
    data = results.get("data", {})
    name = SIZES.get((data.get("users"), data.get("items")))
    is_playground = results["dataset"] == "playground"
    return name if (name == "playground") == is_playground else None


def verdict(value: float, expected: ExpectedRange) -> str:
    """'below', 'in range' or 'above'."""
    if value < expected.low:
        return "below"
    return "above" if expected.high is not None and value > expected.high else "in range"


def range_table(results: dict) -> pd.DataFrame:
    """Models with a known range, a row for each metric: value, low, high, verdict, source of the range.

    Empty for other data. With the preset smoke only counting models are judged, because it trains for
    seconds. A range that was measured with this package holds for its preset only.
    """
    rows = []
    name = known_data_set(results)
    for model, ranges in (EXPECTED[name] if name else {}).items():
        if model not in results["summary"] or (results["preset"] == "smoke" and model not in COUNTING):
            continue
        if ranges[0].source == OURS and results["preset"] != "lite":
            continue
        for metric, expected in zip(RANGE_METRICS, ranges, strict=True):
            value = results["summary"][model]["test"][metric]["mean"]
            row = {
                "model": model,
                "metric": metric,
                "value": value,
                "low": expected.low,
                "high": expected.high,
            }
            rows.append({**row, "verdict": verdict(value, expected), "range from": expected.source})
    return pd.DataFrame(rows)


def check_table(results: dict, metric: str = "N@10") -> pd.DataFrame:
    """Checks that hold on nearly any data, a row for each model; look into every False.

    A model that reads histories should beat Popularity, which ignores them. Test should not be much better
    than validation, which is closer in time to training. Only chance puts a model above the oracle.
    """
    rows: dict[str, dict] = {}
    floor = results["summary"].get("Popularity", {}).get("test", {}).get(metric)
    for model, summary in results["summary"].items():
        valid, test = (summary[split][metric]["mean"] for split in ("valid", "test"))
        rows[model] = {"validation": valid, "test": test}
        if floor is not None:
            rows[model][ABOVE] = model == "Popularity" or test > floor["mean"]
        rows[model][NEAR] = test <= 1.15 * valid
        if "oracle" in results:
            rows[model][BELOW] = test <= 1.02 * results["oracle"]["test"][metric]
    return pd.DataFrame.from_dict(rows, orient="index")


def failed_checks(results: dict) -> list[str]:
    """A sentence for each metric outside its range and for each failed check."""
    ranges, checks = range_table(results), check_table(results)
    outside = ranges[ranges["verdict"] != "in range"] if len(ranges) else ranges
    messages = [f"{r.model}: {r.metric} {r.value:.4f} is {r.verdict} its range" for r in outside.itertuples()]
    for model, row in checks.iterrows():
        numbers = f"validation {row['validation']:.4f}, test {row['test']:.4f}"
        messages += [
            f"{model}: not {name} ({numbers})" for name in (ABOVE, NEAR, BELOW) if not row.get(name, True)
        ]
    return messages
