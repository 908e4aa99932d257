"""State-guided scoring (beyond the paper): the last state is a retriever, and helps to answer.

L_State (eq. 14) teaches s_l to score items by a s_l . t(item), and the paper never uses that to answer.
Here an item's score is log P(item | thoughts, history) + w log P_state(item), the second one the
softmax of a s_l . t over all items. Items that the beam misses but the state likes take part too.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ..common.schemas import Beams, Prefixes
from ..data.sequences import iterate_batches
from ..evaluation.metrics import mean_metrics, rank_of_target
from ..model.backbone import Backbone
from ..model.item_representation import item_table, state_scores
from ..model.sequences import history_tokens
from .beam_search import answer_beams, item_log_probs
from .step_decoder import StepDecoder
from .thinking import Thoughts, add_up, think_ahead, train_weights

WEIGHTS = (0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 5.0)
STATE_ONLY_WEIGHT = 1e6  # so large that the answer's log-probability does not count beside the state's score


class Candidates(NamedTuple):
    """C items for each of B users; -1 and -inf where there are fewer."""

    item: Tensor  # (B, C) int64
    log_prob: Tensor  # (B, C) log P(item | history), summed over the thoughts as in eq. 3
    state: Tensor  # (B, C) log P_state(item)


@torch.inference_mode()
def find_candidates(
    model: Backbone,
    tokenizer,
    tokens: Tensor,
    l: int,
    mode: str = "greedy",
    n: int = 1,
    beams: int = 20,
    table: Tensor | None = None,
    more: Tensor | None = None,
) -> tuple[Candidates, Thoughts]:
    """The W items that the beam finds and the W that the state likes best, with both their scores.

    With several trains of thought the state is their mean, weighted by their probabilities.

    Args:
        model: the backbone.
        tokenizer: gives the items' codes.
        tokens: history tokens (B, S); l, mode, n as in ``think_and_answer``.
        table: ``item_table``, where the caller has it.
        more: (B, C) items that shall be among the candidates too.
        l: thoughts.
        mode: "greedy", "sample" or "beam".
        n: trains of thought.
        beams: W, candidates from the beam search.
    """
    table = item_table(model, tokenizer) if table is None else table
    stepper = StepDecoder(model, *model.encode(tokens), "thinking")
    thoughts = think_ahead(stepper, l, mode, n)
    weight = train_weights(thoughts, mode)  # (B, trains), logarithms
    B, trains = weight.shape
    last = thoughts.answer.flatten(0, 1)
    again = stepper.copy()
    found = answer_beams(stepper, tokenizer.trie, last, beams, beams)
    s = model.states(thoughts.hidden.flatten(0, 1))[:, -1].view(B, trains, -1)
    s = (s * weight.exp()[..., None]).sum(dim=1)
    liked = state_scores(model, s, table).log_softmax(dim=-1)  # (B, N)
    wanted = liked.topk(min(beams, liked.shape[1]), dim=1).indices
    wanted = (wanted if more is None else torch.cat([wanted, more], dim=1)).repeat_interleave(trains, dim=0)
    log_prob = item_log_probs(again, tokenizer, last, wanted)
    twice = (wanted[..., None] == found.item[:, None]).any(dim=-1)
    twice |= (wanted[..., None] == wanted[:, None]).tril(-1).any(dim=-1)
    item = torch.cat([found.item, wanted.masked_fill(twice, -1)], dim=1).view(B, trains, -1)
    score = torch.cat([found.score, log_prob], dim=1).view(B, trains, -1) + weight[..., None]
    every = add_up(item.flatten(1), score.flatten(1), item.shape[2] * trains)
    state = liked.gather(1, every.item.clamp_min(0)).masked_fill(every.item < 0, -torch.inf)
    return Candidates(every.item, every.score, state), thoughts


def choose_weight(model: Backbone, tokenizer, prefixes: Prefixes, l: int, beams: int, batch_size: int = 64):
    """The w of ``WEIGHTS`` with the best N@10 on ``prefixes`` (validation), after greedy thoughts.

    Args:
        model: the backbone.
        tokenizer: gives the items' codes.
        prefixes: validation examples.
        l: thoughts.
        beams: W, sequences kept at each level.
        batch_size: examples at once.

    Returns:
        w, and the metrics of each weight and of the state alone ("state"): name -> {"N@10", ...}.
    """
    table = item_table(model, tokenizer)
    ranks = {w: torch.zeros(prefixes.n_examples, dtype=torch.long) for w in (*WEIGHTS, STATE_ONLY_WEIGHT)}
    for rows, batch in iterate_batches(prefixes, batch_size):
        tokens = history_tokens(tokenizer.tokens, batch.history)
        found, _ = find_candidates(model, tokenizer, tokens, l, "greedy", 1, beams, table)
        for w, kept in ranks.items():
            kept[rows.cpu()] = rank_of_target(guided_ranking(found, w).item, batch.target).cpu()
    scores = {w: mean_metrics(kept) for w, kept in ranks.items()}
    best = max(WEIGHTS, key=lambda w: scores[w]["N@10"])  # the first, so the smallest, of equals
    return best, {"state" if w == STATE_ONLY_WEIGHT else str(w): value for w, value in scores.items()}


def guided_ranking(candidates: Candidates, w: float, k: int = 10) -> Beams:
    """The k best by log_prob + w * state: items and scores (B, k)."""
    total = candidates.log_prob + (w * candidates.state if w > 0 else 0.0)
    total = total.masked_fill(candidates.item < 0, -torch.inf)
    score, best = total.topk(min(k, total.shape[1]), dim=1)
    item = candidates.item.gather(1, best).masked_fill(score == -torch.inf, -1)
    missing = k - item.shape[1]
    return Beams(F.pad(item, (0, missing), value=-1), F.pad(score, (0, missing), value=-torch.inf))
