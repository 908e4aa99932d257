"""The workshop: a synthetic shop where the next purchase takes several steps of inference.

A user takes some guides and a part, and buys the part that the guides lead to, one after the other: the
guide by brand names the next part for each part, the guide by mount another, and so on. What a guide says
is written nowhere; a model learns it from users with one guide. Training has all parts with one guide, but
for every pile of two to four guides only half of the parts. Validation and test ask for the other half: a
model that has learned the guides can take the steps one by one, but it has never seen where they lead.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from ..common.device import derive_seed
from ..config.sections import DataConfig
from .dataset import TEXT_COLUMNS, Dataset
from .shop import BRANDS
from .workshop_world import MAX_STEPS, WorkshopWorld

NOISE_PROBABILITY = 0.05  # probability that a purchase is any part
MOST_CONSUMABLES = 2  # bought before the pile, up to this many
SHARES = (0.92, 0.03, 0.05)  # of the users: training, validation, test
GUIDES = ("Brand", "Mount", "Size", "Colour")
CONSUMABLES = (
    "Wood Glue",
    "Sandpaper",
    "Screws",
    "Masking Tape",
    "Machine Oil",
    "Ear Plugs",
    "Rags",
    "Chalk",
)
NOUNS = (
    "Cordless Drill", "Band Saw", "Router", "Orbital Sander", "Bench Vise", "Block Plane",
    "Chisel Set", "Wood Lathe", "Angle Grinder", "Drill Press", "Dust Extractor", "Corner Clamp",
)  # fmt: skip
SIZES = ("Compact", "Standard", "Large", "Professional")


def make_workshop(config: DataConfig) -> Dataset:
    """A shop of ``workshop_parts`` parts, and ``workshop_users`` users of one errand each.

    ``Dataset.split`` says which users are for training, validation and test.
    """
    world = make_world(config.workshop_parts)
    users = config.workshop_users
    split = np.repeat(np.arange(3), np.diff(np.round(np.cumsum((0, *SHARES)) * users).astype(int)))
    rng = np.random.default_rng(derive_seed("workshop", "users"))
    pile, start = _errands(world, split, rng)
    width = len(str(users - 1))
    return Dataset(
        name="workshop",
        user_ids=[f"u{number:0{width}d}" for number in range(users)],
        item_ids=[f"i{number:04d}" for number in range(world.n_items)],
        sequences=_sequences(world, pile, start, rng),
        items=_item_frame(world),
        world=world,
        split=split,
    )


def make_world(parts: int) -> WorkshopWorld:
    """The guides of ``parts`` parts: each a random permutation."""
    rng = np.random.default_rng(derive_seed("workshop", "guides"))
    leads_to = np.stack([rng.permutation(parts) for _ in range(1 + len(GUIDES))])
    return WorkshopWorld(leads_to, NOISE_PROBABILITY, parts + len(GUIDES) + len(CONSUMABLES), GUIDES)


def _errands(
    world: WorkshopWorld, split: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Piles (U, MAX_STEPS), -1 where a pile has no guide any more, and the parts that errands begin at (U,).

    For every pile of two guides or more the parts are shuffled once: the first sixth is for validation, the
    next third for the test, the rest for training. So no two splits have a combination in common.
    """
    parts, guides, users = world.n_parts, world.n_guides, len(split)
    steps = rng.integers(1, MAX_STEPS + 1, users)
    pile = rng.integers(0, guides, (users, MAX_STEPS))
    pile[np.arange(MAX_STEPS) >= steps[:, None]] = -1
    start = rng.integers(0, parts, users)
    shuffles = np.random.default_rng(derive_seed("workshop", "held out"))
    bounds = np.array([[parts // 2, parts], [0, parts // 6], [parts // 6, parts // 2]])[split]
    for h in range(2, MAX_STEPS + 1):
        order = shuffles.permuted(np.tile(np.arange(parts), (guides**h, 1)), axis=1)
        mine = steps == h
        number = pile[mine, :h] @ guides ** np.arange(h)
        start[mine] = order[number, rng.integers(bounds[mine, 0], bounds[mine, 1])]
    return pile, start


def _sequences(
    world: WorkshopWorld, pile: np.ndarray, start: np.ndarray, rng: np.random.Generator
) -> list[np.ndarray]:
    """Each user's items: consumables, the pile, the part, and what the user buys in the end."""
    users, goal = len(start), start
    for i in range(MAX_STEPS):
        goal = np.where(pile[:, i] >= 0, world.leads_to[1 + pile[:, i], goal], goal)
    noisy = rng.random(users) < world.noise
    goal = np.where(noisy, rng.integers(0, world.n_parts, users), goal)
    before = rng.integers(world.n_parts + world.n_guides, world.n_items, (users, MOST_CONSUMABLES))
    before[np.arange(MOST_CONSUMABLES) >= rng.integers(0, MOST_CONSUMABLES + 1, users)[:, None]] = -1
    guides = np.where(pile >= 0, world.n_parts + pile, -1)[:, ::-1]
    table = np.column_stack([before, guides, start, goal])
    return [row[row >= 0] for row in table]


def _item_frame(world: WorkshopWorld) -> pd.DataFrame:
    """Readable text of all items; nothing in it says where a guide leads."""
    rows = []
    for number in range(world.n_parts):
        noun = NOUNS[number % len(NOUNS)]
        maker, size = number // len(NOUNS) % len(BRANDS), number // (len(NOUNS) * len(BRANDS))
        brand, suffix = BRANDS[maker], f" {SIZES[size % len(SIZES)]}" if world.n_parts > 288 else ""
        rows.append((f"{brand} {noun}{suffix}", brand, f"Workshop,Parts,{noun}", f"{noun} by {brand}."))
    for name in world.guide_name:
        what = f"Says for every part which one to take next, by {name.lower()}."
        rows.append((f"Guide by {name}", "", "Workshop,Guides", what))
    for name in CONSUMABLES:
        rows.append((name, "", "Workshop,Consumables", f"{name}, to have in stock."))
    return pd.DataFrame(rows, columns=list(TEXT_COLUMNS), dtype=str)
