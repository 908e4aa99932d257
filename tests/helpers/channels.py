"""What ``measure_channel`` finds, made up: a model that reads and leaks, and one that does neither."""

from __future__ import annotations


def after(n10: float, nats: float, gain: tuple, cost: tuple, changed: float | None) -> dict:
    """One kind of thoughts; ``gain`` and ``cost``: (difference to own, low, high) of N@10 and of nats."""
    names = ("mean_difference", "low", "high")
    minus = {"N@10": dict(zip(names, gain, strict=True)), "nats": dict(zip(names, cost, strict=True))}
    return {"N@10": n10, "R@10": 2 * n10, "nats": nats, "changed": changed, "minus own": minus}


OWN = ((0.0, 0.0, 0.0), (0.0, 0.0, 0.0), 0.0)
READS = {
    "users": 1000,
    "after": {
        "none": after(0.21, 5.0, (0.01, -0.01, 0.03), (-0.5, -0.6, -0.4), None),
        "own": after(0.2, 5.5, *OWN),
        "another": after(0.04, 9.0, (-0.16, -0.18, -0.14), (3.5, 3.3, 3.7), 0.9),
        "random": after(0.03, 9.5, (-0.17, -0.19, -0.15), (4.0, 3.8, 4.2), 0.99),
        "annotated": after(0.8, 0.7, (0.6, 0.57, 0.63), (-4.8, -5.0, -4.6), 0.95),
    },
}
DOES_NOT_READ = {
    "users": 60,
    "after": {
        "none": after(0.385, 3.01, (0.001, -0.002, 0.004), (0.01, -0.01, 0.03), None),
        "own": after(0.384, 3.0, *OWN),
        "another": after(0.382, 3.02, (-0.002, -0.005, 0.001), (0.02, 0.01, 0.03), 0.4),
        "random": after(0.38, 3.04, (-0.004, -0.008, 0.0), (0.04, 0.01, 0.07), 0.99),
        "annotated": after(0.389, 2.9, (0.005, 0.001, 0.009), (-0.1, -0.12, -0.08), 0.95),
    },
}
