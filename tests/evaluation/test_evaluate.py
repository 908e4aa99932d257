"""The evaluator: ranks in order, misses, the full catalogue, and recommenders that break the rules."""

from __future__ import annotations

import math

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


class Ranking:
    """All items in one order for every user, without those that are left out."""

    def __init__(self, order: list[int], polite: bool = True):
        self.order, self.polite = order, polite

    def topk(self, prefixes, k, exclude=None):
        rows = [self.order] * prefixes.n_examples
        if exclude is not None and self.polite:
            rows = [[i for i in self.order if i not in gone] for gone in exclude.tolist()]
        return torch.tensor([row[:k] + [-1] * max(0, k - len(row)) for row in rows])


def test_new_items_only_by_hand():
    history = torch.tensor([[0, 1], [4, -1], [2, 3]])
    prefixes = Prefixes(history, torch.tensor([2, 1, 2]), torch.tensor([3, 3, 2]), torch.arange(3))
    exclude = torch.tensor([[0, 1, -1], [4, -1, -1], [1, 2, 3]])  # the third user takes 2 again
    order = Ranking([0, 1, 2, 3, 4])
    assert evaluate(order, prefixes).ranks.tolist() == [4, 4, 3]
    for batch_size in (1, 3):
        new = evaluate(order, prefixes, batch_size=batch_size, exclude=exclude)
        assert new.ranks.tolist() == [2, 4, -1]
        assert new.metrics["N@10"] == pytest.approx((1 / math.log2(3) + 1 / math.log2(5)) / 2)
        assert new.metrics["R@5"] == 1.0


def test_when_every_target_is_a_repeat_nobody_counts():
    prefixes = random_prefixes(20, 30)
    new = evaluate(Ranking(list(range(30))), prefixes, exclude=prefixes.target[:, None])
    assert new.ranks.tolist() == [-1] * 20 and set(new.metrics.values()) == {0.0}


def test_an_item_that_should_be_left_out_is_an_error():
    prefixes = random_prefixes(10, 30)
    with pytest.raises(ValueError, match="names an excluded item"):
        evaluate(Ranking(list(range(30)), polite=False), prefixes, exclude=prefixes.history)
