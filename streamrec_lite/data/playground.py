"""The playground: a synthetic shop whose users follow projects, and the best ranking possible in it.

How a user shops. Once: a favourite brand b, a first project (its first stage), and a length, drawn
independently of all else, so that stopping tells nothing. Then at every step

    with probability noise      any item, by popularity; the project waits
    else                        an item of the stage's category, of the favourite brand with
                                probability ``loyalty`` (if the category carries it), else of any brand
                                by its share; then on: to the next stage, the same again, one further,
                                or, past the last stage, to the next project's first one.

The hidden state is (brand, slot), where a slot is a stage of a project. The oracle filters it
forward exactly and ranks items by P(next item | history): no model can rank better on average.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ..common.device import derive_seed
from ..common.errors import BadInput
from ..common.schemas import PAD_ITEM, Prefixes
from ..config.sections import DataConfig
from . import shop
from .dataset import Dataset

SHORTEST_SEQUENCE, LONGEST_SEQUENCE = 5, 20
USERS_PER_CHUNK = 16_384
NOISE, LOYALTY, AGAIN, FURTHER = 0.10, 0.70, 0.08, 0.08
PER_CELL, SKEW = 4.2, 4.0


@dataclass(frozen=True)
class PlaygroundWorld:
    """A hidden Markov shop: N items, C categories, G brands, S slots. All arrays are float64 or int64.

    Given the slot s and the favourite brand b an item x of category c and brand g has probability

        [c = slot_category[s]] * (loyalty[c, b] [g = b] + (1 - loyalty[c, b]) brand_share[c, g]) * item_weight[x]
    """

    item_category: np.ndarray  # (N,)
    item_brand: np.ndarray  # (N,)
    item_weight: np.ndarray  # (N,) probability within the item's category and brand
    popularity: np.ndarray  # (N,) probability as noise
    brand_share: np.ndarray  # (C, G) probability of a brand within a category, 0 where it has no item
    loyalty: np.ndarray  # (C, G) loyalty to brand b in category c, 0 where it has no item
    slot_category: np.ndarray  # (S,)
    initial_slot: np.ndarray  # (S,) first slot
    transition: np.ndarray  # (S, S) slot after a purchase that was no noise
    brand_prior: np.ndarray  # (G,) favourite brand
    noise: float
    brand_name: tuple[str, ...] = ()  # (G,)
    slot_name: tuple[str, ...] = ()  # (S,) e.g. "record at home: Microphones"

    @property
    def n_items(self) -> int:
        return len(self.item_weight)

    def simulate(self, length: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
        """One sequence a user, of the given lengths (U,)."""
        sequences: list[np.ndarray] = []
        for begin in range(0, len(length), USERS_PER_CHUNK):
            sequences += self._simulate(length[begin : begin + USERS_PER_CHUNK], rng)
        return sequences

    def _simulate(self, length: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
        users, brands = len(length), len(self.brand_prior)
        cell = self.item_category * brands + self.item_brand
        order = np.argsort(cell, kind="stable")
        size = np.bincount(cell, minlength=self.brand_share.size)
        first, rank = np.cumsum(size) - size, np.cumsum(size > 0) - (size > 0)
        within = np.cumsum(self.item_weight[order])  # each cell that has items adds exactly 1
        tables = [
            _cumulative(t)
            for t in (self.brand_prior, self.initial_slot, self.popularity, self.brand_share, self.transition)
        ]
        nobody = np.zeros(users, dtype=np.int64)
        favourite = _draw(tables[0], nobody, rng)
        slot = _draw(tables[1], nobody, rng)
        taken = np.empty((users, int(length.max())), dtype=np.int64)
        for step in range(taken.shape[1]):
            category = self.slot_category[slot]
            keeps = rng.random(users) < self.loyalty[category, favourite]
            brand = np.where(keeps, favourite, _draw(tables[3], category, rng))
            place = category * brands + brand
            found = np.searchsorted(within, rank[place] + rng.random(users), side="right")
            wanted = order[np.clip(found, first[place], first[place] + size[place] - 1)]
            noisy = rng.random(users) < self.noise
            taken[:, step] = np.where(noisy, _draw(tables[2], nobody, rng), wanted)
            slot = np.where(noisy, slot, _draw(tables[4], slot, rng))
        return [row[:count].copy() for row, count in zip(taken, length, strict=True)]

    def filter_forward(self, histories) -> np.ndarray:
        """P(brand, slot of the next wish | history) (B, G, S) float64, by the forward recursion.

        ``histories``: a list of item arrays, or one (B, L) array, filled on the right with PAD_ITEM.
        """
        padded = _padded(histories, self.n_items)
        slots, inside = self._slots()
        belief = np.tile(self.brand_prior[:, None] * self.initial_slot, (len(padded), 1, 1))
        for column in padded.T:
            rows = np.flatnonzero(column != PAD_ITEM)
            if not len(rows):
                break
            item, now = column[rows], belief[rows]
            category, brand = self.item_category[item], self.item_brand[item]
            loyal = self.loyalty[category]  # (b, G)
            liked = (1 - loyal) * self.brand_share[category, brand][:, None]
            liked[np.arange(len(rows)), brand] += loyal[np.arange(len(rows)), brand]
            at, real = slots[category], inside[category]  # (b, R): only these slots want the category
            meant = np.take_along_axis(now, at[:, None, :], axis=2) * real[:, None, :]  # (b, G, R)
            meant *= (liked * self.item_weight[item][:, None])[:, :, None]
            waits = now * self.popularity[item][:, None, None]
            now = (1 - self.noise) * (meant @ self.transition[at]) + self.noise * waits
            belief[rows] = now / now.sum(axis=(1, 2), keepdims=True)
        return belief

    def _slots(self) -> tuple[np.ndarray, np.ndarray]:
        """The slots of each category (C, R), filled with 0, and which of them are real (C, R)."""
        order = np.argsort(self.slot_category, kind="stable")
        count = np.bincount(self.slot_category, minlength=len(self.brand_share))
        column = np.arange(count.max())
        inside = column < count[:, None]
        place = np.where(inside, (np.cumsum(count) - count)[:, None] + column, 0)
        return np.where(inside, order[place], 0), inside

    def oracle_scores(self, histories) -> np.ndarray:
        """P(next item | history), (B, N) float64, rows sum to 1. Histories as for ``filter_forward``."""
        belief = self.filter_forward(histories)
        slots, inside = self._slots()
        wish = np.swapaxes((belief[:, :, slots] * inside).sum(axis=3), 1, 2)  # (B, C, G): category, favourite
        open_to_all = (wish * (1 - self.loyalty)).sum(axis=2, keepdims=True)
        cells = (
            wish * self.loyalty + open_to_all * self.brand_share
        )  # (B, C, G): category and brand of the item
        of_item = cells[:, self.item_category, self.item_brand]
        return (1 - self.noise) * of_item * self.item_weight + self.noise * self.popularity

    def oracle_topk(self, prefixes: Prefixes, k: int) -> torch.Tensor:
        """The k most probable next items, best first, (B, k) int64 on the prefixes' device.

        It is the best ranking if histories are whole: keep data.max_history at 20 or more.
        """
        history = prefixes.history.cpu().numpy()
        states = len(self.brand_prior) * len(self.initial_slot)
        rows = max(1, 8_000_000 // max(self.n_items, states))
        best = torch.full((len(history), k), PAD_ITEM)
        for i in range(0, len(history), rows):
            scores = torch.from_numpy(self.oracle_scores(history[i : i + rows]))
            best[i : i + rows, : self.n_items] = scores.topk(min(k, self.n_items)).indices
        return best.to(prefixes.target.device)

    def explain_belief(self, history, top: int = 3) -> dict[str, list[tuple[str, float]]]:
        """What the oracle believes after one history: the ``top`` brands and next wishes, probable first."""
        belief = self.filter_forward([np.asarray(history)])[0]
        laws = {"brand": (self.brand_name, belief.sum(axis=1)), "wish": (self.slot_name, belief.sum(axis=0))}
        return {
            what: [(names[i], float(law[i])) for i in np.argsort(-law, kind="stable")[:top]]
            for what, (names, law) in laws.items()
        }


def make_playground(config: DataConfig) -> Dataset:
    """A shop of ``playground_items`` items and ``playground_users`` users, the same for a seed.

    The k-core filter is not applied: the catalogue keeps its size, and some items are never taken.
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
    """The world of these departments with ``n`` items; brands grow with the catalogue, 4 to 24."""
    rng = np.random.default_rng(seed)
    categories = len(departments) * shop.CATEGORIES
    brands = int(np.clip(round(n / categories / PER_CELL), 3, len(shop.BRANDS) if n > 5000 else 8))
    item_category = rng.permutation(np.arange(n) % categories)
    taste = rng.dirichlet(np.full(brands, 20.0))
    item_brand = rng.integers(0, brands, size=n)
    cell = item_category * brands + item_brand
    size = np.bincount(cell, minlength=categories * brands).reshape(categories, brands)
    weight = rng.gamma(SKEW, size=n) + 0.05
    weight /= np.bincount(cell, weight, minlength=size.size)[cell]
    share = np.where(size > 0, taste * rng.uniform(0.5, 1.5, size=size.shape), 0.0)
    used = np.flatnonzero(size.sum(axis=1) > 0)
    share[used] /= share[used].sum(axis=1, keepdims=True)
    popular = np.where(size.sum(axis=1) > 0, rng.uniform(0.5, 1.5, size=categories), 0.0)
    popularity = (popular / popular.sum())[item_category] * share.ravel()[cell] * weight
    slot_category, start, move = _projects(departments, rng)
    return PlaygroundWorld(
        item_category=item_category,
        item_brand=item_brand,
        item_weight=weight,
        popularity=popularity / popularity.sum(),
        brand_share=share,
        loyalty=np.where(size > 0, LOYALTY, 0.0),
        slot_category=slot_category,
        initial_slot=start,
        transition=move,
        brand_prior=taste,
        noise=NOISE,
        brand_name=shop.BRANDS[:brands],
        slot_name=tuple(
            f"{project}: {list(department.nouns)[category]}"
            for department in departments
            for project, order in department.projects.items()
            for category in order
        ),
    )


