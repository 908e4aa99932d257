from __future__ import annotations

import itertools
import json

import pytest
import torch
from places import SCIENTIFIC

from streamrec_lite.baselines.counting import Markov, Popularity, SequentialRules
from streamrec_lite.common.schemas import Prefixes, Splits
from streamrec_lite.data.sequences import items_before_test, iterate_batches
from streamrec_lite.evaluation.evaluate import evaluate


def prefixes(rows: list[tuple[int, list[int], int]], width: int = 20) -> Prefixes:
    history = torch.full((len(rows), width), -1)
    for row, (_, items, _) in enumerate(rows):
        recent = items[-width:]
        history[row, : len(recent)] = torch.tensor(recent)
    length = torch.tensor([min(width, len(items)) for _, items, _ in rows])
    target = torch.tensor([target for *_, target in rows], dtype=torch.int64)
    return Prefixes(history, length, target, torch.tensor([user for user, *_ in rows], dtype=torch.int64))


def split(sequences: list[list[int]], width: int = 20) -> Splits:
    train = [(u, s[:j], s[j]) for u, s in enumerate(sequences) for j in range(1, len(s) - 2)]
    return Splits(
        prefixes(train, width),
        prefixes([(u, s[:-2], s[-2]) for u, s in enumerate(sequences)], width),
        prefixes([(u, s[:-1], s[-1]) for u, s in enumerate(sequences)], width),
    )


# Training parts: 0 1 2 1, 3 1 2, 0 1 3, and 5 alone; items 4 and 6 are never in one.
SEQUENCES = [[0, 1, 2, 1, 4, 4], [3, 1, 2, 4, 4], [0, 1, 3, 6, 6], [5, 6, 6]]


def ask(model, last: int, k: int) -> list[int]:
    return model.topk(prefixes([(0, [4, last], 0)]), k)[0].tolist()


def test_popularity_by_hand():
    model = Popularity.fit(split(SEQUENCES), 7)
    assert model.counts.tolist() == [2, 4, 2, 2, 0, 1, 0]
    assert ask(model, 0, 7) == [1, 0, 2, 3, 5, 4, 6]  # ties by lower item
    assert ask(model, 0, 9) == [1, 0, 2, 3, 5, 4, 6, -1, -1]
    assert model.topk(prefixes([(0, [1], 0), (1, [2], 0)]), 2).tolist() == [[1, 0], [1, 0]]


def test_sequential_rules_by_hand():
    """Within two steps, each further step worth half: after 1 came 2 twice, 3 once, 1 two steps later..."""
    model = SequentialRules.fit(split(SEQUENCES), 7, max_gap=2, n_recent=2, decay=0.5)
    expected = [[0, 2, 0.5, 0.5], [0, 0.5, 2, 1], [0, 1, 0, 0], [0, 1, 0.5, 0]]
    assert model.rules.toarray()[:4, :4].tolist() == expected
    scores = model.scores(prefixes([(0, [2, 0, 1], 0)]))[0]  # 1 votes, 0 votes half, 2 is out of reach
    assert scores[:4].tolist() == pytest.approx([0, 1.5, 2.25, 1.25], abs=1e-3)
    assert model.topk(prefixes([(0, [2, 0, 1], 0)]), 9).tolist() == [[2, 1, 3, 0, 5, 4, 6, -1, -1]]
    assert ask(model, 6, 3) == [1, 0, 2]  # never seen: popularity, of equals the lower item


def test_markov_by_hand():
    model = Markov.fit(split(SEQUENCES), 7)
    # after 1: item 2 twice, item 3 once; then the others by popularity
    assert ask(model, 1, 7) == [2, 3, 1, 0, 5, 4, 6]
    assert ask(model, 2, 3) == [1, 0, 2]
    assert ask(model, 6, 3) == [1, 0, 2]  # never seen: popularity
    assert ask(model, 1, 9) == [2, 3, 1, 0, 5, 4, 6, -1, -1]
    assert ask(model, 1, 1) == [2]


def test_markov_breaks_ties_by_popularity_then_by_item():
    # after 0 come 1, 2 and 3 once each; 3 is the most popular, 1 and 2 are equal
    model = Markov.fit(split([[0, 2, 3, 8, 8], [0, 1, 3, 8, 8], [0, 3, 8, 8]]), 9)
    assert ask(model, 0, 4) == [3, 1, 2, 0]


