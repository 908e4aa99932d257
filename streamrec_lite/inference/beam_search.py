"""Trie-constrained beam search (eq. 2): every answer is an item of the catalogue.

The beams of a user differ only in the few tokens decoded so far. So the encoder runs once per user, its keys
and values are projected once, and the beams are queries against that one copy. Only the short self-attention
cache is copied when a beam is continued in several ways. With the softmax over the trie, the codes after a
prefix that leads to a single item have probability one and need no decoder step. The cost per user does not
depend on the number of items: at each level a beam has at most K children.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ..common.errors import BadInput
from ..common.schemas import BOS, FIRST_CODE, Beams
from ..model.backbone import Backbone
from ..tokenizer.semantic_ids import SemanticTokenizer
from ..tokenizer.trie import PaddedChildren, Trie
from .exclusion import Exclusion
from .step_decoder import StepDecoder


def answer_log_probs(
    model: Backbone, tokenizer: SemanticTokenizer, hidden: Tensor, items: Tensor, temperature: float = 1.0
) -> Tensor:
    """log P(c_j | c_<j, history) (B, m) of given items, teacher-forced.

    Args:
        model: the backbone.
        tokenizer: semantic IDs of the catalogue, on the model's device.
        hidden: (B, m, d) hidden states that predict the m codes.
        items: (B,) item indices.
        temperature: tau of eq. 11; 1 except in training.
    """
    trie = tokenizer.trie
    steps = range(trie.m)
    chosen = [_step_log_prob(model, trie, hidden[:, j], j, items, temperature) for j in steps]
    return torch.stack(chosen, dim=1)


def item_log_probs(
    stepper: StepDecoder,
    tokenizer: SemanticTokenizer,
    hidden: Tensor,
    items: Tensor,
    floor: Tensor | None = None,
) -> Tensor:
    """log P(item | tokens so far, history) of n given items for each of R sequences.

    Items with a common prefix share its decoder steps. With the softmax over the trie, an item that is the
    only one below its prefix needs no further step.

    Args:
        stepper: the decoder, after the tokens so far.
        tokenizer: semantic IDs of the catalogue.
        hidden: (R, d) hidden states after the newest tokens (BOS, the last thought, or ANSWER).
        items: (R, n) item indices.
        floor: (R,) log-probabilities below this are not needed exactly. The sum only falls from code to code,
            so an item below the floor needs no further step; its partial sum is returned.

    Returns:
        (R, n) float32.
    """
    trie, model = tokenizer.trie, stepper.model
    flat = items.flatten()
    active = torch.arange(len(flat), device=flat.device)  # items whose log-probability is not complete yet
    row = active // items.shape[1]  # the row of ``hidden`` that predicts each one's next code
    node = torch.zeros(len(hidden), dtype=torch.long, device=flat.device)  # trie node of each hidden state
    total = torch.zeros(len(flat), device=flat.device)
    stepper.share()
    for level in range(trie.m):
        if level > 0:
            if floor is not None:
                kept = total[active] >= floor[active // items.shape[1]]
                active, row = active[kept], row[kept]
            if model.config.softmax == "trie":
                kept = ~trie.has_single_item[level][trie.paths[flat[active], level]]
                active, row = active[kept], row[kept]
            if not len(active):
                break
            prefix = trie.paths[flat[active], level]
            key, inverse = torch.unique(row * trie.n_nodes(level) + prefix, return_inverse=True)
            parent, node = key // trie.n_nodes(level), key % trie.n_nodes(level)
            example = torch.empty_like(key).index_copy_(0, inverse, active)  # one item of each prefix
            stepper.select(parent)
            hidden, row = stepper.step(tokenizer.tokens[flat[example], level - 1]), inverse
        log_probs = model.code_log_probs(hidden, level, trie, trie.padded_children(level, node))
        child = trie.paths[flat[active], level + 1] - trie.start[level][node[row]]
        total.index_add_(0, active, log_probs[row, child].to(total))
    return total.view_as(items)


def _step_log_prob(
    model: Backbone, trie: Trie, hidden: Tensor, level: int, items: Tensor, temperature: float = 1.0
) -> Tensor:
    """log P (B,) of the code of ``level`` of items (B,), from hidden states (B, d)."""
    node, child = trie.paths[items, level], trie.paths[items, level + 1]
    log_probs = model.code_log_probs(hidden, level, trie, trie.padded_children(level, node), temperature)
    return log_probs.gather(-1, (child - trie.start[level][node])[:, None])[:, 0]


@torch.inference_mode()
def beam_search(
    model: Backbone,
    trie: Trie,
    tokens: Tensor,
    beams: int = 20,
    k: int = 10,
    decoder: str = "direct",
    exclude: Tensor | None = None,
) -> Beams:
    """The k items with the highest P(item | history) that a search with W beams finds (eq. 2).

    The score of an item is log P(c_1..c_m | history), the exact sum of its m log-probabilities (eq. 11,
    ``Backbone.code_log_probs``). The search stays within the trie, so every answer is an item.

    Args:
        model: the backbone, in ``eval`` mode.
        trie: the trie of all semantic IDs, on the model's device.
        tokens: (B, S) history tokens, PAD on the right.
        beams: W, number of prefixes kept at each level.
        k: number of items per user, at most W.
        decoder: "direct" or "thinking".
        exclude: (B, E) items that are left out, -1 is no item (see ``answer_beams``); None: none.

    Returns:
        items (B, k) and scores (B, k), best first; -1 and -inf if there are fewer than k items.
    """
    if not 1 <= k <= beams:
        raise BadInput(
            f"k={k}",
            f"must lie between 1 and the number of beams, {beams}",
            "ask for fewer, or use more beams",
        )
    stepper = StepDecoder(model, *model.encode(tokens), decoder)
    start = torch.full((len(tokens),), BOS, device=tokens.device)
    return answer_beams(stepper, trie, stepper.step(start), beams, k, exclude)


def answer_beams(
    stepper: StepDecoder, trie: Trie, hidden: Tensor, beams: int, k: int, exclude: Tensor | None = None
) -> Beams:
    """Beam search over the m codes of the answer, for each of R sequences.

    Items of ``exclude`` are left out inside the search: at each level a prefix is dropped, before the best W
    are kept, if all items below it are left out. So k other items still come. Scores stay those of the
    model: the probabilities of the other items are not renormalised.

    Args:
        stepper: the decoder, after the tokens so far.
        trie: the trie of all semantic IDs.
        hidden: (R, d) hidden states after the newest tokens (BOS, the last thought, or ANSWER).
        beams: W, number of prefixes kept at each level.
        k: number of items.
        exclude: (R, E) items that are left out, -1 is no item; None: none.

    Returns:
        items (R, k) and scores (R, k): log P(item | tokens so far, history).
    """
    rows, device = len(hidden), hidden.device
    trie_softmax = stepper.model.config.softmax == "trie"
    token = torch.empty((rows, 0), dtype=torch.long, device=device)
    node = torch.zeros((rows, 1), dtype=torch.long, device=device)
    score = torch.zeros((rows, 1), device=device)
    needs_step = torch.ones((rows, 1), dtype=torch.bool, device=device)  # is the next code open?
    parent = torch.arange(rows, device=device)[:, None]  # the stepper's sequence that each beam continues
    exclusion = None if exclude is None else Exclusion.of(trie, exclude)
    stepper.share()
    for level in range(trie.m):
        children = trie.padded_children(level, node)  # (R, W, F) each
        gain = torch.zeros(children.real.shape, device=device).masked_fill_(~children.real, -torch.inf)
        active = needs_step.flatten().nonzero()[:, 0]
        if len(active):
            if level > 0:
                stepper.select(parent.flatten()[active])
                hidden = stepper.step(token.flatten()[active])
            active_children = PaddedChildren(*(x.flatten(0, 1).index_select(0, active) for x in children))
            log_probs = stepper.model.code_log_probs(hidden, level, trie, active_children)
            gain.flatten(0, 1).index_copy_(0, active, log_probs)
        if exclusion is not None:
            exclusion.mask(gain, trie, level, node)
        total = (score[..., None] + gain).flatten(1)
        keep = k if level == trie.m - 1 else beams  # no step follows the last level
        score, best = total.topk(min(keep, total.shape[1]), dim=1)
        node = children.node.flatten(1).gather(1, best)
        token = FIRST_CODE + level * trie.K + children.code.flatten(1).gather(1, best)
        index = (needs_step.flatten().cumsum(0) - 1).view_as(needs_step)  # of each beam in the stepper
        parent = index.gather(1, best // children.code.shape[-1])
        needs_step = score > -torch.inf
        if trie_softmax:  # the codes of the only item below a prefix have probability one
            needs_step &= ~trie.has_single_item[level + 1][node]
    item = trie.leaf_item[node].masked_fill(score == -torch.inf, -1)
    missing = k - item.shape[1]
    return Beams(F.pad(item, (0, missing), value=-1), F.pad(score, (0, missing), value=-torch.inf))
