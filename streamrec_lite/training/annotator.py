"""Stage 2, annotation (section 2.3.1): what should have been thought, given the target.

From the history alone the decoder has a first estimate s_0 of what the user wants. The target's
representation t is known in training, so the gap can be measured, quantised to a code and written
down as a thought; the decoder reads it and estimates again. Step by step the residual shrinks.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..common.errors import BadInput, did_you_mean
from ..common.schemas import BOS, FIRST_CODE, Prefixes
from ..config.sections import MAX_THOUGHTS
from ..data.sequences import iterate_batches
from ..evaluation.metrics import rank_by_score
from ..inference.step_decoder import StepDecoder
from ..model.backbone import Backbone
from ..model.item_representation import item_table
from ..tokenizer.kmeans import nearest

STRATEGIES = ("residual", "nearest-items", "own-codes", "random")


class Traces(NamedTuple):
    """The annotated thoughts of B examples, and how the estimate moved."""

    thought: Tensor  # (B, l) int64, code tokens o_1..o_l
    norm: Tensor  # (B, l + 1) float32, |t - s_i| for i = 0..l
    rank: Tensor  # (B, l + 1) int64, the target's place among all items by s_i . t(item); 1 is best


def rows_at_once(device: torch.device) -> int | None:
    """On a CPU 128: for fewer a decoder step is mostly overhead, for more the caches are small."""
    return 128 if device.type == "cpu" else None


@torch.inference_mode()
def annotate(
    model: Backbone,
    tokenizer,
    prefixes: Prefixes,
    l: int,
    strategy: str = "residual",
    neighbours: Tensor | None = None,
    batch_size: int | None = None,
    seed: int = 0,
) -> Traces:
    """Traces of all ``prefixes``, batched, with the key-value cache, without gradients.

    ``strategy``: "residual" is the paper's (eqs 12, 13). For comparison: "nearest-items" (the codes
    of the items of most similar text, ``neighbours`` (N, pool)), "own-codes" (the target's, again and
    again) and "random" (any codes).
    """
    if strategy not in STRATEGIES:
        raise BadInput(f"annotator {strategy!r}", "unknown strategy", did_you_mean(strategy, STRATEGIES))
    if not 0 <= l <= MAX_THOUGHTS:
        rule = f"the number of thoughts must lie between 0 and {MAX_THOUGHTS}"
        raise BadInput(f"l={l}", rule, "correct it")
    model.eval()
    device = prefixes.target.device
    table = item_table(model, tokenizer)  # (N, d)
    generator = torch.Generator().manual_seed(seed)
    thought = torch.zeros(prefixes.n_examples, l, dtype=torch.long, device=device)
    norm = torch.zeros(prefixes.n_examples, l + 1, device=device)
    rank = torch.zeros(prefixes.n_examples, l + 1, dtype=torch.long, device=device)
    for rows, batch in iterate_batches(prefixes, batch_size or rows_at_once(device)):
        given = _given(tokenizer, batch.target, l, strategy, neighbours, generator)
        thought[rows], norm[rows], rank[rows] = _annotate(model, tokenizer, batch, table, l, given)
    return Traces(thought, norm, rank)


def _annotate(model: Backbone, tokenizer, batch: Prefixes, table: Tensor, l: int, given: Tensor | None):
    """The iteration: d_0 at BOS; then l times residual, thought, next state."""
    stepper = StepDecoder.start(model, tokenizer, batch.history)
    codes = model.shared.weight[FIRST_CODE:]
    t = table[batch.target]
    token = torch.full((batch.n_examples,), BOS, device=t.device)
    thoughts = torch.empty(batch.n_examples, 0, dtype=torch.long, device=t.device)
    norms, ranks, total = [], [], 0.0
    for i in range(l + 1):
        total = total + stepper.step(token).float()  # d_0 + ... + d_i
        s = model.state(total)  # s_i
        norms.append((t - s).norm(dim=-1))
        with torch.autocast(t.device.type, enabled=False):  # too close to each other for bfloat16
            ranks.append(rank_by_score(batch.target, s.float() @ table.T))
        if i < l:
            r = model.residual_head(t - s)  # r_{i+1}
            if given is not None:
                token = given[:, i]
            else:
                said = None
                if i and not model.repeats:
                    said = torch.zeros(len(t), len(codes), dtype=torch.bool, device=t.device)
                    said.scatter_(1, thoughts - FIRST_CODE, True)
                token = _closest(r, codes, said)
            thoughts = torch.cat([thoughts, token[:, None]], dim=1)
    return thoughts, torch.stack(norms, dim=1), torch.stack(ranks, dim=1)


@torch.no_grad()
def corrections(model: Backbone, gap: Tensor, said: Tensor | None = None) -> Tensor:
    """Eq. 12 after every state of a train of thought, whoever wrote it: the thought that should come next.

    Args:
        gap: (B, l, d) t - s_0..s_{l-1}.
        said: (B, l, m*K) codes that may not come any more, or None.

    Returns:
        (B, l) code tokens.
    """
    with torch.autocast(gap.device.type, enabled=False):
        r, codes = model.residual_head(gap.float()), model.shared.weight[FIRST_CODE:].float()
        return _closest(r, codes, said)


def _closest(r: Tensor, codes: Tensor, said: Tensor | None) -> Tensor:
    """Eq. 12: residuals (..., d) and codes (m*K, d) -> tokens (...); ``said`` (..., m*K) may not come."""
    if said is None:
        return FIRST_CODE + nearest(r.flatten(0, -2), codes).view(r.shape[:-1])
    return FIRST_CODE + torch.cdist(r, codes).masked_fill(said, torch.inf).argmin(dim=-1)


def _given(tokenizer, target: Tensor, l: int, strategy: str, neighbours, generator) -> Tensor | None:
    """The thoughts (B, l) of a strategy that looks at no residual."""
    if strategy == "residual":
        return None
    if strategy == "random":
        codes = torch.randint(0, tokenizer.m * tokenizer.K, (len(target), l), generator=generator)
        return (FIRST_CODE + codes).to(target.device)
    if strategy == "own-codes":
        return tokenizer.tokens[target].repeat(1, -(-l // tokenizer.m))[:, :l]
    items = neighbours[target, : -(-l // tokenizer.m)]
    return tokenizer.tokens[items].flatten(1)[:, :l]


def informativeness(thought: Tensor, tokenizer, target: Tensor) -> dict[str, list[float]]:
    """Do thoughts say something? Per step: codes used, entropy, and information on the target, in bits.

    thought (B, l), target (B,). Mutual information with the target's first code is the plug-in
    estimate, which is too high for few examples: "chance" is what it gives for shuffled targets.
    """
    first = tokenizer.codes[target, 0].cpu()
    shuffled = first[torch.randperm(len(first), generator=torch.Generator().manual_seed(0))]
    steps = [(step - FIRST_CODE).cpu() for step in thought.T]
    return {
        "used": [len(step.unique()) for step in steps],
        "entropy": [_entropy(step) for step in steps],
        "information": [_information(step, first) for step in steps],
        "chance": [_information(step, shuffled) for step in steps],
    }


def _entropy(x: Tensor) -> float:
    p = torch.unique(x, return_counts=True)[1].double() / len(x)
    return float(-(p * p.log2()).sum())


def _information(x: Tensor, y: Tensor) -> float:
    """I(x; y) = H(x) + H(y) - H(x, y) in bits."""
    return _entropy(x) + _entropy(y) - _entropy(x * (int(y.max()) + 1) + y)
