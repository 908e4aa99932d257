"""ReaRec (Tang et al., 2025): slow thinking in latent states. SASRec reads its own last state again.

A thought is a vector here, not a token: the last state plus an embedding of the step is appended to the
sequence as if it were an item, K times. There are two ways to train it:

    ERL  ensemble reasoning learning: the mean over the steps' states scores the items. The KL divergence
         between the steps' predictions is raised, so that the steps differ
    PRL  progressive reasoning learning: the last step scores the items. Earlier steps are trained on the
         target too, at a temperature that falls from step to step. A contrastive loss keeps every step
         close to the same step computed with noisy inputs
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..common.schemas import PAD_ITEM, Prefixes
from ..config.training import BaselineConfig
from .sequence import ItemModel, ItemTransformer, init_weights, pad_left

DIVERGENCE_WEIGHT = 0.05  # ERL: weight of the divergence between steps
MAX_DIVERGENCE = 1.0  # ERL: upper bound on the divergence of two steps, in nats
DIVERGENCE_EVERY_NTH_USER = 8  # ERL: only these users of a batch are in the divergence; saves time
TEMPERATURE_BASE = 5.0  # PRL: the temperature of a step is this times that of the next step
INPUT_NOISE_STD = 0.01  # PRL: standard deviation of the noise added to the input of each step


class ReaRec(ItemModel):
    """SASRec with K latent reasoning steps.

    Args:
        n_items: N.
        settings: the section ``baselines``: ``reasoning_steps`` is K, ``reasoning_method`` "ERL" or "PRL".
        max_length: of a history, in items.
    """

    def __init__(self, n_items: int, settings: BaselineConfig, max_length: int):
        super().__init__(n_items, settings.d)
        s = settings
        self.reader = ItemTransformer(s.d, s.num_layers, s.num_heads, s.dropout, max_length, causal=True)
        self.step_embedding = nn.Embedding(s.reasoning_steps, s.d)
        self.ensemble = s.reasoning_method == "ERL"
        self.apply(init_weights)

    def reasoning_states(self, prefixes: Prefixes, noise: float = 0.0) -> Tensor:
        """SASRec's last state, then the state after each step: (B, K + 1, d).

        ``noise`` is the standard deviation of the noise added to the steps' inputs.
        """
        history = pad_left(prefixes.history, prefixes.length)
        x = self.items(history.clamp_min(0))
        is_real = history != PAD_ITEM
        layer_inputs: list[Tensor] = []
        states = [self.reader(x, is_real, layer_inputs)[:, -1:]]
        for embedding in self.step_embedding.weight:
            thought = states[-1] + embedding
            thought = thought + noise * torch.randn_like(thought) if noise else thought
            is_real = F.pad(is_real, (0, 1), value=True)
            states.append(self.reader.step(thought, is_real, layer_inputs))
        return torch.cat(states, dim=1)

    def state(self, prefixes: Prefixes) -> Tensor:
        """The mean of all steps (ERL), or the last step (PRL): (B, d)."""
        steps = self.reasoning_states(prefixes)
        return steps.mean(dim=1) if self.ensemble else steps[:, -1]

    def loss(self, prefixes: Prefixes) -> Tensor:
        """Cross-entropy over the catalogue, with the terms of ERL or PRL: a scalar."""
        steps = self.reasoning_states(prefixes)
        state = steps.mean(dim=1) if self.ensemble else steps[:, -1]
        answer = F.cross_entropy((state @ self.items.weight.T).float(), prefixes.target)
        if self.ensemble:
            subset = steps[::DIVERGENCE_EVERY_NTH_USER]  # batches are shuffled: a random subset
            return answer - DIVERGENCE_WEIGHT * step_divergence((subset @ self.items.weight.T).float())
        noisy = self.reasoning_states(prefixes, noise=INPUT_NOISE_STD)
        earlier = progressive_loss((steps[:, :-1] @ self.items.weight.T).float(), prefixes.target)
        contrast = contrastive_loss(steps[:, 1:].float(), noisy[:, 1:].float(), prefixes.target)
        return answer + earlier + contrast


def step_divergence(logits: Tensor) -> Tensor:
    """Mean KL divergence between the predictions of two steps, over ordered pairs: (B, T, N) -> ().

    The divergence of a pair is clamped to ``MAX_DIVERGENCE``: without a bound it could grow for ever.
    """
    log_p = logits.log_softmax(dim=-1)
    cross = log_p.exp() @ log_p.transpose(1, 2)  # (B, T, T): sum of p_i log p_j
    kl = cross.diagonal(dim1=1, dim2=2)[..., None] - cross
    steps = logits.shape[1]
    return kl.clamp_max(MAX_DIVERGENCE).sum() / (len(kl) * steps * (steps - 1))


def progressive_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Mean cross-entropy of the steps before the last: (B, T, N), (B,) -> ().

    Step i of 0..T-1 has the temperature ``TEMPERATURE_BASE ** (T - i)``.
    """
    steps = logits.shape[1]
    temperature = TEMPERATURE_BASE ** torch.arange(steps, 0, -1, device=logits.device)
    return F.cross_entropy((logits / temperature[:, None]).flatten(0, 1), target.repeat_interleave(steps))


def contrastive_loss(clean: Tensor, noisy: Tensor, target: Tensor) -> Tensor:
    """InfoNCE between noisy and clean states of the same step, with in-batch negatives: a scalar.

    Both are (B, T, d). The positive of a noisy state is the same user's clean state. Users with the same
    target (B,) are not negatives of each other.
    """
    similar = torch.einsum("btd,ctd->tbc", F.normalize(noisy, dim=-1), F.normalize(clean, dim=-1)) / 0.1
    same = (target[:, None] == target) & ~torch.eye(len(target), dtype=torch.bool, device=target.device)
    own = torch.arange(len(target), device=target.device).expand(similar.shape[:2])
    return F.cross_entropy(similar.masked_fill(same, -torch.inf).flatten(0, 1), own.flatten())
