"""Leave-one-out against hand-written examples; batches as a partition by length."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pandas as pd
import pytest
import torch
from places import SCIENTIFIC

from streamrec_lite.common.errors import BadInput
from streamrec_lite.data.dataset import TEXT_COLUMNS, Dataset
from streamrec_lite.data.sequences import (
    items_before_test,
    iterate_batches,
    leave_one_out,
    length_batches,
    padding_share,
    repeat_shares,
)
from streamrec_lite.data.sources import load_dataset

needs_scientific = pytest.mark.skipif(
    not SCIENTIFIC.exists(), reason="the scientific-2018 data set is not here"
)


def dataset(*sequences: list[int]) -> Dataset:
    n = max((max(s, default=0) for s in sequences), default=0) + 1
    return Dataset(
        name="hand-made",
        user_ids=[f"u{row}" for row in range(len(sequences))],
        item_ids=[str(row) for row in range(n)],
        sequences=[np.array(s, dtype=np.int64) for s in sequences],
        items=pd.DataFrame({column: [""] * n for column in TEXT_COLUMNS}, dtype=str),
    )


def rows(prefixes) -> list[tuple]:
    """(user, history without padding, target) of each example."""
    fields = (f.tolist() for f in (prefixes.user, prefixes.history, prefixes.length, prefixes.target))
    for user, history, length, target in zip(*fields, strict=True):
        assert all(item >= 0 for item in history[:length]) and all(item == -1 for item in history[length:])
        yield user, history[:length], target


def test_leave_one_out_by_hand():
    splits = leave_one_out(dataset([5, 1, 2, 3, 4], [0, 1, 2]), max_history=20)
    assert list(rows(splits.train)) == [(0, [5], 1), (0, [5, 1], 2)]
    assert list(rows(splits.valid)) == [(0, [5, 1, 2], 3), (1, [0], 1)]
    assert list(rows(splits.test)) == [(0, [5, 1, 2, 3], 4), (1, [0, 1], 2)]
    assert splits.train.history.shape == (2, 20)
    assert all(field.dtype == torch.int64 for part in splits for field in part)


def test_histories_keep_the_newest_items():
    splits = leave_one_out(dataset([0, 1, 2, 3, 4, 5]), max_history=2)
    assert list(rows(splits.train)) == [(0, [0], 1), (0, [0, 1], 2), (0, [1, 2], 3)]
    assert list(rows(splits.valid)) == [(0, [2, 3], 4)]
    assert list(rows(splits.test)) == [(0, [3, 4], 5)]


def test_three_items_give_no_training_example():
    splits = leave_one_out(dataset([2, 0, 1]), max_history=4)
    assert splits.train.n_examples == 0 and splits.train.history.shape == (0, 4)
    assert list(rows(splits.valid)) == [(0, [2], 0)] and list(rows(splits.test)) == [(0, [2, 0], 1)]
    assert length_batches(splits.train.length, 8, seed=0) == []


def test_no_later_item_leaks_into_a_history():
    rng = np.random.default_rng(0)
    made = dataset(*[(np.arange(n) + 100 * u).tolist() for u, n in enumerate(rng.integers(3, 40, 30))])
    for part, held_out in zip(leave_one_out(made, 20), (2, 1, 0), strict=True):
        for user, history, target in rows(part):
            whole = made.sequences[user].tolist()
            at = whole.index(target)  # items of a user are all different here
            assert history == whole[max(0, at - 20) : at]
            assert at < len(whole) - held_out


@pytest.mark.parametrize(
    ("sequences", "max_history", "text"),
    [
        (([0, 1, 2], [0, 1]), 20, "user 'u1' has 2 interactions"),
        (([],), 20, "user 'u0' has 0 interactions"),
        ((), 20, "no users"),
        (([0, 1, 2],), 0, "max_history=0"),
    ],
)
def test_bad_input(sequences, max_history, text):
    with pytest.raises(BadInput, match=text):
        leave_one_out(dataset(*sequences), max_history)


def test_batches_refuse_no_rows():
    with pytest.raises(BadInput, match="batch_size=0"):
        length_batches(torch.tensor([1, 2]), 0, seed=0)


LENGTHS = torch.from_numpy(np.minimum(np.random.default_rng(3).geometric(0.25, 5000), 20))


@pytest.mark.parametrize("seed", [None, 0, 7])
@pytest.mark.parametrize("batch_size", [1, 64, 256, 10_000])
def test_every_row_exactly_once(seed, batch_size):
    batches = length_batches(LENGTHS, batch_size, seed)
    assert torch.equal(torch.cat(batches).sort().values, torch.arange(len(LENGTHS)))
    assert max(map(len, batches)) <= batch_size and min(map(len, batches)) > 0
    assert len(batches) == -(-len(LENGTHS) // batch_size)  # not one batch more than needed


def test_without_a_seed_rows_are_in_order_of_length():
    order = torch.cat(length_batches(LENGTHS, 100, None))
    assert torch.equal(order, LENGTHS.argsort(stable=True))


def test_a_seed_gives_one_order():
    one, again, other = (length_batches(LENGTHS, 64, seed) for seed in (5, 5, 6))
    assert all(torch.equal(a, b) for a, b in zip(one, again, strict=True))
    assert not torch.equal(torch.cat(one), torch.cat(other))


def test_batches_hold_one_length_but_for_the_rests():
    batches = length_batches(LENGTHS, 64, seed=1)
    mixed = [b for b in batches if len(LENGTHS[b].unique()) > 1]
    rest = sum(count % 64 for count in Counter(LENGTHS.tolist()).values())
    assert len(mixed) <= -(-rest // 64)
    small = [len(b) for b in batches if len(b) < 64]
    assert not small or max(small) - min(small) <= 1  # no batch of a few rows with a step of its own


def test_which_rows_share_a_batch_is_random():
    """Rows of one length meet any other with the same chance; a rest's rows are not always the same."""
    length = torch.cat([torch.full((40,), 2), torch.full((10,), 5)])
    met, in_mixed = torch.zeros(50, 50), torch.zeros(50)
    trials = 1500
    for seed in range(trials):
        for batch in length_batches(length, 16, seed):
            met[batch[:, None], batch] += 1
            if len(length[batch].unique()) > 1:
                in_mixed[batch] += 1
    among = met[:40, :40][~torch.eye(40, dtype=torch.bool)] / trials
    assert among.std() < 0.02 and abs(among - among.mean()).max() < 0.07
    assert (in_mixed[:40] / trials).std() < 0.02 and in_mixed[:40].min() > 0


