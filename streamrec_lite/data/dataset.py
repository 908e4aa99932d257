"""The one form that every source ends in: who took what, in which order, and the items' text."""

from __future__ import annotations

import hashlib
import math
import numbers
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import pandas as pd

from ..common.errors import BadInput

if TYPE_CHECKING:
    import torch

    from ..common.schemas import Prefixes

Histories = np.ndarray | Sequence[np.ndarray]  # (B, L) filled with PAD_ITEM, or B arrays of item indices
TEXT_COLUMNS = ("title", "brand", "categories", "description")
MIN_LENGTH = 3  # leave-one-out: one item to learn from, one for validation, one for test
NO_IDS = {"", "nan", "inf", "-inf", "none", "null", "<na>", "nat"}  # how exports write a missing value
_INTEGER = re.compile(r"-?(0|[1-9][0-9]{,1000})")


class World(Protocol):
    """The generator of a synthetic data set: it knows the true probability of every next item."""

    @property
    def slot_name(self) -> tuple[str, ...]:
        """Names of the S slots (what a user may want next), e.g. "record at home: Microphones"."""
        ...

    def filter_forward(self, histories: Histories) -> np.ndarray:
        """P(brand, slot of the next purchase | history): (B, G, S) float64."""
        ...

    def oracle_topk(self, prefixes: Prefixes, k: int) -> torch.Tensor:
        """The k most probable next items, best first: (B, k) int64."""
        ...


@dataclass(frozen=True)
class Dataset:
    """Users' sequences of item indices, and one row of text an item.

    ``sequences[u]`` holds the items of ``user_ids[u]`` as int64 indices into ``item_ids``, oldest
    first, at least ``MIN_LENGTH`` of them. ``items`` has the columns ``TEXT_COLUMNS``, all of them
    text and "" where nothing is known; ``categories`` is a path from wide to narrow, with commas.
    ``embeddings`` (N, d_w) float32 is what the user brought; ``world`` is the playground's generator.
    """

    name: str
    user_ids: list[str]
    item_ids: list[str]
    sequences: list[np.ndarray]
    items: pd.DataFrame
    embeddings: np.ndarray | None = None
    world: World | None = None

    @property
    def n_users(self) -> int:
        return len(self.user_ids)

    @property
    def n_items(self) -> int:
        return len(self.item_ids)

    @property
    def n_interactions(self) -> int:
        return sum(len(sequence) for sequence in self.sequences)

    def fingerprint(self) -> str:
        """A hash of the content (IDs, order, text, embeddings), not of the name or where it lay."""
        digest = hashlib.sha256()
        for ids in (self.user_ids, self.item_ids):
            _hash_texts(digest, ids)
        lengths = np.array([len(sequence) for sequence in self.sequences], dtype=np.int64)
        for array in (lengths, *self.sequences):
            digest.update(np.ascontiguousarray(array, dtype="<i8").tobytes())
        for column in TEXT_COLUMNS:
            _hash_texts(digest, self.items[column])
        if self.embeddings is not None:
            digest.update(repr(self.embeddings.shape).encode())
            digest.update(np.ascontiguousarray(self.embeddings, dtype="<f4").tobytes())
        return digest.hexdigest()[:16]


def _hash_texts(digest, texts) -> None:
    """Add texts unambiguously: how many, each one's length, then all of them."""
    texts = list(texts)
    digest.update(np.array([len(texts), *map(len, texts)], dtype="<i8").tobytes())
    digest.update("".join(texts).encode("utf-8", "surrogatepass"))


def whole(text: str) -> str:
    """The text without halves of characters (lone surrogates, where a text was cut): "?" in their place."""
    return text.encode("utf-8", "replace").decode("utf-8")


def text_id(value, where: str) -> str:
    """An ID as text: an integer (1 and 1.0 alike), or a string that is no word for a missing value."""
    if isinstance(value, numbers.Integral) and not isinstance(value, (bool, np.bool_)):
        return str(int(value))
    if isinstance(value, numbers.Real) and not isinstance(value, (bool, np.bool_)):
        if math.isfinite(value) and value == int(value):
            return str(int(value))
    elif isinstance(value, str) and value.strip().lower() not in NO_IDS and value == whole(value):
        return value.strip()
    raise BadInput(
        f"{where}: ID {value!r:.60}",
        "an ID is an integer or a text, not empty, no NaN, inf, None or null, and no half of a character",
        "correct or remove it",
    )


