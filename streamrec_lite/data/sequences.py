"""Leave-one-out, training prefixes, and batches in which (nearly) no padding is computed."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from ..common.device import derive_seed
from ..common.errors import BadInput
from ..common.schemas import PAD_ITEM, Prefixes, Splits
from .dataset import MIN_LENGTH, Dataset


def leave_one_out(dataset: Dataset, max_history: int, device="cpu") -> Splits:
    """The last item of a user is the test target, the one before it validation's, the rest train.

    For a user's items s[0..n-1]: every s[j] with 1 <= j <= n-3 is a training target after s[:j],
    s[n-2] is validation's after s[:n-2], and s[n-1] is the test's after s[:n-1]. Histories keep the
    newest ``max_history`` items. Examples are ordered by user, then by position; tensors are int64
    on ``device``, histories (B, max_history). A user with fewer than three items is ``BadInput``.
    """
    if max_history < 1:
        raise BadInput(f"max_history={max_history}", "a history has at least one item", "give 20")
    count = np.array([len(sequence) for sequence in dataset.sequences], dtype=np.int64)
    if len(count) == 0:
        raise BadInput(f"{dataset.name}: no users", "a split needs at least one user", "bring interactions")
    if count.min() < MIN_LENGTH:
        user = int(count.argmin())
        raise BadInput(
            f"{dataset.name}: user {dataset.user_ids[user]!r} has {count[user]} interactions",
            f"leave-one-out needs at least {MIN_LENGTH} a user",
            "drop such users, e.g. by data.k_core=5",
        )
    flat = np.concatenate(dataset.sequences)
    start = np.cumsum(count) - count
    everyone = np.arange(len(count))
    trained = count - MIN_LENGTH
    user = np.repeat(everyone, trained)
    position = np.arange(trained.sum()) - np.repeat(np.cumsum(trained) - trained, trained) + 1

    def prefixes(user, position) -> Prefixes:
        return _prefixes(flat, start, user, position, max_history, device)

    return Splits(prefixes(user, position), prefixes(everyone, count - 2), prefixes(everyone, count - 1))


def _prefixes(flat, start, user, position, max_history: int, device) -> Prefixes:
    """Examples whose target is the item at ``position`` (B,) in the sequence of ``user`` (B,)."""
    target = start[user] + position
    length = np.minimum(position, max_history)
    column = np.arange(max_history)
    filled = column < length[:, None]
    source = np.where(filled, (target - length)[:, None] + column, 0)
    history = np.where(filled, flat[source], PAD_ITEM)
    return Prefixes(*(torch.from_numpy(a).to(device) for a in (history, length, flat[target], user)))


def length_batches(length: Tensor, batch_size: int, seed: int | None) -> list[Tensor]:
    """The rows of each batch, so that a batch's histories are (nearly) all of one length.

    ``length`` (B,) int64 on any device; returns int64 row numbers on that device, every row exactly
    once. With ``seed`` the rows of each length are shuffled and cut into full batches of that length
    alone; what is left of every length, a random part of it, is sorted by length and shared out over
    batches of equal size, so that no row has more weight because its batch came out small. Then the
    batches are shuffled. Without a seed rows are in order of length, for evaluation.
    """
    if batch_size < 1:
        raise BadInput(f"batch_size={batch_size}", "a batch has at least one row", "give e.g. 256")
    lengths = length.cpu().numpy()
    if seed is None:
        rows = np.argsort(lengths, kind="stable")
        cuts = [rows[i : i + batch_size] for i in range(0, len(rows), batch_size)]
        return [torch.from_numpy(cut).to(length.device) for cut in cuts]
    rng = np.random.default_rng(derive_seed(seed, "length_batches"))
    rows = rng.permutation(len(lengths))
    rows = rows[np.argsort(lengths[rows], kind="stable")]  # random order within a length
    batches, left = [], []
    for group in np.split(rows, np.flatnonzero(np.diff(lengths[rows])) + 1):
        full = len(group) // batch_size * batch_size
        batches += np.split(group[:full], full // batch_size) if full else []
        left.append(group[full:])
    left = np.concatenate(left)
    if len(left):
        batches += np.array_split(left, -(-len(left) // batch_size))
    return [torch.from_numpy(batches[i]).to(length.device) for i in rng.permutation(len(batches))]


def iterate_batches(
    prefixes: Prefixes, batch_size: int | None = None, seed: int | None = None
) -> Iterator[tuple[Tensor, Prefixes]]:
    """Batches as ``(rows, prefixes.select(rows))``, the histories cut to the batch's longest one.

    Without a ``batch_size`` it is what suits the device when nothing is learned: 512 on a GPU, 64 on a
    CPU, where a row in a batch of 256 took the encoder twice as long, since its states leave the caches.
    """
    if batch_size is None:
        batch_size = 64 if prefixes.target.device.type == "cpu" else 512
    for rows in length_batches(prefixes.length, batch_size, seed):
        yield rows, prefixes.select(rows)


def padding_share(length: Tensor, batches: list[Tensor]) -> float:
    """The share of history places that are padding when each batch is as wide as its longest row."""
    lengths = length.cpu()
    used = sum(int(lengths[rows.cpu()].sum()) for rows in batches)
    computed = sum(int(lengths[rows.cpu()].max()) * len(rows) for rows in batches)
    return 1 - used / computed if computed else 0.0


def sample_examples(prefixes: Prefixes, most: int, seed: int = 0) -> Prefixes:
    """Up to ``most`` examples, drawn at random but the same every time."""
    order = torch.randperm(prefixes.n_examples, generator=torch.Generator().manual_seed(seed))
    return prefixes.select(order[:most].sort().values.to(prefixes.target.device))
