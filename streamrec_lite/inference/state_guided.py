"""State-guided scoring (not in the paper): the last state s_l retrieves and scores items too.

L_State (eq. 14) trains s_l to score items by a s_l . t(item), but the paper does not use these scores at
inference. Here an item's score is log P(item | thoughts, history) + w log P_state(item), where P_state is the
softmax of a s_l . t over all items. The candidates are the items of the beam search and the items with the
highest P_state.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ..common.schemas import Beams, Prefixes
from ..data.sequences import iterate_batches
from ..evaluation.metrics import mean_metrics, rank_of_target
from ..evaluation.new_items import best_items
from ..model.backbone import Backbone
from ..model.item_representation import item_table, state_scores
from ..model.sequences import history_tokens
from ..tokenizer.semantic_ids import SemanticTokenizer
from .beam_search import answer_beams, item_log_probs
from .step_decoder import StepDecoder
from .thinking import Thoughts, generate_thoughts, mixture_weights, sum_over_thoughts

GUIDANCE_WEIGHTS = (0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 5.0)
STATE_ONLY_WEIGHT = 1e6  # so large that only P_state matters


class Candidates(NamedTuple):
    """C items for each of B users; -1 and -inf if there are fewer."""

    item: Tensor  # (B, C) int64
    log_prob: Tensor  # (B, C) log P(item | history), summed over the thoughts as in eq. 3
    state_log_prob: Tensor  # (B, C) log P_state(item)


@torch.inference_mode()
def find_candidates(
    model: Backbone,
    tokenizer: SemanticTokenizer,
    tokens: Tensor,
    l: int,
    mode: str = "greedy",
    n: int = 1,
    beams: int = 20,
    table: Tensor | None = None,
    extra_items: Tensor | None = None,
    exclude: Tensor | None = None,
) -> tuple[Candidates, Thoughts]:
    """Candidates with both scores, and the thoughts.

    The candidates are the W items of the beam search and the W items with the highest P_state.

    With several trains of thought, the state is the mean of their last states, weighted by
    ``mixture_weights``.

    Args:
        model: the backbone.
        tokenizer: semantic IDs of the catalogue.
        tokens: (B, S) history tokens, PAD on the right.
        l: thoughts per train of thought.
        mode: "greedy", "sample" or "beam".
        n: trains of thought per user.
        beams: W, number of prefixes kept at each level, and number of items by P_state.
        table: (N, d) ``item_table``, if it has been computed already.
        extra_items: (B, X) items that are added to the candidates, -1 is no item; or None.
        exclude: (B, E) items that are left out, -1 is no item; None: none.
    """
    table = item_table(model, tokenizer) if table is None else table
    stepper = StepDecoder(model, *model.encode(tokens), "thinking")
    thoughts = generate_thoughts(stepper, l, mode, n)
    weight = mixture_weights(thoughts, mode)  # (B, trains)
    B, trains = weight.shape
    last = thoughts.answer_hidden.flatten(0, 1)
    scorer = stepper.copy()  # answer_beams changes the stepper
    barred = None if exclude is None else exclude.repeat_interleave(trains, dim=0)
    found = answer_beams(stepper, tokenizer.trie, last, beams, beams, barred)
    s = model.states(thoughts.hidden.flatten(0, 1))[:, -1].view(B, trains, -1)
    s = (s * weight.exp()[..., None]).sum(dim=1)
    state_log_prob = state_scores(model, s, table).log_softmax(dim=-1)  # (B, N)
    by_state = best_items(state_log_prob, min(beams, tokenizer.n_items), exclude)
    if extra_items is not None:
        by_state = torch.cat([by_state, extra_items], dim=1)
    by_state = by_state.repeat_interleave(trains, dim=0)
    log_prob = item_log_probs(scorer, tokenizer, last, by_state.clamp_min(0))
    duplicate = (by_state[..., None] == found.item[:, None]).any(dim=-1)
    duplicate |= (by_state[..., None] == by_state[:, None]).tril(-1).any(dim=-1)
    item = torch.cat([found.item, by_state.masked_fill(duplicate, -1)], dim=1).view(B, trains, -1)
    score = torch.cat([found.score, log_prob], dim=1).view(B, trains, -1) + weight[..., None]
    merged = sum_over_thoughts(item.flatten(1), score.flatten(1), item.shape[2] * trains)
    state = state_log_prob.gather(1, merged.item.clamp_min(0)).masked_fill(merged.item < 0, -torch.inf)
    return Candidates(merged.item, merged.score, state), thoughts


def choose_weight(
    model: Backbone,
    tokenizer: SemanticTokenizer,
    prefixes: Prefixes,
    l: int,
    beams: int,
    batch_size: int = 64,
) -> tuple[float, dict[str, dict[str, float]]]:
    """The w of ``GUIDANCE_WEIGHTS`` with the best N@10 on ``prefixes`` (validation), after greedy thoughts.

    Args:
        model: the backbone.
        tokenizer: semantic IDs of the catalogue.
        prefixes: validation examples.
        l: thoughts per example.
        beams: W, number of prefixes kept at each level.
        batch_size: examples per batch.

    Returns:
        w, and the metrics of each weight and of P_state alone ("state"): name -> {"N@10", ...}.
    """
    table = item_table(model, tokenizer)
    weights = (*GUIDANCE_WEIGHTS, STATE_ONLY_WEIGHT)
    ranks = {w: torch.zeros(prefixes.n_examples, dtype=torch.long) for w in weights}
    for rows, batch in iterate_batches(prefixes, batch_size):
        tokens = history_tokens(tokenizer.tokens, batch.history)
        found, _ = find_candidates(model, tokenizer, tokens, l, "greedy", 1, beams, table)
        for w, kept in ranks.items():
            kept[rows.cpu()] = rank_of_target(guided_ranking(found, w).item, batch.target).cpu()
    scores = {w: mean_metrics(kept) for w, kept in ranks.items()}
    best = max(GUIDANCE_WEIGHTS, key=lambda w: scores[w]["N@10"])  # the smallest of equally good ones
    return best, {"state" if w == STATE_ONLY_WEIGHT else str(w): value for w, value in scores.items()}


def guided_ranking(candidates: Candidates, w: float, k: int = 10) -> Beams:
    """The k best candidates by log_prob + w * state_log_prob: items and scores (B, k)."""
    total = candidates.log_prob + (w * candidates.state_log_prob if w > 0 else 0.0)
    total = total.masked_fill(candidates.item < 0, -torch.inf)
    score, best = total.topk(min(k, total.shape[1]), dim=1)
    item = candidates.item.gather(1, best).masked_fill(score == -torch.inf, -1)
    missing = k - item.shape[1]
    return Beams(F.pad(item, (0, missing), value=-1), F.pad(score, (0, missing), value=-torch.inf))
