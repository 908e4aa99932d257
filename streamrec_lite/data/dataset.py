"""The data set: users' sequences of items and the items' text, in one form for every source."""

from __future__ import annotations

import hashlib
import math
import numbers
import re
from collections.abc import Iterable, Sequence
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
MIN_LENGTH = 3  # leave-one-out needs one item to train on, one for validation, one for the test
MISSING_VALUES = {"", "nan", "inf", "-inf", "none", "null", "<na>", "nat"}  # as exports write them
_INTEGER = re.compile(r"-?(0|[1-9][0-9]{,1000})")


class World(Protocol):
    """The generator of a synthetic data set: it knows the true probability of every next item."""

    def oracle_topk(self, prefixes: Prefixes, k: int) -> torch.Tensor:
        """The k most probable next items, best first: (B, k) int64."""
        ...


@dataclass(frozen=True)
class Dataset:
    """U users' sequences of item indices, and one row of text for each of N items.

    ``sequences[u]`` holds the items of ``user_ids[u]``, oldest first, at least ``MIN_LENGTH`` of
    them, as int64 indices into ``item_ids``. ``items`` has the columns ``TEXT_COLUMNS``; a missing
    text is "". ``categories`` is a comma-separated path from general to specific.
    """

    name: str
    user_ids: list[str]  # U
    item_ids: list[str]  # N
    sequences: list[np.ndarray]  # U arrays
    items: pd.DataFrame  # N rows
    embeddings: np.ndarray | None = None  # (N, d_w) float32, if the source has vectors
    world: World | None = None  # the generator, if the data are synthetic
    split: np.ndarray | None = None  # (U,) 0, 1, 2: users of training, validation, test; None: leave-one-out

    @property
    def n_users(self) -> int:
        """U, the number of users."""
        return len(self.user_ids)

    @property
    def n_items(self) -> int:
        """N, the size of the catalogue."""
        return len(self.item_ids)

    @property
    def n_interactions(self) -> int:
        """The number of interactions of all users."""
        return sum(len(sequence) for sequence in self.sequences)

    def fingerprint(self) -> str:
        """A hash of the content (IDs, order, text, embeddings); the name and the path do not count."""
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
        if self.split is not None:
            digest.update(np.ascontiguousarray(self.split, dtype="<i8").tobytes())
        return digest.hexdigest()[:16]


def _hash_texts(digest: hashlib._Hash, texts: Iterable[str]) -> None:
    """Add texts to the hash unambiguously: their number, their lengths, then the texts."""
    texts = list(texts)
    digest.update(np.array([len(texts), *map(len, texts)], dtype="<i8").tobytes())
    digest.update("".join(texts).encode("utf-8", "surrogatepass"))


def replace_lone_surrogates(text: str) -> str:
    """The text with "?" for every lone surrogate (half a character, left where a text was cut)."""
    return text.encode("utf-8", "replace").decode("utf-8")


def text_id(value: object, where: str) -> str:
    """An ID as text; 1, 1.0 and "1" are the same ID. ``where`` is the position, for the message.

    ``BadInput`` unless it is an integer, or a text that does not stand for a missing value.
    """
    if isinstance(value, numbers.Integral) and not isinstance(value, (bool, np.bool_)):
        return str(int(value))
    if isinstance(value, numbers.Real) and not isinstance(value, (bool, np.bool_)):
        number = float(value)
        if math.isfinite(number) and number == int(number):
            return str(int(number))
    elif (
        isinstance(value, str)
        and value.strip().lower() not in MISSING_VALUES
        and value == replace_lone_surrogates(value)
    ):
        return value.strip()
    raise BadInput(
        f"{where}: ID {value!r:.60}",
        "an ID is an integer or a text, not empty, no NaN, inf, None or null, and no half of a character",
        "correct or remove it",
    )


def text_field(value: object, column: str, where: str) -> str:
    """A text field of an item, from a string, a list of strings, or a missing value ("")."""
    if value is None or (isinstance(value, float) and math.isnan(value)) or value is pd.NA:
        return ""
    if isinstance(value, str):
        return replace_lone_surrogates(value.strip())
    if isinstance(value, (list, tuple, np.ndarray)) and all(isinstance(part, str) for part in value):
        return replace_lone_surrogates(
            ("," if column == "categories" else " ").join(part.strip() for part in value)
        )
    raise BadInput(
        f"{where}: {column} {value!r:.60}", "a field is a text or a list of texts", "correct or remove it"
    )


