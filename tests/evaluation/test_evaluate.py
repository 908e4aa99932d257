"""The evaluator: ranks in order, misses, the full catalogue, and recommenders that break the rules."""

from __future__ import annotations

import pytest
import torch

from streamrec_lite.common.schemas import PAD_ITEM, Prefixes
from streamrec_lite.evaluation.evaluate import evaluate
from streamrec_lite.evaluation.metrics import mean_metrics


def random_prefixes(n: int, items: int, seed: int = 0) -> Prefixes:
    generator = torch.Generator().manual_seed(seed)
    length = torch.randint(1, 8, (n,), generator=generator)
    history = torch.randint(0, items, (n, 7), generator=generator)
    history[torch.arange(7)[None] >= length[:, None]] = PAD_ITEM
    return Prefixes(history, length, torch.randint(0, items, (n,), generator=generator), torch.arange(n))


class FixedLists:
    """Answers with a fixed list for each user, looked up by the user's row."""

    def __init__(self, lists: torch.Tensor):
        self.lists = lists

    def topk(self, prefixes, k):
        return self.lists[prefixes.user, :k]


def test_ranks_come_in_the_order_of_the_prefixes_whatever_the_batches():
    prefixes = random_prefixes(203, 50)
    lists = torch.rand(203, 50, generator=torch.Generator().manual_seed(1)).argsort(dim=1)
    truth = (lists == prefixes.target[:, None]).long().argmax(dim=1) + 1
    truth[truth > 10] = 0
    for batch_size in (1, 16, 1000):
        result = evaluate(FixedLists(lists), prefixes, k=10, batch_size=batch_size)
        assert torch.equal(result.ranks, truth)
        assert result.metrics == mean_metrics(truth)
        assert result.users_per_second > 0


def test_a_miss_beyond_k_and_limits():
    prefixes = random_prefixes(40, 30)
    perfect = torch.stack([torch.cat([t[None], torch.arange(100, 109)]) for t in prefixes.target])
    assert set(evaluate(FixedLists(perfect), prefixes).metrics.values()) == {1.0}
    assert set(evaluate(FixedLists(perfect.flip(1)), prefixes, k=9).metrics.values()) == {0.0}
    nothing = torch.full((40, 10), -1)
    assert set(evaluate(FixedLists(nothing), prefixes).metrics.values()) == {0.0}


def test_the_history_is_not_excluded():
    prefixes = random_prefixes(20, 1)  # one item, in every history and every target
    lists = torch.full((20, 10), -1)
    lists[:, 0] = 0
    assert evaluate(FixedLists(lists), prefixes).metrics["R@5"] == 1.0


def test_a_recommender_that_breaks_its_promise_is_an_error():
    prefixes = random_prefixes(10, 30)
    with pytest.raises(ValueError, match=r"topk has shape \(10, 9\)"):
        evaluate(FixedLists(torch.arange(9).expand(10, -1)), prefixes)
    twice = torch.arange(10).repeat(10, 1)
    twice[4, 7] = 2
    with pytest.raises(ValueError, match="names an item twice"):
        evaluate(FixedLists(twice), prefixes)