def _projects(departments, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Slots in order of project and stage: their category (S,), the first slot's and the next slot's law."""
    orders = [
        shop.CATEGORIES * number + np.array(order)
        for number, department in enumerate(departments)
        for order in department.projects.values()
    ]
    projects, stages = len(orders), shop.STAGES
    favoured = rng.dirichlet(np.full(projects, 5.0))
    # the next project: one of a few that follow this one often, seldom any other
    follow = np.full((projects, projects), 0.1 / projects)
    for project in range(projects):
        others = np.delete(np.arange(projects), project)
        follow[project, rng.choice(others, size=3, replace=False)] += (0.5, 0.25, 0.15)
    follow /= follow.sum(axis=1, keepdims=True)
    first = np.arange(projects) * stages
    start, move = np.zeros(projects * stages), np.zeros((projects * stages,) * 2)
    start[first] = favoured
    for project in range(projects):
        for stage in range(stages):
            slot = project * stages + stage
            for jump, chance in ((0, AGAIN), (1, 1 - AGAIN - FURTHER), (2, FURTHER)):
                if stage + jump < stages:
                    move[slot, slot + jump] += chance
                else:
                    move[slot, first] += chance * follow[project]
    return np.concatenate(orders), start, move


def draw_lengths(users: int, rng: np.random.Generator) -> np.ndarray:
    """Sequence lengths (users,), SHORTEST_SEQUENCE..LONGEST_SEQUENCE, mean about 10.5, from nothing but ``rng``."""
    return np.minimum(SHORTEST_SEQUENCE + rng.geometric(0.15, size=users) - 1, LONGEST_SEQUENCE)


def _names(letter: str, count: int) -> list[str]:
    """IDs of one width, so that their order as text is their order as numbers."""
    width = max(4, len(str(count - 1)))
    return [f"{letter}{number:0{width}d}" for number in range(count)]


def _cumulative(table: np.ndarray) -> np.ndarray:
    """Rows of probabilities (R, M) as one rising sequence, row r within (r, r + 1], and the width M."""
    table = np.atleast_2d(table)
    rising = np.cumsum(table, axis=1)
    rising[rising > 1 - 1e-12] = 1.0
    return rising + np.arange(len(table))[:, None]


def _draw(rising: np.ndarray, row: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One column a row number, by inversion of ``_cumulative``."""
    found = np.searchsorted(rising.ravel(), row + rng.random(len(row)), side="right")
    return np.minimum(found - row * rising.shape[1], rising.shape[1] - 1)


def _padded(histories, n_items: int) -> np.ndarray:
    """Histories as one (B, L) int64 array; an index outside the catalogue is ``BadInput``."""
    if isinstance(histories, np.ndarray) and histories.ndim == 2:
        padded = histories.astype(np.int64, copy=False)
    else:
        width = max((len(history) for history in histories), default=0)
        padded = np.full((len(histories), width), PAD_ITEM, dtype=np.int64)
        for row, history in enumerate(histories):
            padded[row, : len(history)] = history
    if padded.size and not (padded.min() >= PAD_ITEM and padded.max() < n_items):
        wrong = padded[(padded < PAD_ITEM) | (padded >= n_items)][0]
        raise BadInput(f"item {wrong}", f"items are numbered 0..{n_items - 1}", "check the histories")
    return padded
