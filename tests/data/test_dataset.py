"""Order of IDs, k-core against brute force, fingerprint."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from data_files import ALL, ITEMS, ROWS, VECTORS, write_shop

from streamrec_lite.data.dataset import id_order, k_core
from streamrec_lite.data.sources import load_dataset


def test_order_of_ids():
    assert id_order(["10", "9", "-1"]).tolist() == [2, 1, 0]
    assert id_order(["10", "9", "x"]).tolist() == [0, 1, 2]
    assert id_order(["10", "010"]).tolist() == [1, 0]  # a leading zero: text


def brute_force_core(user, item, k) -> set[int]:
    """The largest subset of rows in which all counts reach k, by looking at every subset."""
    best: set[int] = set()
    for size in range(len(user), 0, -1):
        for rows in itertools.combinations(range(len(user)), size):
            counts = [np.bincount(codes[list(rows)]) for codes in (user, item)]
            if all((c[c > 0] >= k).all() for c in counts):
                return set(rows)
    return best


@pytest.mark.parametrize("seed", range(8))
def test_k_core_is_the_largest(seed):
    rng = np.random.default_rng(seed)
    user, item = rng.integers(0, 4, 11), rng.integers(0, 4, 11)
    for k in (2, 3):
        assert set(np.flatnonzero(k_core(user, item, k))) == brute_force_core(user, item, k)


def test_k_core_repeats_until_nothing_changes():
    """Item 2 falls, then user 1 with it, then item 1: one pass would stop too early."""
    user, item = np.array([0, 0, 1, 1, 2, 2]), np.array([0, 0, 1, 2, 1, 0])
    assert k_core(user, item, 2).tolist() == [True, True, False, False, False, False]
    assert k_core(user, item, 1).all() and k_core(user, item, 0).all()


def test_fingerprint_sees_content_alone(tmp_path):
    one = load_dataset(write_shop(tmp_path), ALL)
    base = one.fingerprint()
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    assert load_dataset(write_shop(moved, suffix=".parquet"), ALL).fingerprint() == base
    changes = [
        dict(rows=[*ROWS, ("u1", "a", 99)]),
        dict(items=ITEMS.assign(title=["Cable", "Amplifier", "Guitar", "String"])),
        dict(items=ITEMS.replace({"unused": "unusee"})),
        dict(items=ITEMS.assign(title=["CableA", "mplifier", "Guitar", "Strings"])),
    ]
    prints = {load_dataset(write_shop(tmp_path, **change), ALL).fingerprint() for change in changes}
    np.save(tmp_path / "shop.embeddings.npy", VECTORS)
    prints.add(load_dataset(write_shop(tmp_path), ALL).fingerprint())
    assert len(prints | {base}) == 6
