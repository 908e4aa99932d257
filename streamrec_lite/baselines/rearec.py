"""ReaRec (Tang et al., 2025): the other kind of slow thinking. SASRec reads its own last state again.

No thought is written down: the last state, with an embedding of the step, is appended to the sequence as
if it were an item, K times. Two ways to train it:

    ERL  the answer is the mean over the steps' states; the steps are pushed apart by the KL divergence
         of what they predict, so that they do not all say the same
    PRL  the last step answers; earlier steps predict too, at a temperature that falls from step to step
         (first broad, then sharp), and stay near those of a sequence whose steps got some noise
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..common.schemas import PAD_ITEM, Prefixes
from .sequence import ItemModel, Reader, newest_last, start_small

DIVERGENCE_WEIGHT = 0.05  # ERL: weight of the divergence between steps
MAX_DIVERGENCE = 1.0  # ERL: largest divergence of two steps in nats; without a bound it can grow for ever
DIVERGENCE_EVERY_NTH_USER = 8  # ERL: the divergence is computed for every so-many-th user of a batch
TEMPERATURE_BASE = 5.0  # PRL: the temperature grows by this factor a step, from the last step backwards
INPUT_NOISE_STD = 0.01  # PRL: standard deviation of the noise added to the inputs of the steps


class ReaRec(ItemModel):
    """Args: as SASRec's; ``settings.reasoning_steps`` is K, ``settings.reasoning_method`` "ERL" or "PRL"."""

    def __init__(self, n_items: int, settings, places: int):
        super().__init__(n_items, settings.d)
        s = settings
        self.reader = Reader(s.d, s.num_layers, s.num_heads, s.dropout, places, causal=True)
        self.step = nn.Embedding(s.reasoning_steps, s.d)
        self.ensemble = s.reasoning_method == "ERL"
        self.apply(start_small)

    def steps(self, prefixes: Prefixes, noise: float = 0.0) -> Tensor:
        """(B, K + 1, d): the last state as SASRec has it, and after each step."""
        history = newest_last(prefixes.history, prefixes.length)
        x = self.items(history.clamp_min(0))
        filled = history != PAD_ITEM
        memory: list[Tensor] = []
        found = [self.reader(x, filled, memory)[:, -1:]]
        for embedding in self.step.weight:
            thought = found[-1] + embedding
            thought = thought + noise * torch.randn_like(thought) if noise else thought
            filled = F.pad(filled, (0, 1), value=True)
            found.append(self.reader.step(thought, filled, memory))
        return torch.cat(found, dim=1)

    def state(self, prefixes: Prefixes) -> Tensor:
        """The mean of all steps (ERL), or the last step (PRL): (B, d)."""
        steps = self.steps(prefixes)
        return steps.mean(dim=1) if self.ensemble else steps[:, -1]

    def loss(self, prefixes: Prefixes) -> Tensor:
        """Cross-entropy over the catalogue, with the terms of ERL or PRL: a scalar."""
        steps = self.steps(prefixes)
        state = steps.mean(dim=1) if self.ensemble else steps[:, -1]
        answer = F.cross_entropy((state @ self.items.weight.T).float(), prefixes.target)
        if self.ensemble:
            some = steps[
                ::DIVERGENCE_EVERY_NTH_USER
            ]  # batches are shuffled: the same on average, and most of the time saved
            return answer - DIVERGENCE_WEIGHT * divergence((some @ self.items.weight.T).float())
        again = self.steps(prefixes, noise=INPUT_NOISE_STD)
        early = progressive((steps[:, :-1] @ self.items.weight.T).float(), prefixes.target)
        return answer + early + nearness(steps[:, 1:].float(), again[:, 1:].float(), prefixes.target)


def divergence(logits: Tensor) -> Tensor:
    """Mean KL divergence of the predictions of two steps, over ordered pairs: (B, T, N) -> ().

    Each pair counts at most ``MAX_DIVERGENCE``.
    """
    log_p = logits.log_softmax(dim=-1)
    cross = log_p.exp() @ log_p.transpose(1, 2)  # (B, T, T): sum of p_i log p_j
    kl = cross.diagonal(dim1=1, dim2=2)[..., None] - cross
    steps = logits.shape[1]
    return kl.clamp_max(MAX_DIVERGENCE).sum() / (len(kl) * steps * (steps - 1))


def progressive(logits: Tensor, target: Tensor) -> Tensor:
    """Mean cross-entropy of the steps before the last: (B, T, N), (B,) -> ().

    Step i is taken at the temperature ``TEMPERATURE_BASE ** (T - i)``.
    """
    steps = logits.shape[1]
    heat = TEMPERATURE_BASE ** torch.arange(steps, 0, -1, device=logits.device)
    return F.cross_entropy((logits / heat[:, None]).flatten(0, 1), target.repeat_interleave(steps))


def nearness(clean: Tensor, noisy: Tensor, target: Tensor) -> Tensor:
    """Each noisy step (B, T, d) must pick its own clean one among the batch's; equal targets are no foils."""
    similar = torch.einsum("btd,ctd->tbc", F.normalize(noisy, dim=-1), F.normalize(clean, dim=-1)) / 0.1
    same = (target[:, None] == target) & ~torch.eye(len(target), dtype=torch.bool, device=target.device)
    own = torch.arange(len(target), device=target.device).expand(similar.shape[:2])
    return F.cross_entropy(similar.masked_fill(same, -torch.inf).flatten(0, 1), own.flatten())
