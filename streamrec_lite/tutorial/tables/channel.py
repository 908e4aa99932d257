"""Tables of notebooks 07 and 08, the channel: does the answer read the thoughts, and do thoughts leak?"""

from __future__ import annotations

import pandas as pd

from ...common.schemas import Prefixes
from ...inference.recommender import StreamRec
from ...training.channel import measure_channel

KINDS = {  # of thoughts, see ``training.channel``
    "none": "none",
    "own": "its own",
    "another": "another user's",
    "random": "random codes",
    "annotated": "annotated",
    "true": "the true ones",
}
# Thoughts leak if annotated ones raise N@10 by more than this share of it, at the low end of the interval.
LEAK_SHARE = 0.5


def kept_channel(row: dict, model: StreamRec, prefixes: Prefixes, bootstrap: int = 2000) -> dict:
    """What ``measure_channel`` found when the stage was done; earlier releases did not: then it is found now.

    Args:
        row: of the model in results.json.
        model: the model, as it thinks.
        prefixes: test users.
        bootstrap: number of bootstrap resamples.
    """
    return row.get("channel") or measure_channel(model, prefixes, bootstrap=bootstrap)


def channel_table(channel: dict) -> pd.DataFrame:
    """What ``measure_channel`` found, a row for each kind of thoughts.

    Columns: N@10, R@10 and nats (the cost of the target); "... minus own" with "low" and "high" (95 %) for
    N@10 and nats; changed (%), the share of thoughts that differ from the model's own.
    """
    rows = {}
    for kind, found in channel["after"].items():
        rows[KINDS[kind]] = {key: found[key] for key in ("N@10", "R@10", "nats")}
        for key in ("N@10", "nats"):
            gain = found["minus own"][key]
            rows[KINDS[kind]] |= {f"{key} minus own": gain["mean_difference"]}
            rows[KINDS[kind]] |= {f"{key} {end}": gain[end] for end in ("low", "high")}
        changed = found["changed"]
        rows[KINDS[kind]]["changed (%)"] = None if changed is None else 100 * changed
    return pd.DataFrame(rows).T.astype(float).rename_axis(index="thoughts")


def channel_findings(channel: dict) -> list[str]:
    """What the figures say, in sentences: are thoughts read, do they help, do annotated ones leak?"""
    after = channel["after"]
    if after["another"]["changed"] is None:
        return ["The model writes no thoughts, so there is nothing to read."]
    lines = [_reading(after["another"]), _helping(after["none"]), _leaking(after["annotated"], after["own"])]
    if "true" in after:
        gain = _interval(after["true"]["minus own"]["N@10"])
        lines.append(f"After the true thoughts N@10 is {after['true']['N@10']:.4f}: minus own {gain}.")
    return lines


def _reading(another: dict) -> str:
    """Do own thoughts beat another user's? If only the cost of the target shows it, that is said too."""
    if another["changed"] == 0:
        return "All users have the same thoughts, so nothing can show whether the answer reads them."
    gain, cost = another["minus own"]["N@10"], another["minus own"]["nats"]
    lead = {"mean_difference": -gain["mean_difference"], "low": -gain["high"], "high": -gain["low"]}
    if lead["low"] > 0:
        return f"The model reads its thoughts: own beats another user's by {_interval(lead)} N@10."
    line = (
        "The model does not read its thoughts, as far as N@10 shows: "
        f"own minus another user's is {_interval(lead)}."
    )
    if cost["low"] > 0:
        line += f" Only the target's cost shows a trace: {_interval(cost)} nats after another user's."
    if another["changed"] < 0.5:
        line += f" But only {another['changed']:.0%} of the thoughts differ between the two users."
    return line


def _helping(none: dict) -> str:
    """Are own thoughts better than none, by N@10?"""
    gain, cost = none["minus own"]["N@10"], none["minus own"]["nats"]
    word = "helps" if gain["high"] < 0 else "harms" if gain["low"] > 0 else "does not help"
    changes = f"N@10 changes by {_interval(gain)}, the target's cost by {_interval(cost)} nats"
    return f"Thinking {word}: without thoughts {changes}."


def _leaking(annotated: dict, own: dict) -> str:
    """Do thoughts that were made from the target reveal it?"""
    gain, change = annotated["minus own"]["N@10"], f"{own['N@10']:.4f} to {annotated['N@10']:.4f}"
    if gain["low"] > LEAK_SHARE * own["N@10"]:
        return (
            f"Annotated thoughts leak: N@10 rises from {change}, by {_interval(gain)}. "
            "They are made from the target, and the answer copies it out of them."
        )
    return (
        f"Annotated thoughts leak little or nothing: N@10 goes from {change}, a change of {_interval(gain)}, "
        "although they are made from the target."
    )


def _interval(gain: dict) -> str:
    """``+0.0123 [-0.0010, +0.0256]``."""
    return f"{gain['mean_difference']:+.4f} [{gain['low']:+.4f}, {gain['high']:+.4f}]"