def test_a_short_history_window_changes_nothing():
    generator = torch.Generator().manual_seed(0)
    sequences = [torch.randint(0, 15, (n,), generator=generator).tolist() for n in (3, 5, 9, 30, 4, 12)]
    wide, narrow = (Markov.fit(split(sequences, width), 15) for width in (40, 1))
    assert torch.equal(wide.popularity.counts, narrow.popularity.counts)
    assert wide.popularity.counts.sum() == sum(len(s) - 2 for s in sequences)
    assert torch.equal(wide.follower, narrow.follower) and torch.equal(wide.start, narrow.start)


def test_markov_equals_a_dense_count_table():
    generator = torch.Generator().manual_seed(1)
    n = 25
    sequences = [torch.randint(0, n - 2, (12,), generator=generator).tolist() for _ in range(40)]
    model, popularity = Markov.fit(split(sequences), n), [0] * n
    table = [[0] * n for _ in range(n)]
    for s in sequences:
        for item in s[:-2]:
            popularity[item] += 1
        for a, b in itertools.pairwise(s[:-2]):
            table[a][b] += 1
    for last in range(n):
        expected = sorted(range(n), key=lambda i: (-table[last][i], -popularity[i], i))
        assert ask(model, last, n) == expected
        assert ask(model, last, 7) == expected[:7]


def test_counting_without_the_history_by_hand():
    asked = prefixes([(0, [4, 1], 0)])
    exclude = torch.tensor([[1, 2, -1]])
    splits = split(SEQUENCES)
    assert Popularity.fit(splits, 7).topk(asked, 5, exclude).tolist() == [[0, 3, 5, 4, 6]]
    assert Markov.fit(splits, 7).topk(asked, 2, exclude).tolist() == [[3, 0]]
    rules = SequentialRules.fit(splits, 7, max_gap=2, n_recent=2, decay=0.5)
    assert rules.topk(prefixes([(0, [2, 0, 1], 0)]), 6, exclude).tolist() == [[3, 0, 5, 4, 6, -1]]


@pytest.mark.parametrize("kind", [Popularity, Markov, SequentialRules])
def test_new_items_are_the_full_ranking_without_the_history(kind):
    generator = torch.Generator().manual_seed(2)
    sequences = [torch.randint(0, 30, (n,), generator=generator).tolist() for n in (4, 9, 30, 12) * 5]
    splits = split(sequences)
    model, exclude = kind.fit(splits, 30), items_before_test(splits)
    every, new = model.topk(splits.test, 30), model.topk(splits.test, 10, exclude)
    for row, got, gone in zip(every.tolist(), new.tolist(), exclude.tolist(), strict=True):
        want = [item for item in row if item not in gone][:10]
        assert got == want + [-1] * (10 - len(want))


@pytest.mark.skipif(not SCIENTIFIC.exists(), reason="the scientific-2018 data set is not here")
def test_known_figures_on_scientific_2018():
    users = json.loads((SCIENTIFIC / "Scientific.inter.json").read_text())
    sequences = [users[user] for user in sorted(users, key=int)]
    splits = split(sequences)
    n_items = 1 + max(max(s) for s in sequences)
    known = {Popularity: ("0.0231", "0.0162"), Markov: ("0.0898", "0.0678")}
    for kind, figures in known.items():
        found = evaluate(kind.fit(splits, n_items), splits.test).metrics
        assert (f"{found['R@10']:.4f}", f"{found['N@10']:.4f}") == figures
    # new items only, against the full ranking with the history taken out
    exclude = items_before_test(splits)
    for kind in (Popularity, Markov, SequentialRules):
        model = kind.fit(splits, n_items)
        every = torch.cat([model.topk(part, n_items) for _, part in iterate_batches(splits.test, 512)])
        order = torch.cat([rows for rows, _ in iterate_batches(splits.test, 512)])
        gone = (every[:, :100, None] == exclude[order][:, None]).any(dim=2)
        assert ((~gone).sum(dim=1) >= 10).all()
        before = gone.cumsum(dim=1)  # items of the history before each place
        place = (every == splits.test.target[order][:, None]).long().argmax(dim=1)
        rank = place + 1 - before.gather(1, place.clamp_max(99)[:, None])[:, 0]
        want = torch.zeros_like(rank).index_copy_(0, order, torch.where(rank <= 10, rank, 0))
        assert torch.equal(evaluate(model, splits.test, exclude=exclude).ranks, want)
