"""The workshop's rules: which part each guide leads to, so the true steps and the best ranking are known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..common.schemas import PAD_ITEM, Prefixes
from .dataset import Dataset

MAX_STEPS = 4  # guides in a pile


def errand_steps(dataset: Dataset, prefixes: Prefixes) -> Tensor | None:
    """How many steps each user's errand takes (B,), on the CPU; None where the data set is no workshop."""
    world = dataset.world
    return world.steps(prefixes) if isinstance(world, WorkshopWorld) else None


@dataclass(frozen=True)
class WorkshopWorld:
    """P parts, R guides and some consumables; items are numbered in this order.

    A history ends with a pile of guides and a part: [consumables..., guide_h, ..., guide_1, part]. The guide
    next to the part is read first. The user buys the part that h steps lead to: ``leads_to[1 + guide_1]`` of
    the part, then ``leads_to[1 + guide_2]`` of that, and so on. With the probability ``noise`` the purchase
    is any part.
    """

    leads_to: np.ndarray  # (1 + R, P) int64, permutations of the parts; row 0: without a guide ("goes with")
    noise: float
    n_items: int  # N: parts, guides, consumables
    guide_name: tuple[str, ...] = ()  # (R,)

    @property
    def n_parts(self) -> int:
        """P."""
        return self.leads_to.shape[1]

    @property
    def n_guides(self) -> int:
        """R."""
        return len(self.leads_to) - 1

    def read(self, prefixes: Prefixes) -> tuple[Tensor, Tensor]:
        """The part that each history ends with (B,), and its pile (B, MAX_STEPS) from the first guide on.

        The pile holds rows of ``leads_to``: 1 + the guide's number, and 0 where there is no guide any more.
        """
        history, length = prefixes.history.cpu(), prefixes.length.cpu()
        position = length[:, None] - 2 - torch.arange(MAX_STEPS)  # newest before the part first
        item = history.gather(1, position.clamp_min(0)).masked_fill(position < 0, PAD_ITEM)
        guide = item - self.n_parts
        is_guide = (guide >= 0) & (guide < self.n_guides)
        in_pile = is_guide.long().cumprod(dim=1).bool()  # nothing lies between the guides of a pile
        start = history.gather(1, length[:, None] - 1)[:, 0]
        return start, torch.where(in_pile, 1 + guide, 0)

    def steps(self, prefixes: Prefixes) -> Tensor:
        """h, the number of steps (B,) that each user's errand takes."""
        return (self.read(prefixes)[1] > 0).sum(dim=1)

    def path(self, prefixes: Prefixes, l: int, overrun: bool = False) -> Tensor:
        """The part after each of l steps (B, l).

        Args:
            prefixes: B histories.
            l: number of steps.
            overrun: after the last guide the path goes on by "goes with"; otherwise it stays where it is.
        """
        part, pile = self.read(prefixes)
        table = torch.from_numpy(self.leads_to)
        parts = []
        for i in range(l):
            guide = pile[:, i] if i < MAX_STEPS else torch.zeros_like(part)
            onward = table[guide, part]
            part = onward if overrun else torch.where(guide > 0, onward, part)
            parts.append(part)
        return torch.stack(parts, dim=1) if parts else part[:, None][:, :0]

    def oracle_topk(self, prefixes: Prefixes, k: int) -> Tensor:
        """The k most probable next items (B, k): where the steps lead, then the other parts, all alike."""
        goal = self.path(prefixes, MAX_STEPS)[:, -1:]
        parts = torch.arange(self.n_parts).expand(len(goal), -1)
        score = (parts == goal).float() - parts / (2 * self.n_parts)
        found = score.topk(min(k, self.n_parts), dim=1).indices
        short = k - found.shape[1]
        padding = torch.full((len(goal), max(short, 0)), -1, dtype=torch.long)
        return torch.cat([found, padding], dim=1).to(prefixes.history.device)