def text_frame(rows: Iterable[Sequence[str]]) -> pd.DataFrame:
    """The data frame ``items`` of a ``Dataset``, from one row per item in the order of ``TEXT_COLUMNS``."""
    return pd.DataFrame(list(rows), columns=list(TEXT_COLUMNS), dtype=str)


def id_order(ids: Sequence[str]) -> np.ndarray:
    """The positions (n,) that sort ``ids``: numerically if all are integers, otherwise as text."""
    key = int if all(_INTEGER.fullmatch(name) for name in ids) else str
    return np.array(sorted(range(len(ids)), key=lambda row: key(ids[row])), dtype=np.int64)


def k_core(user: np.ndarray, item: np.ndarray, k: int) -> np.ndarray:
    """The k-core: a boolean mask (n,) of the most rows in which each user and item has at least ``k``.

    ``user`` and ``item`` (n,) are the integer codes of n interactions; a repeated purchase counts
    again. Removing users may leave an item with fewer than ``k`` rows, and the other way round, so
    the filter repeats until nothing changes. The result does not depend on the order of removals.
    """
    keep = np.ones(len(user), dtype=bool)
    if k <= 1:  # every user and item here has at least one row
        return keep
    while keep.any():
        users = np.bincount(user[keep], minlength=user.max() + 1)
        items = np.bincount(item[keep], minlength=item.max() + 1)
        smaller = keep & (users[user] >= k) & (items[item] >= k)
        if smaller.sum() == keep.sum():
            break
        keep = smaller
    return keep


def build_dataset(
    name: str,
    user_ids: Sequence[str],
    user: np.ndarray,
    item_ids: Sequence[str],
    item: np.ndarray,
    items: pd.DataFrame,
    k: int,
    embeddings: np.ndarray | None = None,
) -> Dataset:
    """A ``Dataset`` from n interactions in time order, after the k-core filter.

    Args:
        name: of the data set.
        user_ids: IDs of the U users.
        user: (n,) index of each interaction's user.
        item_ids: IDs of the N items.
        item: (n,) index of each interaction's item.
        items: (N rows) text of the items, with the columns ``TEXT_COLUMNS``.
        k: of the k-core. With k >= 1 items without interactions leave the catalogue, with k = 0 they
            stay. With k < 3 a user with fewer than three interactions is ``BadInput``, since
            leave-one-out is impossible; a larger k removes such users.
        embeddings: (N, d_w) vectors of the items, if there are any.
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
            f"{name}: user {user_ids[int(short[0])]!r} has {count[short[0]]} interactions",
            f"leave-one-out needs at least {MIN_LENGTH} a user",
            f"set data.k_core={MIN_LENGTH} or more to drop such users, or remove them",
        )
    kept_users = np.flatnonzero(count)
    kept_users = kept_users[id_order([user_ids[row] for row in kept_users.tolist()])]
    has_buyer = np.bincount(item, minlength=len(item_ids)) > 0
    kept_items = np.flatnonzero(has_buyer) if k >= 1 else np.arange(len(item_ids))
    kept_items = kept_items[id_order([item_ids[row] for row in kept_items.tolist()])]

    user = _positions(kept_users, len(user_ids))[user]
    item = _positions(kept_items, len(item_ids))[item]
    by_user = np.argsort(user, kind="stable")
    ends = np.cumsum(np.bincount(user, minlength=len(kept_users)))
    return Dataset(
        name=name,
        user_ids=[user_ids[row] for row in kept_users.tolist()],
        item_ids=[item_ids[row] for row in kept_items.tolist()],
        sequences=np.split(item[by_user], ends[:-1]),
        items=items.iloc[kept_items].reset_index(drop=True)[list(TEXT_COLUMNS)],
        embeddings=None if embeddings is None else np.ascontiguousarray(embeddings[kept_items]),
    )


def _positions(kept: np.ndarray, size: int) -> np.ndarray:
    """For each of ``size`` indices its position in ``kept``, -1 if it is not there: (size,) int64."""
    position = np.full(size, -1, dtype=np.int64)
    position[kept] = np.arange(len(kept))
    return position
