"""Tables of notebook 05, pretraining: the sum over several trains of thought, and its cost."""

from __future__ import annotations

import pandas as pd

from ...common.schemas import Prefixes
from ...evaluation.evaluate import evaluate
from ...inference.recommender import StreamRec, WithOptions


def metrics_by_thoughts(
    model: StreamRec, prefixes: Prefixes, numbers: tuple[int, ...] = (1, 4), k: int = 10
) -> pd.DataFrame:
    """N@10, R@10 and milliseconds per user: at once, and summed over the n most likely trains of thought.

    Args:
        model: with a thinking and a direct decoder.
        prefixes: the examples to answer.
        numbers: of trains of thought, a row "n = ..." for each; the first row is "at once".
        k: length of the recommended list.
    """
    ways = {"at once": ("none", 1)} | {f"n = {n}": ("beam", n) for n in numbers}
    rows = {}
    for name, (think, n) in ways.items():
        asked = WithOptions(model, think=think, n_thoughts=n)
        result = evaluate(asked, prefixes, k=k, batch_size=64)
        rows[name] = {key: result.metrics[key] for key in ("N@10", "R@10")}
        rows[name]["ms a user"] = 1000 / result.users_per_second
    return pd.DataFrame(rows).T
