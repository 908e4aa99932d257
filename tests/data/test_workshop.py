"""The workshop: its steps by hand, its held-out combinations, and its best ranking."""

import numpy as np
import pytest
import torch

from streamrec_lite.common.schemas import PAD_ITEM, Prefixes
from streamrec_lite.config.sections import DataConfig
from streamrec_lite.data.sequences import split_examples
from streamrec_lite.data.sources import load_dataset
from streamrec_lite.data.workshop_world import WorkshopWorld

# Four parts (0..3), two guides (4, 5) and one consumable (6).
WORLD = WorkshopWorld(
    leads_to=np.array([[3, 2, 1, 0], [1, 2, 3, 0], [2, 0, 3, 1]]), noise=0.1, n_items=7, guide_name=("A", "B")
)


def histories(*rows: list[int]) -> Prefixes:
    width = max(map(len, rows))
    history = torch.tensor([[*row, *[PAD_ITEM] * (width - len(row))] for row in rows])
    length = torch.tensor([len(row) for row in rows])
    return Prefixes(history, length, torch.zeros(len(rows), dtype=torch.long), torch.arange(len(rows)))


@pytest.fixture(scope="module")
def workshop():
    return load_dataset("workshop", DataConfig(workshop_users=1000, workshop_parts=24))


def test_the_guide_next_to_the_part_is_read_first():
    # pile from the top: A, B, start at 1: A leads 1 to 2, B leads 2 to 3. The other way round: 1 -> 0 -> 1.
    users = histories([6, 5, 4, 1], [4, 5, 1])
    assert WORLD.steps(users).tolist() == [2, 2]
    assert WORLD.path(users, 4).tolist() == [[2, 3, 3, 3], [0, 1, 1, 1]]


def test_the_path_overruns_by_what_goes_with_a_part():
    users = histories([4, 1])
    assert WORLD.path(users, 3, overrun=True).tolist() == [[2, 1, 2]]  # A: 1 -> 2, then 2 -> 1 -> 2
    assert WORLD.path(users, 5, overrun=True).shape == (1, 5)
    assert WORLD.path(users, 0).shape == (1, 0)


def test_a_consumable_ends_the_pile_and_a_part_alone_has_no_steps():
    users = histories([4, 6, 5, 2], [2], [6, 2])
    assert WORLD.steps(users).tolist() == [1, 0, 0]
    assert WORLD.path(users, 2).tolist() == [[3, 3], [2, 2], [2, 2]]


def test_the_oracle_ranks_the_goal_first_and_names_no_item_twice():
    top = WORLD.oracle_topk(histories([5, 4, 1], [4, 0]), 6)
    assert top[:, 0].tolist() == [3, 1]
    assert top.shape == (2, 6)
    assert (top[:, 4:] == -1).all(), "only parts are bought"
    assert all(sorted(row[:4]) == [0, 1, 2, 3] for row in top.tolist())


def test_tested_combinations_were_never_seen_in_training(workshop):
    seen = []
    for examples in split_examples(workshop, 20):
        start, pile = workshop.world.read(examples)
        rows = torch.cat([start[:, None], pile], dim=1)[workshop.world.steps(examples) > 1]
        seen.append(set(map(tuple, rows.tolist())))
    train, valid, test = seen
    assert train and valid and test
    assert not (train & valid or train & test or valid & test)


def test_every_user_is_one_example_and_noise_is_as_announced(workshop):
    splits = split_examples(workshop, 20)
    assert [part.n_examples for part in splits] == [920, 30, 50]
    assert torch.cat([part.user for part in splits]).tolist() == list(range(1000))
    for examples in splits:
        row = int(examples.user[0])
        assert workshop.sequences[row].tolist() == [
            *examples.history[0, : examples.length[0]].tolist(),
            int(examples.target[0]),
        ]
    right = workshop.world.path(splits.train, 4)[:, -1] == splits.train.target
    # a noisy purchase hits the goal once in 24: 0.952; standard error 0.0075
    assert abs(float(right.float().mean()) - 0.952) < 0.025


def test_the_same_settings_make_the_same_workshop(workshop):
    again = load_dataset("workshop", DataConfig(workshop_users=1000, workshop_parts=24))
    assert again.fingerprint() == workshop.fingerprint()
    assert len(set(workshop.items["title"])) == workshop.n_items == 36


def test_a_shorter_history_keeps_the_newest_items(workshop):
    examples = split_examples(workshop, 2).test
    assert examples.history.shape[1] == 2
    full = split_examples(workshop, 20).test
    assert torch.equal(examples.history[0], full.history[0, full.length[0] - 2 : full.length[0]])
