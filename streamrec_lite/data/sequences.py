"""The split, training prefixes, and batches with (almost) no padding."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from ..common.device import derive_seed
from ..common.errors import BadInput
from ..common.schemas import PAD_ITEM, Prefixes, Splits
from .dataset import MIN_LENGTH, Dataset


def leave_one_out(dataset: Dataset, max_history: int, device: torch.device | str = "cpu") -> Splits:
    """The leave-one-out split: a user's last item is for the test, the one before it for validation.

    For a user's items s[0..n-1], the training targets are s[j] with 1 <= j <= n-3, each after the
    history s[:j]. The validation target s[n-2] follows s[:n-2], the test target s[n-1] follows
    s[:n-1]. A history keeps the newest ``max_history`` items. Examples are ordered by user, then by
    position. Tensors are int64 on ``device``, histories of shape (B, max_history). ``BadInput`` for a
    user with fewer than three items.
    """
    if max_history < 1:
        raise BadInput(f"max_history={max_history}", "a history has at least one item", "give 20")
    count = np.array([len(sequence) for sequence in dataset.sequences], dtype=np.int64)
    if len(count) == 0:
        raise BadInput(f"{dataset.name}: no users", "a split needs at least one user", "bring interactions")
    if count.min() < MIN_LENGTH:
        shortest = int(count.argmin())
        raise BadInput(
            f"{dataset.name}: user {dataset.user_ids[shortest]!r} has {count[shortest]} interactions",
            f"leave-one-out needs at least {MIN_LENGTH} a user",
            "drop such users, e.g. by data.k_core=5",
        )
    flat = np.concatenate(dataset.sequences)
    start = np.cumsum(count) - count
    all_users = np.arange(len(count))
    n_targets = count - MIN_LENGTH  # training targets of each user
    train_user = np.repeat(all_users, n_targets)
    position = np.arange(n_targets.sum()) - np.repeat(np.cumsum(n_targets) - n_targets, n_targets) + 1

    def prefixes(user: np.ndarray, position: np.ndarray) -> Prefixes:
        """Examples whose target is the item at ``position`` (B,) in the sequence of ``user`` (B,)."""
        target = start[user] + position
        length = np.minimum(position, max_history)
        column = np.arange(max_history)
        real = column < length[:, None]
        source = np.where(real, (target - length)[:, None] + column, 0)
        history = np.where(real, flat[source], PAD_ITEM)
        return Prefixes(*(torch.from_numpy(a).to(device) for a in (history, length, flat[target], user)))

    train = prefixes(train_user, position)
    return Splits(train, prefixes(all_users, count - 2), prefixes(all_users, count - 1))


def split_by_user(dataset: Dataset, max_history: int, device: torch.device | str = "cpu") -> Splits:
    """The split of ``dataset.split``: one example a user, its target the last item of the sequence."""
    assert dataset.split is not None, "the data set has no split by user"
    width, users = max_history, dataset.n_users
    history, length = np.full((users, width), PAD_ITEM), np.zeros(users, dtype=np.int64)
    for row, sequence in enumerate(dataset.sequences):
        items = sequence[:-1][-width:]
        history[row, : len(items)], length[row] = items, len(items)
    target = np.array([sequence[-1] for sequence in dataset.sequences], dtype=np.int64)
    arrays = (history, length, target, np.arange(users))
    parts = [np.flatnonzero(dataset.split == number) for number in range(3)]
    return Splits(*(Prefixes(*(torch.from_numpy(a[rows]).to(device) for a in arrays)) for rows in parts))


def split_examples(dataset: Dataset, max_history: int, device: torch.device | str = "cpu") -> Splits:
    """The data set's own split by user if it has one, otherwise leave-one-out."""
    split = leave_one_out if dataset.split is None else split_by_user
    return split(dataset, max_history, device)


def items_before_test(splits: Splits) -> Tensor:
    """All items that each test user took before the test target: (users, H), filled with ``PAD_ITEM``.

    Other than ``splits.test.history`` it is not cut to the newest items. Each item stands once, in order of
    its index. The first item of a user's prefixes, all their targets and the test history make the whole.
    """
    train, valid, test = splits
    width = test.history.shape[1]
    user = torch.cat([train.user, train.user, valid.user, valid.user, test.user.repeat_interleave(width)])
    old = (train.history[:, 0], train.target, valid.history[:, 0], valid.target, test.history.flatten())
    item = torch.cat(old)
    real = item != PAD_ITEM
    n_items = int(item.max()) + 1
    pair = torch.unique(user[real] * n_items + item[real])  # sorted
    user, item = pair // n_items, pair % n_items
    count = torch.bincount(user)
    column = torch.arange(len(pair), device=pair.device) - (count.cumsum(0) - count)[user]
    table = torch.full((len(count), int(count.max())), PAD_ITEM, device=pair.device)
    table[user, column] = item
    return table[test.user]


