"""The symbols of the project, in one place, and the batches that its modules exchange.

Symbols (the paper's, where it has one):

    S_u the history of user u
    B   number of users (or examples) in a batch
    N   number of items in the catalogue, numbered 0..N-1; PAD_ITEM = -1 fills short histories
    L   number of items in a history, oldest first, at most 20
    m   number of code levels of a semantic ID (4)
    K   number of codes per level (256)
    V   number of tokens in the vocabulary: PAD, BOS, ANSWER, then m*K codes; V = 3 + m*K
    W   number of beams per user (20)
    d   width of the backbone (d_model)
    d_w width of the text embeddings
    x, z, h_d, e_k   RQ-VAE: input, latent, residual at level d, codebook entry (eqs 4-8)
    t   representation of an item: the mean of its m code embeddings, plus its item vector if it has one
    l   number of thoughts before the answer
    G   number of rollouts per user
    s_i, r_i, o_i   state, residual and thought of step i

Tokens: code k of level j (both from 0) is token ``FIRST_CODE + j*K + k``. Each level has different
tokens, so that a token alone tells its level.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:  # importing the package loads no torch
    import torch
    from torch import Tensor

PAD, BOS, ANSWER = 0, 1, 2
FIRST_CODE = 3
PAD_ITEM = -1


class Prefixes(NamedTuple):
    """Examples of a history and the item that follows it, as integer tensors on one device.

    Histories are item indices, oldest first, filled on the right with ``PAD_ITEM``.
    """

    history: Tensor  # (B, L) int64
    length: Tensor  # (B,) int64, 1..L
    target: Tensor  # (B,) int64
    user: Tensor  # (B,) int64, row of the user in the data set

    @property
    def n_examples(self) -> int:
        """Number of examples, B (``len`` would count the four fields)."""
        return self.target.shape[0]

    def select(self, index: Tensor) -> Prefixes:
        """The examples at ``index`` (n,) int64, their histories cut to the longest of them."""
        length = self.length[index]
        width = int(length.max()) if len(index) else 0
        return Prefixes(
            self.history[index, :width] if width else self.history[index],
            length,
            self.target[index],
            self.user[index],
        )

    def to(self, device: torch.device | str) -> Prefixes:
        """The same examples with all tensors on ``device``."""
        return Prefixes(*(field.to(device) for field in self))


class Splits(NamedTuple):
    """A leave-one-out split: a user's last item is for the test, the one before it for validation."""

    train: Prefixes
    valid: Prefixes
    test: Prefixes

    def to(self, device: torch.device | str) -> Splits:
        """The same three parts on ``device``."""
        return Splits(*(part.to(device) for part in self))


class Beams(NamedTuple):
    """The k best items of a beam search for each user, best first.

    A user with fewer than k reachable items has ``item`` -1 and ``score`` -inf in the last columns.
    """

    item: Tensor  # (B, k) int64
    score: Tensor  # (B, k) float32, log P(item's codes | history), a sum of m log-probabilities


def check_shape(name: str, tensor: Tensor, *expected: int | None) -> None:
    """Raise ``ValueError`` unless ``tensor`` has the shape ``expected`` (None: any size).

    ``name`` names the tensor in the message.
    """
    shape = tuple(tensor.shape)
    fits = len(shape) == len(expected) and all(e in (None, s) for s, e in zip(shape, expected, strict=False))
    if not fits:
        want = ", ".join("any" if e is None else str(e) for e in expected)
        raise ValueError(f"{name} has shape {shape}; expected ({want})")