def text_field(value, column: str, where: str) -> str:
    """A text field of an item: a string, a list of strings, or "" where nothing is known."""
    if value is None or (isinstance(value, float) and math.isnan(value)) or value is pd.NA:
        return ""
    if isinstance(value, str):
        return whole(value.strip())
    if isinstance(value, (list, tuple, np.ndarray)) and all(isinstance(part, str) for part in value):
        return whole(("," if column == "categories" else " ").join(part.strip() for part in value))
    raise BadInput(
        f"{where}: {column} {value!r:.60}", "a field is a text or a list of texts", "correct or remove it"
    )


def frame_of_text(rows: Sequence[Sequence[str]]) -> pd.DataFrame:
    """Rows of ``TEXT_COLUMNS`` as the data frame of a ``Dataset``."""
    return pd.DataFrame(list(rows), columns=list(TEXT_COLUMNS), dtype=str)


def id_order(ids: Sequence[str]) -> np.ndarray:
    """The positions of ``ids`` in the project's order: numeric if all are integers, else as text."""
    key = int if all(_INTEGER.fullmatch(name) for name in ids) else str
    return np.array(sorted(range(len(ids)), key=lambda row: key(ids[row])), dtype=np.int64)


def k_core(user: np.ndarray, item: np.ndarray, k: int) -> np.ndarray:
    """Rows of the largest part in which every user and every item has at least ``k`` rows.

    ``user`` and ``item`` (n,) are integer codes; returns a boolean mask (n,). Counts are of rows, so
    a repeated purchase counts again. Removing one side may push the other below ``k``: it repeats
    until nothing changes, and the result does not depend on which side goes first.
    """
    keep = np.ones(len(user), dtype=bool)
    if k <= 1:  # every row's user and item has that row
        return keep
    while keep.any():
        users = np.bincount(user[keep], minlength=user.max() + 1)
        items = np.bincount(item[keep], minlength=item.max() + 1)
        narrower = keep & (users[user] >= k) & (items[item] >= k)
        if narrower.sum() == keep.sum():
            break
        keep = narrower
    return keep


def assemble(
    name: str,
    user_ids: Sequence[str],
    user: np.ndarray,
    item_ids: Sequence[str],
    item: np.ndarray,
    items: pd.DataFrame,
    k: int,
    embeddings: np.ndarray | None = None,
) -> Dataset:
    """A ``Dataset`` from interactions in time order: ``user``, ``item`` (n,) are codes into the IDs.

    The k-core filter comes first. With k >= 1 items that nobody took leave the catalogue, with k = 0
    they stay. With k >= 3 short users are dropped by the filter; with a smaller k a user with fewer
    than three interactions is ``BadInput``, because leave-one-out has no place for them.
    """
    keep = k_core(user, item, k)
    if not keep.any():
        raise BadInput(
            f"{name}: no interaction is left of {len(user)}",
            f"the {k}-core keeps users and items with at least {k} interactions",
            f"bring more data or set a smaller data.k_core (now {k})",
        )
    user, item = user[keep], item[keep]
    count = np.bincount(user, minlength=len(user_ids))
    short = np.flatnonzero((count > 0) & (count < MIN_LENGTH))
    if len(short):
        raise BadInput(
            f"{name}: user {user_ids[short[0]]!r} has {count[short[0]]} interactions",
            f"leave-one-out needs at least {MIN_LENGTH} a user",
            f"set data.k_core={MIN_LENGTH} or more to drop such users, or remove them",
        )
    kept_users = np.flatnonzero(count)
    kept_users = kept_users[id_order([user_ids[row] for row in kept_users])]
    taken = np.bincount(item, minlength=len(item_ids)) > 0
    kept_items = np.flatnonzero(taken) if k >= 1 else np.arange(len(item_ids))
    kept_items = kept_items[id_order([item_ids[row] for row in kept_items])]

    new_user = np.full(len(user_ids), -1, dtype=np.int64)
    new_user[kept_users] = np.arange(len(kept_users))
    new_item = np.full(len(item_ids), -1, dtype=np.int64)
    new_item[kept_items] = np.arange(len(kept_items))
    user, item = new_user[user], new_item[item]
    by_user = np.argsort(user, kind="stable")
    ends = np.cumsum(np.bincount(user, minlength=len(kept_users)))
    return Dataset(
        name=name,
        user_ids=[user_ids[row] for row in kept_users],
        item_ids=[item_ids[row] for row in kept_items],
        sequences=np.split(item[by_user], ends[:-1]),
        items=items.iloc[kept_items].reset_index(drop=True)[list(TEXT_COLUMNS)],
        embeddings=None if embeddings is None else np.ascontiguousarray(embeddings[kept_items]),
    )
