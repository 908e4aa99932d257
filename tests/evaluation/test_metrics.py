"""Metrics by hand and against ranx; the bootstrap against plain resampling."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from streamrec_lite.evaluation.metrics import (
    gain_in_std_errors,
    mean_and_deviation,
    mean_metrics,
    metric_per_user,
    ndcg_at,
    paired_bootstrap,
    rank_of_target,
    recall_at,
)


def test_rank_is_the_place_in_the_list_and_zero_outside():
    topk = torch.tensor([[4, 2, 7], [4, 2, 7], [4, 2, 7], [-1, -1, -1], [5, 5, 1]])
    assert rank_of_target(topk, torch.tensor([4, 7, 9, 0, 5])).tolist() == [1, 3, 0, 0, 1]


def test_a_padding_target_never_hits_a_padding_answer():
    assert rank_of_target(torch.tensor([[3, -1]]), torch.tensor([-1])).tolist() == [0]


def test_values_by_hand():
    ranks = torch.tensor([1, 2, 5, 6, 10, 11, 0])
    assert recall_at(ranks, 5).tolist() == [1, 1, 1, 0, 0, 0, 0]
    expected = [1.0, 1 / math.log2(3), 1 / math.log2(6), 1 / math.log2(7), 1 / math.log2(11), 0, 0]
    assert ndcg_at(ranks, 10).tolist() == pytest.approx(expected, abs=1e-15)
    assert metric_per_user(ranks, "N@10").tolist() == ndcg_at(ranks, 10).tolist()
    assert metric_per_user(ranks, "R@5").tolist() == [1, 1, 1, 0, 0, 0, 0]
    result = mean_metrics(ranks)
    assert list(result) == ["R@5", "R@10", "N@5", "N@10"]
    assert result["R@5"] == pytest.approx(3 / 7, abs=1e-15)
    assert result["R@10"] == pytest.approx(5 / 7, abs=1e-15)
    assert result["N@5"] == pytest.approx(sum(expected[:3]) / 7, abs=1e-15)
    assert result["N@10"] == pytest.approx(sum(expected) / 7, abs=1e-15)


def test_users_that_are_left_out_count_in_no_mean():
    ranks, group = torch.tensor([1, -1, 0, 2, -1]), torch.tensor([2, 1, 1, 1, 1])
    assert mean_metrics(ranks) == mean_metrics(torch.tensor([1, 0, 2]))
    assert mean_metrics(ranks, group_size=group)["R@5"] == pytest.approx((0.5 + 0 + 1) / 3)
    assert set(mean_metrics(torch.tensor([-1, -1])).values()) == {0.0}


def test_limits_are_exact():
    assert set(mean_metrics(torch.zeros(1000, dtype=torch.long)).values()) == {0.0}
    assert set(mean_metrics(torch.ones(1000, dtype=torch.long)).values()) == {1.0}
    assert set(mean_metrics(torch.zeros(0, dtype=torch.long)).values()) == {0.0}


def test_item_level_table_by_hand():
    # Four users; the ID of the target is shared by g items, of which one is the right one.
    #   rank  g   R@5      R@10     N@10
    #   1     1   1        1        1
    #   1     4   0.25     0.25     0.25
    #   6     2   0        0.5      0.5 / log2(7)
    #   0     3   0        0        0
    ranks, shared = torch.tensor([1, 1, 6, 0]), torch.tensor([1, 4, 2, 3])
    result = mean_metrics(ranks, group_size=shared)
    assert result["R@5"] == pytest.approx(1.25 / 4, abs=1e-15)
    assert result["R@10"] == pytest.approx(1.75 / 4, abs=1e-15)
    assert result["N@5"] == pytest.approx(1.25 / 4, abs=1e-15)
    assert result["N@10"] == pytest.approx((1.25 + 0.5 / math.log2(7)) / 4, abs=1e-15)
    assert mean_metrics(ranks, group_size=torch.ones(4, dtype=torch.long)) == mean_metrics(ranks)


RANX = """
import json, sys, ranx
qrels, run = json.load(sys.stdin)
names = ["recall@5", "recall@10", "ndcg@5", "ndcg@10"]
print(json.dumps({k: float(v) for k, v in ranx.evaluate(ranx.Qrels(qrels), ranx.Run(run), names).items()}))
"""


@pytest.mark.skipif(importlib.util.find_spec("ranx") is None, reason="ranx is not installed")
def test_equal_to_ranx_on_random_rankings():
    generator = torch.Generator().manual_seed(0)
    users, items, k = 400, 30, 10
    topk = torch.rand(users, items, generator=generator).argsort(dim=1)[:, :k]
    target = torch.randint(0, items, (users,), generator=generator)
    qrels = {f"u{u}": {f"i{int(target[u])}": 1} for u in range(users)}
    run = {f"u{u}": {f"i{int(item)}": k - at for at, item in enumerate(topk[u])} for u in range(users)}
    run = {user: {item: float(score) for item, score in scores.items()} for user, scores in run.items()}
    # Its own process, where numba compiles nothing: a minute of compilation is saved.
    process = subprocess.run(
        [sys.executable, "-c", RANX],
        input=json.dumps([qrels, run]),
        capture_output=True,
        text=True,
        env={**os.environ, "NUMBA_DISABLE_JIT": "1"},
        check=True,
    )
    theirs = json.loads(process.stdout.splitlines()[-1])
    ours = mean_metrics(rank_of_target(topk, target))
    assert 0.1 < ours["R@5"] < ours["R@10"] < 0.5  # a case that can fail
    names = {"R@5": "recall@5", "R@10": "recall@10", "N@5": "ndcg@5", "N@10": "ndcg@10"}
    for mine, name in names.items():
        assert ours[mine] == pytest.approx(theirs[name], abs=1e-12)


def test_bootstrap_of_identical_models_is_exactly_zero():
    a = torch.rand(500)
    result = paired_bootstrap(a, a.clone(), resamples=200, seed=3)
    assert (result["mean_difference"], result["low"], result["high"], result["relative"]) == (0, 0, 0, 0)
    assert result["p"] == 1.0


def test_bootstrap_interval_covers_a_known_difference_and_matches_plain_resampling():
    generator = np.random.default_rng(0)
    b = generator.normal(1.0, 1.0, 2000)
    a = b + 0.1 + generator.normal(0, 0.5, 2000)  # known: 0.1
    result = paired_bootstrap(a, b, resamples=4000, seed=0)
    assert result["low"] < 0.1 < result["high"]
    assert result["low"] < result["mean_difference"] < result["high"]
    assert result["relative"] == pytest.approx((a - b).mean() / b.mean(), rel=1e-12)
    assert result["p"] <= 0.01
    # The textbook way, user by user: the same interval up to resampling noise (sd/sqrt(n) = 0.011).
    plain = np.array([(a - b)[generator.integers(0, 2000, 2000)].mean() for _ in range(4000)])
    assert result["low"] == pytest.approx(np.percentile(plain, 2.5), abs=0.0015)
    assert result["high"] == pytest.approx(np.percentile(plain, 97.5), abs=0.0015)


def test_pairing_narrows_the_interval():
    generator = np.random.default_rng(1)
    hard = generator.normal(0, 1, 1000)  # users differ far more than the models do
    a, b = hard + 0.05 + generator.normal(0, 0.1, 1000), hard + generator.normal(0, 0.1, 1000)
    paired = paired_bootstrap(a, b, resamples=1000, seed=0)
    unpaired = paired_bootstrap(a, generator.permutation(b), resamples=1000, seed=0)
    assert paired["high"] - paired["low"] < 0.3 * (unpaired["high"] - unpaired["low"])
    assert paired["p"] < 0.01 < unpaired["p"]


def test_bootstrap_is_repeatable_and_refuses_other_users():
    a, b = torch.rand(300), torch.rand(300)
    assert paired_bootstrap(a, b, 100, seed=5) == paired_bootstrap(a, b, 100, seed=5)
    assert paired_bootstrap(a, b, 100, seed=5) != paired_bootstrap(a, b, 100, seed=6)
    assert paired_bootstrap(a, torch.zeros(300), 100, seed=5)["relative"] is None
    with pytest.raises(ValueError, match="same users"):
        paired_bootstrap(a, b[:-1])


def test_mean_and_deviation_by_hand():
    result = mean_and_deviation([{"N@10": 0.1}, {"N@10": 0.3}])
    assert result["N@10"]["mean"] == pytest.approx(0.2, abs=1e-15)
    assert result["N@10"]["sd"] == pytest.approx(0.2 / math.sqrt(2), abs=1e-15)
    assert mean_and_deviation([{"R@5": 0.25}]) == {"R@5": {"mean": 0.25, "sd": None}}
    with pytest.raises(ValueError, match="same keys"):
        mean_and_deviation([{"a": 1.0}, {"b": 1.0}])


def test_gain_in_std_errors_by_hand():
    a, b = torch.tensor([1.0, 0.0, 1.0, 0.0]), torch.tensor([0.0, 0.0, 0.0, 0.0])
    # the differences 1, 0, 1, 0 have the mean 1/2, the deviation sqrt(1/3), the error sqrt(1/12)
    assert gain_in_std_errors(a, b) == pytest.approx(0.5 * math.sqrt(12))
    assert gain_in_std_errors(b, a) == pytest.approx(-0.5 * math.sqrt(12))
    assert gain_in_std_errors(a, a) == 0.0
    assert gain_in_std_errors(a + 1, a) == math.inf
