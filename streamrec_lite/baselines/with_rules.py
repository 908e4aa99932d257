"""A model mixed with sequential rules (beyond the paper): the answer is by a weighted sum of probabilities.

    P(item) = (1 - w) P_model(item | history) + w P_rules(item | history)

A network of a million weights learns which kinds of items follow each other, but blurs which single items
did. Sequential rules store single items and know nothing of kinds. The share w is chosen on validation
users. The mixture needs no training and works for fast and slow thinking alike. So it also tests whether
thinking adds more than the counts already contain.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ..common.schemas import BOS, Prefixes
from ..data.sequences import iterate_batches
from ..evaluation.metrics import mean_metrics, rank_of_target
from ..evaluation.new_items import best_items
from ..inference.beam_search import answer_beams, item_log_probs
from ..inference.recommender import StreamRec
from ..inference.state_guided import find_candidates
from ..inference.step_decoder import StepDecoder
from ..inference.thinking import generate_thoughts
from ..model.sequences import history_tokens
from .counting import SequentialRules

SHARES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


class MixtureCandidates(NamedTuple):
    """C items for each of B users with both probabilities; -1 where there are fewer."""

    item: Tensor  # (B, C) int64
    model: Tensor  # (B, C) P_model after the model's own greedy thoughts; state-guided: softmax of the scores
    rules: Tensor  # (B, C) P_rules


@torch.inference_mode()
def mixture_candidates(
    model: StreamRec, rules: SequentialRules, prefixes: Prefixes, exclude: Tensor | None = None
) -> MixtureCandidates:
    """The W best items of the model's beam and the W best items of the rules, with both probabilities.

    A model with a weight for its state (``StreamRec.w``) is asked state-guided: then the items that its
    state scores highest are candidates, too.

    Args:
        model: a trained model.
        rules: fitted on the same data.
        prefixes: B users.
        exclude: (B, E) items that are left out, -1 is no item; None: none. Probabilities of the others are
            not renormalised.
    """
    exclude = None if exclude is None else exclude.to(model.device)
    history = prefixes.history.to(model.device)
    scores = rules.scores(prefixes).to(model.device)
    by_rules = scores / scores.sum(dim=1, keepdim=True)  # (B, N)
    rules_best = best_items(by_rules, min(model.beams, by_rules.shape[1]), exclude)
    ask = _state_guided_probabilities if model.w > 0 else _beam_probabilities
    item, by_model = ask(model, history, rules_best, exclude)
    return MixtureCandidates(item, by_model, by_rules.gather(1, item.clamp_min(0)))


def _state_guided_probabilities(
    model: StreamRec, history: Tensor, more: Tensor, exclude: Tensor | None
) -> tuple[Tensor, Tensor]:
    """State-guided candidates and the items ``more`` (B, W): items and probabilities, (B, C) each."""
    tokens = history_tokens(model.tokenizer.tokens, history)
    found, _ = find_candidates(
        model.model.eval(),
        model.tokenizer,
        tokens,
        model.l,
        "greedy",
        beams=model.beams,
        extra_items=more,
        exclude=exclude,
    )
    total = (found.log_prob + model.w * found.state_log_prob).masked_fill(found.item < 0, -torch.inf)
    return found.item, total.double().softmax(1)


def _beam_probabilities(
    model: StreamRec, history: Tensor, more: Tensor, exclude: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The beam's items and the items ``more`` (B, W): items and probabilities, (B, C) each."""
    backbone, tokenizer = model.model.eval(), model.tokenizer
    if model.think == "none":
        decoder = StepDecoder.start(backbone, tokenizer, history, "direct")
        hidden = decoder.step(torch.full((len(history),), BOS, device=history.device))
    else:
        decoder = StepDecoder.start(backbone, tokenizer, history, "thinking")
        hidden = generate_thoughts(decoder, model.l, "greedy").answer_hidden[:, 0]
    scorer = decoder.copy()
    beam = answer_beams(decoder, tokenizer.trie, hidden, model.beams, model.beams, exclude)
    log_prob = item_log_probs(scorer, tokenizer, hidden, more.clamp_min(0))
    in_beam = (more[..., None] == beam.item[:, None]).any(dim=-1)
    item = torch.cat([beam.item, more.masked_fill(in_beam, -1)], dim=1)
    return item, torch.cat([beam.score, log_prob], dim=1).double().exp()


def mixture_topk(candidates: MixtureCandidates, w: float, k: int = 10) -> Tensor:
    """The k best items (B, k) by (1 - w) model + w rules; -1 where there are fewer."""
    total = (1 - w) * candidates.model + w * candidates.rules
    value, best = total.masked_fill(candidates.item < 0, -1.0).topk(min(k, total.shape[1]), dim=1)
    item = candidates.item.gather(1, best).masked_fill(value < 0, -1)
    return F.pad(item, (0, k - item.shape[1]), value=-1)


def choose_share(
    model: StreamRec, rules: SequentialRules, prefixes: Prefixes, batch_size: int = 64
) -> tuple[float, dict[str, dict[str, float]]]:
    """The w of ``SHARES`` with the best N@10 on ``prefixes``, and the metrics of every share by name.

    Args:
        model: the trained model.
        rules: fitted on the same data.
        prefixes: validation users.
        batch_size: users at once.
    """
    ranks = {w: torch.zeros(prefixes.n_examples, dtype=torch.long) for w in SHARES}
    for rows, batch in iterate_batches(prefixes, batch_size):
        candidates = mixture_candidates(model, rules, batch)
        target = batch.target.to(candidates.item.device)
        for w, rank in ranks.items():
            rank[rows.cpu()] = rank_of_target(mixture_topk(candidates, w), target).cpu()
    scores = {w: mean_metrics(rank) for w, rank in ranks.items()}
    best = max(SHARES, key=lambda w: scores[w]["N@10"])  # of equals the first one, the smallest
    return best, {str(w): value for w, value in scores.items()}


class WithRules:
    """A recommender: a model mixed with rules, whose share is w."""

    def __init__(self, model: StreamRec, rules: SequentialRules, w: float):
        self.model, self.rules, self.w = model, rules, w

    def topk(self, prefixes: Prefixes, k: int, exclude: Tensor | None = None) -> Tensor:
        """The k best items (B, k) without ``exclude`` (B, E); -1 where there are fewer."""
        return mixture_topk(mixture_candidates(self.model, self.rules, prefixes, exclude), self.w, k)
