"""The oracle against enumeration of all hidden paths, on a world of six items."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from streamrec_lite.common.errors import BadInput
from streamrec_lite.data.playground_world import PlaygroundWorld


def tiny_world(seed: int = 0) -> PlaygroundWorld:
    """Six items in three categories, two brands, two projects of two stages; category 2 lacks brand 0."""
    rng = np.random.default_rng(seed)
    category = np.array([0, 0, 1, 1, 2, 2])
    brand = np.array([0, 1, 0, 1, 1, 1])
    return PlaygroundWorld(
        item_category=category,
        item_brand=brand,
        item_weight=np.array([1, 1, 1, 1, 0.3, 0.7]),
        popularity=rng.dirichlet(np.ones(6)),
        brand_share=np.array([[0.25, 0.75], [0.6, 0.4], [0.0, 1.0]]),
        loyalty=np.array([[0.7, 0.7], [0.7, 0.7], [0.0, 0.7]]),
        slot_category=np.array([0, 1, 2, 0]),
        initial_slot=np.array([0.6, 0.0, 0.4, 0.0]),
        transition=rng.dirichlet(np.ones(4), size=4),
        brand_prior=np.array([0.3, 0.7]),
        noise=0.2,
    )


def probability(world: PlaygroundWorld, sequence) -> float:
    """P(sequence), summed over every favourite brand, path of slots and pattern of noise."""
    total, n, slots = 0.0, len(sequence), range(len(world.initial_slot))
    for favourite in range(len(world.brand_prior)):
        for path in itertools.product(slots, repeat=n):
            for noisy in itertools.product((False, True), repeat=n):
                p = world.brand_prior[favourite] * world.initial_slot[path[0]]
                for step, item in enumerate(sequence):
                    if noisy[step]:
                        p *= world.noise * world.popularity[item]
                    else:
                        p *= (1 - world.noise) * wished(world, item, favourite, path[step])
                    if step + 1 < n:
                        p *= (
                            float(path[step] == path[step + 1])
                            if noisy[step]
                            else world.transition[path[step], path[step + 1]]
                        )
                total += p
    return total


def wished(world: PlaygroundWorld, item: int, favourite: int, slot: int) -> float:
    category, brand = world.item_category[item], world.item_brand[item]
    if category != world.slot_category[slot]:
        return 0.0
    loyal = world.loyalty[category, favourite]
    return (
        loyal * (brand == favourite) + (1 - loyal) * world.brand_share[category, brand]
    ) * world.item_weight[item]


@pytest.mark.parametrize("history", [[], [0], [4, 1], [1, 1, 3], [5, 2, 0]])
def test_oracle_equals_enumeration(history):
    world = tiny_world()
    joint = np.array([probability(world, [*history, item]) for item in range(6)])
    before = probability(world, history) if history else 1.0
    scores = world.oracle_scores([np.array(history, dtype=np.int64)])[0]
    np.testing.assert_allclose(scores, joint / before, rtol=0, atol=1e-13)


def test_sequences_follow_the_model():
    """Simulated pairs occur as often as the enumeration says."""
    world, users = tiny_world(1), 200_000
    pairs = np.stack(world.simulate(np.full(users, 2), np.random.default_rng(0)))
    share = np.bincount(pairs[:, 0] * 6 + pairs[:, 1], minlength=36) / users
    expected = np.array([probability(world, pair) for pair in itertools.product(range(6), repeat=2)])
    assert abs(expected.sum() - 1) < 1e-12
    deviation = np.sqrt(expected * (1 - expected) / users)
    assert (np.abs(share - expected) < 4.5 * deviation).all()


def test_histories_of_mixed_length_and_padded_arrays_agree():
    world = tiny_world()
    histories = [np.array([0, 3, 1]), np.array([5]), np.array([2, 2])]
    padded = np.array([[0, 3, 1, -1], [5, -1, -1, -1], [2, 2, -1, -1]])
    alone = np.concatenate([world.oracle_scores([h]) for h in histories])
    np.testing.assert_allclose(world.oracle_scores(histories), alone, atol=1e-15)
    np.testing.assert_allclose(world.oracle_scores(padded), alone, atol=1e-15)


@pytest.mark.parametrize("history", [[6], [-2], [0, 99]])
def test_items_outside_the_catalogue(history):
    with pytest.raises(BadInput, match=r"items are numbered 0\.\.5"):
        tiny_world().oracle_scores([np.array(history)])
