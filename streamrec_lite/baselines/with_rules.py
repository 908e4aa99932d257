"""A memory beside the model (beyond the paper): the model's answer mixed with what rules remember.

    P(item) = (1 - w) P_model(item | history) + w P_rules(item | history)

A network of a million weights learns what kinds of items follow each other, and blurs which ones did.
Sequential rules remember just that and know nothing of kinds. The share w is chosen on validation
users. The mixture needs no training and serves fast and slow thinking alike, so it tells, too, whether
what thinking adds is more than memory.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ..common.schemas import BOS, Prefixes
from ..data.sequences import iterate_batches
from ..evaluation.metrics import mean_metrics, rank_of_target
from ..inference.beam_search import answer_beams, item_log_probs
from ..inference.recommender import StreamRec
from ..inference.state_guided import find_candidates
from ..inference.step_decoder import StepDecoder
from ..inference.thinking import think_ahead
from ..model.backbone import history_tokens
from .rules import SequentialRules

SHARES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


class Opinions(NamedTuple):
    """C items for each of B users, and what both say of them; -1 where there are fewer."""

    item: Tensor  # (B, C) int64
    model: Tensor  # (B, C) P_model, given the model's own greedy thoughts; state-guided: their softmax
    rules: Tensor  # (B, C) P_rules


@torch.inference_mode()
def opinions(model: StreamRec, rules: SequentialRules, prefixes: Prefixes) -> Opinions:
    """The W best items of the model's beam and the W best of the rules, with both probabilities.

    A model with a weight for its state (``StreamRec.w``) answers state-guided, over the same items and
    those that its state likes best.
    """
    backbone, tokenizer, device = model.model.eval(), model.tokenizer, model.device
    tokens = history_tokens(tokenizer.tokens, prefixes.history.to(device))
    scores = rules.scores(prefixes).to(device)
    scores = scores / scores.sum(dim=1, keepdim=True)
    wanted = scores.topk(min(model.beams, scores.shape[1]), dim=1).indices
    if model.w > 0:
        found, _ = find_candidates(
            backbone, tokenizer, tokens, model.l, "greedy", beams=model.beams, more=wanted
        )
        total = (found.log_prob + model.w * found.state).masked_fill(found.item < 0, -torch.inf)
        return Opinions(found.item, total.double().softmax(1), scores.gather(1, found.item.clamp_min(0)))
    states, mask = backbone.encode(tokens)
    if model.think == "none":
        stepper = StepDecoder(backbone, states, mask, "direct")
        hidden = stepper.step(torch.full((prefixes.n_examples,), BOS, device=device))
    else:
        stepper = StepDecoder(backbone, states, mask, "thinking")
        hidden = think_ahead(stepper, model.l, "greedy").answer[:, 0]
    again = stepper.copy()
    found = answer_beams(stepper, tokenizer.trie, hidden, model.beams, model.beams)
    log_prob = item_log_probs(again, tokenizer, hidden, wanted)
    twice = (wanted[..., None] == found.item[:, None]).any(dim=-1)
    item = torch.cat([found.item, wanted.masked_fill(twice, -1)], dim=1)
    said = torch.cat([found.score, log_prob], dim=1).double().exp()
    return Opinions(item, said, scores.gather(1, item.clamp_min(0)))


def mixed(found: Opinions, w: float, k: int = 10) -> Tensor:
    """The k best items (B, k) by (1 - w) model + w rules; -1 where there are fewer."""
    total = ((1 - w) * found.model + w * found.rules).masked_fill(found.item < 0, -1.0)
    value, best = total.topk(min(k, total.shape[1]), dim=1)
    item = found.item.gather(1, best).masked_fill(value < 0, -1)
    return F.pad(item, (0, k - item.shape[1]), value=-1)


def choose_share(model: StreamRec, rules: SequentialRules, prefixes: Prefixes, batch_size: int = 64):
    """The w of ``SHARES`` with the best N@10 on ``prefixes`` (validation), and every share's metrics."""
    ranks = {w: torch.zeros(prefixes.n_examples, dtype=torch.long) for w in SHARES}
    for rows, batch in iterate_batches(prefixes, batch_size):
        found = opinions(model, rules, batch)
        for w, kept in ranks.items():
            kept[rows.cpu()] = rank_of_target(mixed(found, w), batch.target.to(found.item.device)).cpu()
    scores = {w: mean_metrics(kept) for w, kept in ranks.items()}
    best = max(SHARES, key=lambda w: scores[w]["N@10"])  # the first, so the smallest, of equals
    return best, {str(w): value for w, value in scores.items()}


class WithRules:
    """A model and the rules, mixed with the share w, asked like any model."""

    def __init__(self, model: StreamRec, rules: SequentialRules, w: float):
        self.model, self.rules, self.w = model, rules, w

    def topk(self, prefixes: Prefixes, k: int) -> Tensor:
        return mixed(opinions(self.model, self.rules, prefixes), self.w, k)
