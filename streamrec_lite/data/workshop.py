"""The workshop: a synthetic shop where the next purchase takes several steps of inference.

A user takes some guides and a part, and buys the part that the guides lead to, one after the other: the
guide by brand names the next part for each part, the guide by mount another, and so on. What a guide says
is written nowhere; a model learns it from users with one guide. Training has all parts with one guide, but
for every pile of two to four guides only half of the parts. Validation and test ask for the other half: a
model that has learned the guides can take the steps one by one, but it has never seen where they lead.
"""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd

from ..common.device import derive_seed
from ..config.sections import DataConfig
from .dataset import TEXT_COLUMNS, Dataset
from .shop import BRANDS
from .workshop_world import MAX_STEPS, WorkshopWorld

NOISE_PROBABILITY = 0.05  # probability that a purchase is any part
MOST_CONSUMABLES = 2  # bought before the pile, up to this many
SHARES = (0.82, 0.06, 0.12)  # of the users: training, validation, test
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
    rng = np.random.default_rng(derive_seed("workshop", "users"))
    held_out = _held_out(world, np.random.default_rng(derive_seed("workshop", "held out")))
    users = config.workshop_users
    split = np.repeat(np.arange(3), np.diff(np.round(np.cumsum((0, *SHARES)) * users).astype(int)))
    sequences = [_errand(world, held_out, int(part), rng) for part in split]
    width = len(str(users - 1))
    return Dataset(
        name="workshop",
        user_ids=[f"u{number:0{width}d}" for number in range(users)],
        item_ids=[f"i{number:04d}" for number in range(world.n_items)],
        sequences=sequences,
        items=_item_frame(world),
        world=world,
        split=split,
    )


def make_world(parts: int) -> WorkshopWorld:
    """The guides of ``parts`` parts: each a random permutation."""
    rng = np.random.default_rng(derive_seed("workshop", "guides"))
    leads_to = np.stack([rng.permutation(parts) for _ in range(1 + len(GUIDES))])
    return WorkshopWorld(leads_to, NOISE_PROBABILITY, parts + len(GUIDES) + len(CONSUMABLES), GUIDES)


def _held_out(world: WorkshopWorld, rng: np.random.Generator) -> dict[tuple[int, ...], np.ndarray]:
    """For each pile of two guides or more, the split (P,) that each part belongs to: 0, 1 or 2.

    Half of the parts are for training. Validation and test share the other half, and have no combination
    in common.
    """
    parts, held_out = world.n_parts, {}
    for steps in range(2, MAX_STEPS + 1):
        for pile in itertools.product(range(world.n_guides), repeat=steps):
            part = np.zeros(parts, dtype=np.int64)
            chosen = rng.permutation(parts)[: parts // 2]
            part[chosen] = 2
            part[chosen[: parts // 6]] = 1
            held_out[pile] = part
    return held_out


def _errand(
    world: WorkshopWorld, held_out: dict[tuple[int, ...], np.ndarray], split: int, rng: np.random.Generator
) -> np.ndarray:
    """One user's items: consumables, the pile, the part, and what the user buys in the end."""
    steps = int(rng.integers(1, MAX_STEPS + 1))
    pile = tuple(rng.integers(0, world.n_guides, steps).tolist())
    allowed = np.arange(world.n_parts) if steps == 1 else np.flatnonzero(held_out[pile] == split)
    start = goal = int(rng.choice(allowed))
    for guide in pile:
        goal = int(world.leads_to[1 + guide, goal])
    if rng.random() < world.noise:
        goal = int(rng.integers(world.n_parts))
    before = world.n_parts + world.n_guides
    consumables = rng.integers(before, world.n_items, int(rng.integers(0, MOST_CONSUMABLES + 1))).tolist()
    guides = [world.n_parts + guide for guide in reversed(pile)]
    return np.array([*consumables, *guides, start, goal], dtype=np.int64)


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
