"""Stage 2, annotation (section 2.3.1): thoughts that correct the model's estimate, given the target.

From the history alone the decoder has a first estimate s_0 of what the user wants. In training the target
is known, so its representation t is, too. The gap t - s_0 is quantised to a code, the first thought; the
decoder reads it and estimates again. Step by step the gap shrinks.
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
from ..tokenizer.semantic_ids import SemanticTokenizer

STRATEGIES = ("residual", "nearest-items", "own-codes", "random")


class Traces(NamedTuple):
    """The annotated thoughts of B examples, and how the estimate changed with them."""

    thought: Tensor  # (B, l) int64, code tokens o_1..o_l
    norm: Tensor  # (B, l + 1) float32, |t - s_i| for i = 0..l
    rank: Tensor  # (B, l + 1) int64, the target's rank among all items by s_i . t(item); 1 is best


def annotation_batch_size(device: torch.device) -> int | None:
    """128 examples on a CPU: fewer are mostly overhead, more exceed its caches. None: the default."""
    return 128 if device.type == "cpu" else None


@torch.inference_mode()
def annotate(
    model: Backbone,
    tokenizer: SemanticTokenizer,
    prefixes: Prefixes,
    l: int,
    strategy: str = "residual",
    neighbours: Tensor | None = None,
    batch_size: int | None = None,
    seed: int = 0,
    thoughts: Tensor | None = None,
) -> Traces:
    """Traces of all ``prefixes``, in batches, with the key-value cache and without gradients.

    Args:
        model: with a thinking decoder; it is set to ``eval``.
        tokenizer: gives the items' codes.
        prefixes: the examples to annotate.
        l: thoughts of each example.
        strategy: "residual" is the paper's (eqs 12, 13). For comparison: "nearest-items" (the codes of
            the items of most similar text), "own-codes" (the target's codes, repeated) and "random".
        neighbours: (N, pool) items of most similar text to each; needed by "nearest-items" alone.
        batch_size: examples at once; None: ``annotation_batch_size``.
        seed: of the strategy "random".
        thoughts: (n, l) code tokens to read in place of the strategy's thoughts, or None.

    Raises:
        BadInput: an unknown strategy, or too many thoughts.
    """
    if thoughts is None and strategy not in STRATEGIES:
        raise BadInput(f"annotator {strategy!r}", "unknown strategy", did_you_mean(strategy, STRATEGIES))
    if not 0 <= l <= MAX_THOUGHTS:
        raise BadInput(
            f"l={l}", f"the number of thoughts must lie between 0 and {MAX_THOUGHTS}", "correct it"
        )
    model.eval()
    device = prefixes.target.device
    table = item_table(model, tokenizer)  # (N, d)
    generator = torch.Generator().manual_seed(seed)
    thought = torch.zeros(prefixes.n_examples, l, dtype=torch.long, device=device)
    norm = torch.zeros(prefixes.n_examples, l + 1, device=device)
    rank = torch.zeros(prefixes.n_examples, l + 1, dtype=torch.long, device=device)
    for rows, batch in iterate_batches(prefixes, batch_size or annotation_batch_size(device)):
        fixed = _fixed_thoughts(tokenizer, batch.target, l, strategy, neighbours, generator)
        fixed = fixed if thoughts is None else thoughts.to(device)[rows]
        thought[rows], norm[rows], rank[rows] = trace_batch(model, tokenizer, batch, table, l, fixed)
    return Traces(thought, norm, rank)


def trace_batch(
    model: Backbone,
    tokenizer: SemanticTokenizer,
    batch: Prefixes,
    table: Tensor,
    l: int,
    fixed: Tensor | None = None,
) -> Traces:
    """Traces of one batch: l times residual, thought, next state (eqs 12, 13).

    Args:
        model: in ``eval`` mode.
        tokenizer: gives the items' codes.
        batch: B examples.
        table: (N, d) t of every item.
        l: thoughts of each example.
        fixed: (B, l) code tokens to read in place of those of eq. 12, or None.
    """
    decoder = StepDecoder.start(model, tokenizer, batch.history)
    codes = model.shared.weight[FIRST_CODE:]  # (m*K, d)
    t = table[batch.target]
    token = torch.full((batch.n_examples,), BOS, device=t.device)
    thoughts = torch.empty(batch.n_examples, 0, dtype=torch.long, device=t.device)
    total = torch.zeros((), device=t.device)
    norms, ranks = [], []
    for i in range(l + 1):
        total = total + decoder.step(token).float()  # d_0 + ... + d_i
        s = model.state(total, i)  # s_i
        norms.append((t - s).norm(dim=-1))
        with torch.autocast(t.device.type, enabled=False):  # the scores are too close for bfloat16
            ranks.append(rank_by_score(batch.target, s.float() @ table.T))
        if i == l:
            break
        r = model.residual_head(t - s)  # r_{i+1}
        if fixed is None:
            excluded = _used(thoughts, len(codes)) if i and not model.may_repeat_thoughts else None
            token = _nearest_code(r, codes, excluded)
        else:
            token = fixed[:, i]
        thoughts = torch.cat([thoughts, token[:, None]], dim=1)
    return Traces(thoughts, torch.stack(norms, dim=1), torch.stack(ranks, dim=1))


def _used(thoughts: Tensor, n_codes: int) -> Tensor:
    """Which codes are among the thoughts (B, i) already: (B, m*K) bool."""
    used = torch.zeros(len(thoughts), n_codes, dtype=torch.bool, device=thoughts.device)
    return used.scatter_(1, thoughts - FIRST_CODE, True)


@torch.no_grad()
def corrective_thoughts(model: Backbone, gap: Tensor, excluded: Tensor | None = None) -> Tensor:
    """Eq. 12 after each of the given states: the thought that the annotator would write next.

    The states may follow any thoughts, such as the model's own.

    Args:
        model: gives the residual head and the code embeddings.
        gap: (B, l, d) t - s_0..s_{l-1}.
        excluded: (B, l, m*K) True for codes that may not be written, or None.

    Returns:
        (B, l) code tokens.
    """
    with torch.autocast(gap.device.type, enabled=False):
        r, codes = model.residual_head(gap.float()), model.shared.weight[FIRST_CODE:].float()
        return _nearest_code(r, codes, excluded)


def _nearest_code(r: Tensor, codes: Tensor, excluded: Tensor | None) -> Tensor:
    """Eq. 12: residuals (..., d), codes (m*K, d) and ``excluded`` (..., m*K) or None -> code tokens (...)."""
    if excluded is None:
        return FIRST_CODE + nearest(r.flatten(0, -2), codes).view(r.shape[:-1])
    return FIRST_CODE + torch.cdist(r, codes).masked_fill(excluded, torch.inf).argmin(dim=-1)


def _fixed_thoughts(
    tokenizer: SemanticTokenizer,
    target: Tensor,
    l: int,
    strategy: str,
    neighbours: Tensor | None,
    generator: torch.Generator,
) -> Tensor | None:
    """The thoughts (B, l) of a strategy that uses no residual; None: the strategy is "residual"."""
    if strategy not in STRATEGIES or strategy == "residual":
        return None
    if strategy == "random":
        codes = torch.randint(0, tokenizer.m * tokenizer.K, (len(target), l), generator=generator)
        return (FIRST_CODE + codes).to(target.device)
    if strategy == "own-codes":
        return tokenizer.tokens[target].repeat(1, -(-l // tokenizer.m))[:, :l]
    assert neighbours is not None, "the strategy nearest-items needs neighbours"
    items = neighbours[target, : -(-l // tokenizer.m)]
    return tokenizer.tokens[items].flatten(1)[:, :l]


def informativeness(thought: Tensor, tokenizer: SemanticTokenizer, target: Tensor) -> dict[str, list[float]]:
    """How much thoughts (B, l) tell about targets (B,), for each step: a list of l numbers a key.

    "used" counts different codes, "entropy" is theirs in bits. "information" is the mutual information
    with the target's first code, in bits. Its plug-in estimate is too high for few examples, so "chance"
    gives the same estimate for shuffled targets.
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
    """H(x) in bits."""
    p = torch.unique(x, return_counts=True)[1].double() / len(x)
    return float(-(p * p.log2()).sum())


def _information(x: Tensor, y: Tensor) -> float:
    """I(x; y) = H(x) + H(y) - H(x, y) in bits."""
    return _entropy(x) + _entropy(y) - _entropy(x * (int(y.max()) + 1) + y)
