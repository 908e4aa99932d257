"""Thoughts for the workshop, whose true steps are known, in place of the annotator's.

true-steps    the items on the way, one after the other; after the last one it stays there
random-steps  the same rule followed for a random number of steps, whatever the errand asks for, and the
              answer is where it stops: a model learns how to go on, and not how far
pause         one and the same code, which names no item: thoughts that say nothing
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..common.device import derive_seed
from ..common.errors import BadInput
from ..common.schemas import FIRST_CODE, Prefixes
from ..data.dataset import Dataset
from ..data.workshop_world import WorkshopWorld
from ..tokenizer.semantic_ids import SemanticTokenizer

WORLD_STRATEGIES = ("true-steps", "random-steps", "pause")
STOP_AFTER = (0.5, 0.25, 0.125, 0.125)  # "random-steps": a coin decides after each step, at most 4 steps


def world_thoughts(
    strategy: str, dataset: Dataset, tokenizer: SemanticTokenizer, prefixes: Prefixes, l: int, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Thoughts (n, l), code tokens, and the targets (n,) to learn after them.

    Args:
        strategy: one of ``WORLD_STRATEGIES``.
        dataset: the workshop; ``BadInput`` for any other data set, except with "pause".
        tokenizer: gives the items' codes; an item takes m thoughts.
        prefixes: n examples.
        l: thoughts of each example.
        seed: of the random numbers of steps.
    """
    if strategy == "pause":
        token = torch.full((prefixes.n_examples, l), pause_token(tokenizer))
        return token.to(prefixes.target.device), prefixes.target
    world = dataset.world
    if not isinstance(world, WorkshopWorld):
        rule = "the true steps are known on the workshop alone"
        raise BadInput(f"sft.annotator={strategy} on {dataset.name}", rule, "use --dataset workshop")
    count = -(-l // tokenizer.m)  # items
    items = world.path(prefixes, count, overrun=strategy == "random-steps")
    target = prefixes.target
    if strategy == "random-steps" and count:
        generator = torch.Generator().manual_seed(derive_seed(seed, "random-steps"))
        last = torch.multinomial(torch.tensor(STOP_AFTER), len(items), replacement=True, generator=generator)
        items = items.gather(1, torch.minimum(torch.arange(count), last[:, None]))
        target = items[:, -1].to(target.device)
    tokens = tokenizer.tokens[items.to(tokenizer.tokens.device)].flatten(1)[:, :l]
    return tokens.to(target.device), target


def pause_token(tokenizer: SemanticTokenizer) -> int:
    """The last code of the first level that no item has; code 0 if all are in use."""
    used = torch.bincount(tokenizer.codes[:, 0].cpu(), minlength=tokenizer.K)
    free = (used == 0).nonzero()[:, 0]
    return FIRST_CODE + (int(free[-1]) if len(free) else 0)
