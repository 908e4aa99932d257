"""The playground: a synthetic shop whose users follow projects.

How a user shops. Before the first purchase, three things are drawn: a favourite brand, a
project (the user begins at its first stage), and the number of purchases. That number is independent
of everything else, so the end of a sequence carries no information. Then, for each purchase:

    With probability ``NOISE_PROBABILITY``: any item, by popularity; the user stays at the same stage.
    Otherwise: an item of the stage's category. It is of the favourite brand with probability
    ``LOYALTY`` (if the category has items of it), else of any brand by its share. Then the user moves
    to the next stage, stays, or skips one stage. After the last stage comes the first stage of
    another project.
"""

from __future__ import annotations

import numpy as np

from ..common.device import derive_seed
from ..config.sections import DataConfig
from . import shop
from .dataset import Dataset
from .playground_world import PlaygroundWorld

SHORTEST_SEQUENCE, LONGEST_SEQUENCE = 5, 20  # purchases of a user
NOISE_PROBABILITY = 0.10  # probability that a purchase has nothing to do with the project
LOYALTY = 0.70  # probability of the favourite brand
STAY, SKIP = 0.08, 0.08  # probability of remaining at a stage, and of skipping one
ITEMS_PER_PAIR = 4.2  # mean number of items of one category and brand
WEIGHT_SHAPE = 4.0  # shape of the gamma distribution of item weights: smaller is more unequal


def make_playground(config: DataConfig) -> Dataset:
    """A shop of ``playground_items`` items and ``playground_users`` users, the same for the same seed.

    No k-core filter is applied: the catalogue keeps its size, and some items are never bought.
    """
    n, seed = config.playground_items, config.playground_seed
    count = int(np.clip(round(n / 100), 2, shop.MAX_DEPARTMENTS))
    departments = shop.departments(count)
    world = make_world(departments, n, derive_seed(seed, "playground", "world"))
    rng = np.random.default_rng(derive_seed(seed, "playground", "users"))
    length = draw_lengths(config.playground_users, rng)
    sequences = world.simulate(length, rng)
    items = shop.item_frame(
        departments, world.item_category, world.item_brand, derive_seed(seed, "playground", "text")
    )
    return Dataset(
        name="playground",
        user_ids=_names("u", config.playground_users),
        item_ids=_names("i", n),
        sequences=sequences,
        items=items,
        world=world,
    )


def make_world(departments: list[shop.Department], n: int, seed: int) -> PlaygroundWorld:
    """The world of these departments with ``n`` items, and 3 to 24 brands (more for more items)."""
    rng = np.random.default_rng(seed)
    categories = len(departments) * shop.CATEGORIES_PER_DEPARTMENT
    brands = int(np.clip(round(n / categories / ITEMS_PER_PAIR), 3, len(shop.BRANDS) if n > 5000 else 8))
    item_category = rng.permutation(np.arange(n) % categories)
    brand_prior = rng.dirichlet(np.full(brands, 20.0))
    item_brand = rng.integers(0, brands, size=n)
    pair = item_category * brands + item_brand
    size = np.bincount(pair, minlength=categories * brands).reshape(categories, brands)
    weight = rng.gamma(WEIGHT_SHAPE, size=n) + 0.05
    weight /= np.bincount(pair, weight, minlength=size.size)[pair]
    share = np.where(size > 0, brand_prior * rng.uniform(0.5, 1.5, size=size.shape), 0.0)
    used = np.flatnonzero(size.sum(axis=1) > 0)
    share[used] /= share[used].sum(axis=1, keepdims=True)
    popular = np.where(size.sum(axis=1) > 0, rng.uniform(0.5, 1.5, size=categories), 0.0)
    popularity = (popular / popular.sum())[item_category] * share.ravel()[pair] * weight
    slot_category, initial_slot, transition = _projects(departments, rng)
    return PlaygroundWorld(
        item_category=item_category,
        item_brand=item_brand,
        item_weight=weight,
        popularity=popularity / popularity.sum(),
        brand_share=share,
        loyalty=np.where(size > 0, LOYALTY, 0.0),
        slot_category=slot_category,
        initial_slot=initial_slot,
        transition=transition,
        brand_prior=brand_prior,
        noise=NOISE_PROBABILITY,
        brand_name=shop.BRANDS[:brands],
        slot_name=tuple(
            f"{project}: {list(department.nouns)[category]}"
            for department in departments
            for project, order in department.projects.items()
            for category in order
        ),
    )


def _projects(
    departments: list[shop.Department], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Slots by project and stage: category (S,), initial (S,) and transition (S, S) probabilities."""
    orders = [
        shop.CATEGORIES_PER_DEPARTMENT * number + np.array(order)
        for number, department in enumerate(departments)
        for order in department.projects.values()
    ]
    projects, stages = len(orders), shop.STAGES_PER_PROJECT
    popularity = rng.dirichlet(np.full(projects, 5.0))
    # Three projects often follow a given one; any other follows rarely.
    follow = np.full((projects, projects), 0.1 / projects)
    for project in range(projects):
        others = np.delete(np.arange(projects), project)
        follow[project, rng.choice(others, size=3, replace=False)] += (0.5, 0.25, 0.15)
    follow /= follow.sum(axis=1, keepdims=True)
    first = np.arange(projects) * stages
    initial, transition = np.zeros(projects * stages), np.zeros((projects * stages,) * 2)
    initial[first] = popularity
    for project in range(projects):
        for stage in range(stages):
            slot = project * stages + stage
            for jump, chance in ((0, STAY), (1, 1 - STAY - SKIP), (2, SKIP)):
                if stage + jump < stages:
                    transition[slot, slot + jump] += chance
                else:
                    transition[slot, first] += chance * follow[project]
    return np.concatenate(orders), initial, transition


def draw_lengths(users: int, rng: np.random.Generator) -> np.ndarray:
    """Random lengths of sequences (users,), with a mean of about 10.5."""
    return np.minimum(SHORTEST_SEQUENCE + rng.geometric(0.15, size=users) - 1, LONGEST_SEQUENCE)


def _names(letter: str, count: int) -> list[str]:
    """IDs with leading zeros, so that their order as text equals their order as numbers."""
    width = max(4, len(str(count - 1)))
    return [f"{letter}{number:0{width}d}" for number in range(count)]