def test_order_of_batches_is_random():
    """The first batch of an epoch must not always be a short one."""
    first = [int(LENGTHS[length_batches(LENGTHS, 256, seed)[0]].max()) for seed in range(60)]
    assert len(set(first)) >= 4


def test_iterate_cuts_histories_to_the_batch():
    train = leave_one_out(dataset([0, 1, 2, 3, 4, 5, 6], [6, 5, 4, 3]), 20).train
    seen = []
    for taken, batch in iterate_batches(train, batch_size=2, seed=0):
        assert batch.history.shape == (len(taken), int(batch.length.max()))
        assert torch.equal(batch.target, train.target[taken])
        seen += list(rows(batch))
    assert sorted(seen) == sorted(rows(train))


def test_padding_share_by_hand():
    assert padding_share(torch.tensor([1, 3, 2]), [torch.tensor([0, 1]), torch.tensor([2])]) == 1 - 6 / 8
    assert padding_share(torch.tensor([], dtype=torch.int64), []) == 0


@needs_scientific
def test_scientific_2018():
    splits = leave_one_out(load_dataset(f"amazon-2018:{SCIENTIFIC}"), 20)
    assert [part.n_examples for part in splits] == [33_541, 8_317, 8_317]
    length = splits.train.length
    batches = length_batches(length, 256, seed=0)
    assert padding_share(length, batches) < 0.03
    assert sum(len(length[b].unique()) == 1 for b in batches) > 0.9 * len(batches)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_batches_stay_on_the_device():
    splits = leave_one_out(dataset([0, 1, 2, 3, 4]), 20, device="cuda")
    taken, batch = next(iterate_batches(splits.train, 4, seed=0))
    assert taken.is_cuda and all(field.is_cuda for field in batch)


def test_items_before_the_test_are_the_whole_history():
    shop = dataset([5, 1, 5, 3, 4, 0], [0, 1, 2], [2, 4, 4, 4])
    for max_history in (1, 2, 20):  # what the model reads does not matter
        table = items_before_test(leave_one_out(shop, max_history))
        assert table.tolist() == [[1, 3, 4, 5], [0, 1, -1, -1], [2, 4, -1, -1]]


def test_items_before_the_test_equal_sets_of_random_histories():
    generator = np.random.default_rng(0)
    sequences = [generator.integers(0, 30, n).tolist() for n in (3, 40, 4, 7, 25)]
    table = items_before_test(leave_one_out(dataset(*sequences), 6))
    found = [[item for item in row if item >= 0] for row in table.tolist()]
    assert found == [sorted(set(sequence[:-1])) for sequence in sequences]


def test_repeat_shares_by_hand():
    # training targets: 1, 5 (a repeat), 3 and 4; validation 4, 1, 4 (a repeat); test 0, 2, 4 (a repeat)
    shares = repeat_shares(dataset([5, 1, 5, 3, 4, 0], [0, 1, 2], [2, 4, 4, 4]).sequences)
    assert shares == {
        "train": pytest.approx(1 / 4),
        "valid": pytest.approx(1 / 3),
        "test": pytest.approx(1 / 3),
    }
    by_user = repeat_shares([np.array([1, 2, 1]), np.array([1, 2]), np.array([3, 3])], np.array([0, 1, 2]))
    assert by_user == {"train": 1.0, "valid": 0.0, "test": 1.0}, "each user's last item is a target"
    assert repeat_shares([np.array([1, 1, 1])]) == {"train": 0.0, "valid": 1.0, "test": 1.0}
    rows = [np.array(row) for row in ([0, 0], [0, 1, 1], [2, 1], [1, 2])]  # a part for each user
    by_user = repeat_shares(rows, np.array([0, 0, 0, 2]))
    assert by_user == {"train": pytest.approx(2 / 3), "valid": 0.0, "test": 0.0}