def repeat_shares(sequences: list[np.ndarray], split: np.ndarray | None = None) -> dict[str, float]:
    """How often users take an item again: the share of targets that are in the user's history, by split.

    ``sequences`` are the users' items, oldest first, and ``split`` the users' parts, as in ``Dataset``.
    Returns "train", "valid" and "test".
    """
    count = np.array([len(sequence) for sequence in sequences])
    user, item = np.repeat(np.arange(len(count)), count), np.concatenate(sequences)
    position = np.arange(len(item)) - np.repeat(np.cumsum(count) - count, count)
    repeated = np.ones(len(item), dtype=bool)
    repeated[np.unique(user * (item.max() + 1) + item, return_index=True)[1]] = False  # the first time
    from_end = count[user] - position  # 1: the last item
    if split is None:
        parts = {"train": (position > 0) & (from_end > 2), "valid": from_end == 2, "test": from_end == 1}
    else:
        parts = {
            name: (from_end == 1) & (split[user] == i) for i, name in enumerate(("train", "valid", "test"))
        }
    return {name: float(repeated[part].mean()) if part.any() else 0.0 for name, part in parts.items()}


def length_batches(length: Tensor, batch_size: int, seed: int | None) -> list[Tensor]:
    """The row indices of each batch, such that (almost) all histories of a batch have the same length.

    ``length`` (B,) int64 on any device; returns int64 indices on that device, every row exactly once.
    Without a seed, rows are in order of length, for evaluation. With a seed, the rows of each length
    are shuffled and cut into full batches. The remaining rows of all lengths, a random part, are
    sorted by length and divided into batches of equal size, because a row in a very small batch would
    have more weight in training. Then the order of the batches is shuffled.
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
    batches: list[np.ndarray] = []
    remainders: list[np.ndarray] = []
    for group in np.split(rows, np.flatnonzero(np.diff(lengths[rows])) + 1):
        full = len(group) // batch_size * batch_size
        batches += np.split(group[:full], full // batch_size) if full else []
        remainders.append(group[full:])
    rest = np.concatenate(remainders)
    if len(rest):
        batches += np.array_split(rest, -(-len(rest) // batch_size))
    return [torch.from_numpy(batches[i]).to(length.device) for i in rng.permutation(len(batches))]


def iterate_batches(
    prefixes: Prefixes, batch_size: int | None = None, seed: int | None = None
) -> Iterator[tuple[Tensor, Prefixes]]:
    """Batches as ``(rows, prefixes.select(rows))``, histories cut to the longest of the batch.

    See ``length_batches`` for their order. The default ``batch_size`` is for inference: 512 on a GPU,
    64 on a CPU (with 256 the encoder took twice as long per row: the states no longer fit the caches).
    """
    if batch_size is None:
        batch_size = 64 if prefixes.target.device.type == "cpu" else 512
    for rows in length_batches(prefixes.length, batch_size, seed):
        yield rows, prefixes.select(rows)


def padding_share(length: Tensor, batches: list[Tensor]) -> float:
    """The share of history positions that are padding, with each batch as wide as its longest history."""
    lengths = length.cpu()
    used = sum(int(lengths[rows.cpu()].sum()) for rows in batches)
    computed = sum(int(lengths[rows.cpu()].max()) * len(rows) for rows in batches)
    return 1 - used / computed if computed else 0.0


def sample_rows(n: int, most: int, seed: int = 0) -> Tensor:
    """Up to ``most`` random numbers below n, ascending, the same ones for the same seed: int64 on the CPU."""
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    return order[:most].sort().values


def sample_examples(prefixes: Prefixes, most: int, seed: int = 0) -> Prefixes:
    """The examples at ``sample_rows``: up to ``most`` random ones in their original order."""
    return prefixes.select(sample_rows(prefixes.n_examples, most, seed).to(prefixes.target.device))
