"""Recall (beyond the paper): before it thinks, the model looks up what others did next.

Thoughts that a model writes by itself hold nothing that the history does not. A memory does: what
followed these items in other people's histories (``baselines.rules``). The best n items that it names
are written behind the history, the best one last, and the encoder reads them like what was bought. Their
distance from the end, which ``Backbone.encode`` knows, says which they are.
"""

from __future__ import annotations

from pathlib import Path

import torch
from scipy import sparse
from torch import Tensor

from .baselines.rules import SequentialRules
from .errors import BadInput
from .runtime import read_tensors, write_tensors
from .schemas import PAD_ITEM, Prefixes, Splits


def extend(prefixes: Prefixes, recalled: Tensor) -> Prefixes:
    """Write ``recalled`` (B, n), best first, behind the histories, best last."""
    n, device = recalled.shape[1], prefixes.target.device
    pad = torch.full((prefixes.rows, n), PAD_ITEM, device=device)
    history = torch.cat([prefixes.history, pad], dim=1)
    place = prefixes.length[:, None] + torch.arange(n, device=device)
    history.scatter_(1, place, recalled.flip(1).to(device))
    return prefixes._replace(history=history, length=prefixes.length + n)


def recall(memory: SequentialRules, prefixes: Prefixes, n: int) -> Prefixes:
    """Users whose future the memory does not hold: validation, test, and whoever asks."""
    return extend(prefixes, memory.best(memory.votes(prefixes) @ memory.rules, n))


def recall_in_training(memory: SequentialRules, train: Prefixes, n: int) -> Prefixes:
    """All training prefixes: each recalls from everybody's past, but from its own user's only what is past.

    Otherwise the target would be recalled because it was counted, and the model would believe it.
    """
    scores = memory.votes(train) @ memory.rules - memory.own_future(train)
    return extend(train, memory.best(scores, n))


def recall_all(memory: SequentialRules, splits: Splits, n: int) -> Splits:
    """The three parts with n recalled items behind every history."""
    train = recall_in_training(memory, splits.train, n)
    return Splits(train, recall(memory, splits.valid, n), recall(memory, splits.test, n))


class Recall:
    """What a model that recalls carries with it: the memory, and how many items it names.

    ``recall.append(history)`` writes them behind histories (B, L) of item indices.
    """

    def __init__(self, memory: SequentialRules, n: int):
        self.memory, self.n = memory, n

    def append(self, history: Tensor) -> Tensor:
        length = (history != PAD_ITEM).sum(dim=1)
        nobody = torch.zeros_like(length)
        return recall(self.memory, Prefixes(history, length, nobody, nobody), self.n).history

    def save(self, path: Path) -> None:
        """Write the memory, whole or not at all."""
        rules = self.memory.rules
        tensors = {name: torch.from_numpy(getattr(rules, name)) for name in ("indptr", "indices", "data")}
        state = {"n": self.n, "reach": self.memory.reach, "fade": self.memory.fade}
        write_tensors(path, {**tensors, "rare": self.memory.rare}, state)

    @classmethod
    def load(cls, path: Path) -> Recall:
        """Read what ``save`` wrote; ``BadInput`` if it is something else."""
        tensors, state = read_tensors(path)
        try:
            rare, parts = tensors["rare"], [tensors[name].numpy() for name in ("data", "indices", "indptr")]
            rules = sparse.csr_matrix(tuple(parts), shape=(len(rare), len(rare)))
            return cls(SequentialRules(rules, rare, state["reach"], state["fade"], ()), state["n"])
        except (KeyError, ValueError) as error:
            raise BadInput(str(path), f"not a memory ({error})", "run the stage again") from None
