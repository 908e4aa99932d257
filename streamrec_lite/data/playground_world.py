"""The hidden Markov model of the playground: it draws users' sequences and gives the best possible ranking.

The hidden state is (favourite brand, slot), where a slot is one stage of one project. The forward
algorithm computes its exact distribution after a history. Ranking items by P(next item | history)
is then the oracle: no model can rank better on average.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ..common.errors import BadInput
from ..common.schemas import PAD_ITEM, Prefixes
from .dataset import Histories

USERS_PER_CHUNK = 16_384  # users simulated at once
SCORES_PER_CHUNK = 8_000_000  # numbers (histories times items, or times states) held at once by the oracle


@dataclass(frozen=True)
class PlaygroundWorld:
    """A hidden Markov shop of N items, C categories, G brands, S slots. Arrays are float64 or int64.

    A wish in slot s of a user with the favourite brand b is for an item x, of category c and brand g,
    with the probability

        [c = slot_category[s]] (loyalty[c, b] [g = b] + (1 - loyalty[c, b]) brand_share[c, g]) item_weight[x]

    A purchase follows the wish with probability 1 - noise; else it is any item, by ``popularity``.
    """

    item_category: np.ndarray  # (N,)
    item_brand: np.ndarray  # (N,)
    item_weight: np.ndarray  # (N,) probability among the items of the same category and brand
    popularity: np.ndarray  # (N,) probability of a purchase by noise
    brand_share: np.ndarray  # (C, G) probability of a brand within a category, 0 where it has no item
    loyalty: np.ndarray  # (C, G) probability of choosing the favourite brand, 0 where it has no item
    slot_category: np.ndarray  # (S,)
    initial_slot: np.ndarray  # (S,) probability of the first slot
    transition: np.ndarray  # (S, S) probability of the next slot, after a purchase that was not noise
    brand_prior: np.ndarray  # (G,) probability of the favourite brand
    noise: float
    brand_name: tuple[str, ...] = ()  # (G,)
    slot_name: tuple[str, ...] = ()  # (S,) e.g. "record at home: Microphones"

    @property
    def n_items(self) -> int:
        """N, the size of the catalogue."""
        return len(self.item_weight)

    def simulate(self, length: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
        """Random sequences of item indices, one per user, of the given lengths (U,)."""
        sequences: list[np.ndarray] = []
        for begin in range(0, len(length), USERS_PER_CHUNK):
            sequences += self._simulate(length[begin : begin + USERS_PER_CHUNK], rng)
        return sequences

    def _simulate(self, length: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
        users, brands = len(length), len(self.brand_prior)
        # Items sorted by (category, brand) pair: a pair's items are size[pair] rows from first[pair] on.
        pair_of_item = self.item_category * brands + self.item_brand
        order = np.argsort(pair_of_item, kind="stable")
        size: np.ndarray = np.bincount(pair_of_item, minlength=self.brand_share.size)
        first = np.cumsum(size) - size
        rank: np.ndarray = np.cumsum(size > 0) - (size > 0)  # among the pairs that have items
        cumulative = np.cumsum(self.item_weight[order])  # the weights of each such pair sum to 1
        favourites, starts, popularity, brand_shares, transitions = (
            _cumulative(table)
            for table in (
                self.brand_prior,
                self.initial_slot,
                self.popularity,
                self.brand_share,
                self.transition,
            )
        )
        row_zero = np.zeros(users, dtype=np.int64)  # tables of one row for all users
        favourite = _sample_rows(favourites, row_zero, rng)
        slot = _sample_rows(starts, row_zero, rng)
        bought = np.empty((users, int(length.max())), dtype=np.int64)
        for step in range(bought.shape[1]):
            category = self.slot_category[slot]
            is_loyal = rng.random(users) < self.loyalty[category, favourite]
            brand = np.where(is_loyal, favourite, _sample_rows(brand_shares, category, rng))
            pair = category * brands + brand
            found = np.searchsorted(cumulative, rank[pair] + rng.random(users), side="right")
            wanted = order[np.clip(found, first[pair], first[pair] + size[pair] - 1)]
            is_noise = rng.random(users) < self.noise
            bought[:, step] = np.where(is_noise, _sample_rows(popularity, row_zero, rng), wanted)
            slot = np.where(is_noise, slot, _sample_rows(transitions, slot, rng))
        return [row[:count].copy() for row, count in zip(bought, length, strict=True)]

    def filter_forward(self, histories: Histories) -> np.ndarray:
        """P(favourite brand, slot of the next wish | history), (B, G, S) float64, by the forward algorithm.

        ``histories``: a list of item arrays, or one (B, L) array, filled on the right with PAD_ITEM.
        """
        padded = _padded(histories, self.n_items)
        slots, is_slot = self._slots_of_categories()
        belief = np.tile(self.brand_prior[:, None] * self.initial_slot, (len(padded), 1, 1))
        for column in padded.T:
            rows = np.flatnonzero(column != PAD_ITEM)
            if not len(rows):
                break
            item, now = column[rows], belief[rows]
            category, brand = self.item_category[item], self.item_brand[item]
            loyalty = self.loyalty[category]  # (b, G)
            # P(brand of the item | favourite brand), (b, G)
            brand_given = (1 - loyalty) * self.brand_share[category, brand][:, None]
            brand_given[np.arange(len(rows)), brand] += loyalty[np.arange(len(rows)), brand]
            # Only the R slots of the item's category can have led to a purchase that is not noise.
            slot, real = slots[category], is_slot[category]  # (b, R)
            wished = np.take_along_axis(now, slot[:, None, :], axis=2) * real[:, None, :]  # (b, G, R)
            wished *= (brand_given * self.item_weight[item][:, None])[:, :, None]
            by_noise = now * self.popularity[item][:, None, None]
            now = (1 - self.noise) * (wished @ self.transition[slot]) + self.noise * by_noise
            belief[rows] = now / now.sum(axis=(1, 2), keepdims=True)
        return belief

    def _slots_of_categories(self) -> tuple[np.ndarray, np.ndarray]:
        """The slots of each category (C, R), filled with 0, and which of them are real (C, R)."""
        order = np.argsort(self.slot_category, kind="stable")
        count = np.bincount(self.slot_category, minlength=len(self.brand_share))
        column = np.arange(count.max())
        real = column < count[:, None]
        position = np.where(real, (np.cumsum(count) - count)[:, None] + column, 0)
        return np.where(real, order[position], 0), real

    def oracle_scores(self, histories: Histories) -> np.ndarray:
        """P(next item | history), (B, N) float64; rows sum to 1. Histories as for ``filter_forward``."""
        belief = self.filter_forward(histories)
        slots, real = self._slots_of_categories()
        wish = np.swapaxes((belief[:, :, slots] * real).sum(axis=3), 1, 2)  # (B, C, G): category, favourite
        not_loyal = (wish * (1 - self.loyalty)).sum(axis=2, keepdims=True)
        pairs = wish * self.loyalty + not_loyal * self.brand_share  # (B, C, G): category, brand of the item
        of_item = pairs[:, self.item_category, self.item_brand]
        return (1 - self.noise) * of_item * self.item_weight + self.noise * self.popularity

    def oracle_topk(self, prefixes: Prefixes, k: int) -> torch.Tensor:
        """The k most probable next items, best first, (B, k) int64 on the prefixes' device; -1 past N.

        This is the best possible ranking if no history was cut: keep data.max_history at 20 or more.
        """
        history = prefixes.history.cpu().numpy()
        states = len(self.brand_prior) * len(self.initial_slot)
        rows = max(1, SCORES_PER_CHUNK // max(self.n_items, states))
        best = torch.full((len(history), k), PAD_ITEM)
        for i in range(0, len(history), rows):
            scores = torch.from_numpy(self.oracle_scores(history[i : i + rows]))
            best[i : i + rows, : self.n_items] = scores.topk(min(k, self.n_items)).indices
        return best.to(prefixes.target.device)

    def explain_belief(
        self, history: np.ndarray | list[int], top: int = 3
    ) -> dict[str, list[tuple[str, float]]]:
        """The ``top`` most probable favourite brands ("brand") and next slots ("wish") after one history.

        Each is a list of (name, probability), most probable first.
        """
        belief = self.filter_forward([np.asarray(history)])[0]
        brand, wish = belief.sum(axis=1), belief.sum(axis=0)
        return {
            what: [(names[i], float(law[i])) for i in np.argsort(-law, kind="stable")[:top]]
            for what, names, law in (("brand", self.brand_name, brand), ("wish", self.slot_name, wish))
        }


def _cumulative(table: np.ndarray) -> np.ndarray:
    """Cumulative probabilities of each row of (R, M), plus the row number: one rising sequence in all."""
    table = np.atleast_2d(table)
    rising = np.cumsum(table, axis=1)
    rising[rising > 1 - 1e-12] = 1.0
    return rising + np.arange(len(table))[:, None]


def _sample_rows(rising: np.ndarray, row: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One random column for each row number (n,), by inverting ``rising`` (from ``_cumulative``)."""
    found = np.searchsorted(rising.ravel(), row + rng.random(len(row)), side="right")
    return np.minimum(found - row * rising.shape[1], rising.shape[1] - 1)


def _padded(histories: Histories, n_items: int) -> np.ndarray:
    """Histories as one (B, L) int64 array; ``BadInput`` for an index outside the catalogue."""
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
