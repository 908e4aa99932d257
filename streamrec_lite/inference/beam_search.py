"""Beam search constrained to the trie: every answer is an item of the catalogue.

A user's beams differ only in the few tokens written so far. So the encoder runs once for each user, its keys
and values are computed once, and the beams are queries against that one copy. Only the short self-attention
cache is copied when a beam has several continuations. With the softmax over the trie, a prefix that leads to
a single item needs no further decoder step: the remaining codes have probability one. The cost for each user
does not depend on the size of the catalogue: at each level a beam has at most K children.
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
from .step_decoder import StepDecoder


def answer_log_probs(
    model: Backbone, tokenizer: SemanticTokenizer, hidden: Tensor, items: Tensor, temperature: float = 1.0
) -> Tensor:
    """log P(c_j | c_<j, history) of given items, teacher-forced: (B, m).

    Args:
        model: the backbone.
        tokenizer: semantic IDs of the catalogue, on the model's device.
        hidden: decoder states (B, m, d) that predict the m codes.
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
    """log P(item | tokens so far, history) of n given items for each of the stepper's R sequences.

    Items share the steps of their common prefixes: one state gives the first code of all n items. With the
    softmax over the trie, an item that is alone below its prefix needs no further step.

    Args:
        stepper: the decoder with the tokens so far.
        tokenizer: gives the items' codes.
        hidden: (R, d) hidden states at each sequence's newest token, BOS or the last thought.
        items: (R, n) item indices.
        floor: (R,) lower bound of interest. A sum of log-probabilities only falls from code to code, so an
            item below the floor gets no further step, and its partial sum is returned.

    Returns:
        (R, n) float32.
    """
    trie, model = tokenizer.trie, stepper.model
    flat = items.flatten()
    active = torch.arange(len(flat), device=flat.device)  # items that need further steps
    at = active // items.shape[1]  # the state that predicts each one's next code
    node = torch.zeros(len(hidden), dtype=torch.long, device=flat.device)  # the trie node of each state
    total = torch.zeros(len(flat), device=flat.device)
    stepper.share()
    for level in range(trie.m):
        if level > 0:
            if floor is not None:
                kept = total[active] >= floor[active // items.shape[1]]
                active, at = active[kept], at[kept]
            if model.config.softmax == "trie":
                kept = ~trie.has_single_item[level][trie.paths[flat[active], level]]
                active, at = active[kept], at[kept]
            if not len(active):
                break
            below = trie.paths[flat[active], level]
            key, again = torch.unique(at * trie.n_nodes(level) + below, return_inverse=True)
            parent, node = key // trie.n_nodes(level), key % trie.n_nodes(level)
            selected = torch.empty_like(key).index_copy_(0, again, active)  # one item of each prefix
            stepper.select(parent)
            hidden, at = stepper.step(tokenizer.tokens[flat[selected], level - 1]), again
        log_probs = model.code_log_probs(hidden, level, trie, trie.padded_children(level, node))
        place = trie.paths[flat[active], level + 1] - trie.start[level][node[at]]
        total.index_add_(0, active, log_probs[at, place].to(total))
    return total.view_as(items)


def _step_log_prob(
    model: Backbone, trie: Trie, hidden: Tensor, level: int, items: Tensor, temperature: float
) -> Tensor:
    """log P(the items' code of ``level``): hidden (B, d), items (B,) -> (B,)."""
    node, child = trie.paths[items, level], trie.paths[items, level + 1]
    log_probs = model.code_log_probs(hidden, level, trie, trie.padded_children(level, node), temperature)
    return log_probs.gather(-1, (child - trie.start[level][node])[:, None])[:, 0]


@torch.inference_mode()
def beam_search(
    model: Backbone, trie: Trie, tokens: Tensor, beams: int = 20, k: int = 10, decoder: str = "direct"
) -> Beams:
    """The k items of highest P(item | history) that a beam search of width W finds (eq. 2).

    The score of an item is log P(c_1..c_m | history), the exact sum of its m log-probabilities (eq.
    11, ``Backbone.code_log_probs``). The search never leaves the trie, so every answer is an item.

    Args:
        model: the backbone, in ``eval`` mode.
        trie: the catalogue's semantic IDs, on the model's device.
        tokens: history tokens (B, S), PAD on the right.
        beams: W, prefixes kept at each level.
        k: answers for each user, at most W.
        decoder: "direct" or "thinking".

    Returns:
        items (B, k) and scores (B, k), best first; -1 and -inf if the catalogue has fewer.
    """
    if not 1 <= k <= beams:
        raise BadInput(
            f"k={k}",
            f"must lie between 1 and the number of beams, {beams}",
            "ask for fewer, or use more beams",
        )
    stepper = StepDecoder(model, *model.encode(tokens), decoder)
    start = torch.full((len(tokens),), BOS, device=tokens.device)
    return answer_beams(stepper, trie, stepper.step(start), beams, k)


def answer_beams(stepper: StepDecoder, trie: Trie, hidden: Tensor, beams: int, k: int) -> Beams:
    """Beam search over the answer after each of the stepper's R sequences: the k best items of each.

    Args:
        stepper: the decoder with the tokens so far.
        trie: the tree of all semantic IDs.
        hidden: (R, d) hidden states at each sequence's newest token, BOS or the last thought.
        beams: W, prefixes kept at each level.
        k: items to return.

    Returns:
        items (R, k) and scores (R, k): log P(item | tokens so far, history).
    """
    rows, device = len(hidden), hidden.device
    trie_softmax = stepper.model.config.softmax == "trie"
    token = torch.empty((rows, 0), dtype=torch.long, device=device)
    node = torch.zeros((rows, 1), dtype=torch.long, device=device)
    score = torch.zeros((rows, 1), device=device)
    active = torch.ones((rows, 1), dtype=torch.bool, device=device)  # beams that need the decoder
    parent = torch.arange(rows, device=device)[
        :, None
    ]  # index in the stepper of the sequence that each beam continues
    stepper.share()
    for level in range(trie.m):
        children = trie.padded_children(level, node)  # (R, W, F) each
        gain = torch.zeros(children.real.shape, device=device).masked_fill_(~children.real, -torch.inf)
        at = active.flatten().nonzero()[:, 0]
        if len(at):
            if level > 0:
                stepper.select(parent.flatten()[at])
                hidden = stepper.step(token.flatten()[at])
            selected = PaddedChildren(*(x.flatten(0, 1).index_select(0, at) for x in children))
            log_probs = stepper.model.code_log_probs(hidden, level, trie, selected)
            gain.flatten(0, 1).index_copy_(0, at, log_probs)
        total = (score[..., None] + gain).flatten(1)
        keep = k if level == trie.m - 1 else beams  # no step follows the last level
        score, best = total.topk(min(keep, total.shape[1]), dim=1)
        node = children.node.flatten(1).gather(1, best)
        token = FIRST_CODE + level * trie.K + children.code.flatten(1).gather(1, best)
        place = (active.flatten().cumsum(0) - 1).view_as(active)  # index of each beam in the stepper
        parent = place.gather(1, best // children.code.shape[-1])
        active = score > -torch.inf
        if trie_softmax:  # if one item is left, the remaining codes have probability one
            active &= ~trie.has_single_item[level + 1][node]
    item = trie.leaf_item[node].masked_fill(score == -torch.inf, -1)
    missing = k - item.shape[1]
    return Beams(F.pad(item, (0, missing), value=-1), F.pad(score, (0, missing), value=-torch.inf))
