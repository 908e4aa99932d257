"""States and residuals: how the estimates of the target are trained (eqs 14, 15).

The state s_i is the model's estimate of the target's representation t after i thoughts; the residual r_i
is what is left of the gap t - s_{i-1}. L_State makes s_i tell the target from other items. An alignment
term of ours gives s_i the scale of t. L_Quant keeps residuals and code embeddings together.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ..common.schemas import Prefixes
from ..config.training import SftConfig
from ..data.sequences import iterate_batches
from ..inference.step_decoder import StepDecoder
from ..inference.thinking import generate_thoughts
from ..model.backbone import Backbone
from ..model.item_representation import item_table, represent_items, state_scores
from ..tokenizer.semantic_ids import SemanticTokenizer

HEAD_LR = 3e-3  # learning rate of the state head's warm-up
HEAD_BATCH = 256  # examples in each of its steps


def state_loss(scores: Tensor, labels: Tensor, same_target: Tensor | None = None) -> Tensor:
    """L_State of eq. 14, a mean over users.

    The weights w_j = j / sum rise with the step, so the sum starts with s_1: no answer follows s_0.

    Args:
        scores: (B, l + 1, C) of s_0..s_l against C candidates (``state_scores``).
        labels: (B,) each user's target, as a column of the candidates.
        same_target: (B, C) candidates that are neither positive nor negative, or None.
    """
    if same_target is not None:
        scores = scores.masked_fill(same_target[:, None], -torch.inf)
    steps = scores.shape[1]
    repeated = labels[:, None].expand(-1, steps)
    losses = F.cross_entropy(scores.flatten(0, 1), repeated.flatten(), reduction="none").view(-1, steps)
    return (losses * step_weights(losses)).sum(dim=1).mean()


def soft_labels(scores: Tensor, neighbours: Tensor | None, share: float) -> Tensor:
    """The prediction of s_0, partly smoothed over items of similar text (not in the paper).

    With a short history the top items of s_0 are little better than chance. An item that resembles many
    of them is a better guess than one that resembles none. Smoothing gives each item the mean probability
    of its nearest items.

    Args:
        scores: (B, 1, N) of s_0 against all items; no gradient flows back through them.
        neighbours: (N, k) the items of most similar text to each, or None: no smoothing.
        share: how much of the probability is smoothed, from 0 to 1.

    Returns:
        (B, 1, N) probabilities.
    """
    prediction = scores.detach().float().softmax(dim=-1)
    if neighbours is None or share == 0:
        return prediction
    smooth = F.embedding_bag(neighbours, prediction.squeeze(1).T.contiguous(), mode="mean").T[:, None]
    return (1 - share) * prediction + share * smooth / smooth.sum(dim=-1, keepdim=True)


def distillation_loss(scores: Tensor, labels: Tensor, same_target: Tensor | None = None) -> Tensor:
    """Cross-entropy of later states to s_0's prediction, a mean over users (not in the paper).

    This is distillation (Hinton et al., 2015) inside one model: s_0 is the teacher, the states after it
    are the students. A thought may correct the first prediction, but should keep what it knew. The steps
    have the weights of eq. 14.

    Args:
        scores: (B, l + 1, C) of s_0..s_l, or of some of them, against C candidates.
        labels: (B, 1, C) probabilities (``soft_labels``), constants.
        same_target: (B, C) candidates that do not count, where ``labels`` are 0, or None.
    """
    if same_target is not None:
        scores = scores.masked_fill(same_target[:, None], -torch.inf)
    log_probs = scores.log_softmax(-1)
    if same_target is not None:
        log_probs = log_probs.masked_fill(same_target[:, None], 0.0)  # 0 * -inf would be NaN
    losses = -(labels * log_probs).sum(dim=-1)
    return (losses * step_weights(losses)).sum(dim=1).mean()


def step_weights(losses: Tensor) -> Tensor:
    """w_0..w_l of eq. 14 for losses (B, l + 1): j / sum, so that w_0 = 0; without thoughts w_0 = 1."""
    weight = torch.arange(losses.shape[1], device=losses.device, dtype=losses.dtype)
    return weight / weight.sum() if len(weight) > 1 else weight + 1


def align_loss(states: Tensor, t: Tensor) -> Tensor:
    """Mean squared component of s_j - sg[t], weights (j + 1) / sum: states (B, l + 1, d), t (B, d).

    Unlike eq. 14 it includes s_0, because the first residual is computed from t - s_0. A mean over users.
    """
    gaps = (states - t.detach()[:, None]).square().mean(dim=-1)
    weight = torch.arange(1, gaps.shape[1] + 1, device=gaps.device, dtype=gaps.dtype)
    return (gaps * (weight / weight.sum())).sum(dim=1).mean()


def quantisation_losses(residual: Tensor, thought: Tensor, beta: float) -> Tensor:
    """L_Quant of eq. 15 of each user and step, (B, l): r_i and the code embeddings o_i, both (B, l, d).

    The minus in front of eq. 15 is a misprint: the loss is a distance, and is minimised.
    """
    codebook = (residual.detach() - thought).square().sum(-1)
    commitment = (residual - thought.detach()).square().sum(-1)
    return codebook + beta * commitment


def distilled_state_loss(
    model: Backbone,
    tokenizer: SemanticTokenizer,
    batch: Prefixes,
    states: Tensor,
    t: Tensor,
    neighbours: Tensor,
    config: SftConfig,
) -> Tensor:
    """L_State as it is trained: against all items, or as in eq. 14 against the batch's targets.

    Scoring all items for every state is slow. So each user trains one of s_0..s_l, drawn by the weights
    of eq. 14; the expected loss is the same.

    We depart from eq. 14 in the labels. After a thought the label is the target with the share
    1 - ``config.first_guess_share`` and the prediction of s_0 with the rest (``distillation_loss``). s_0
    itself is trained on the target alone, weighted by ``config.first_state_weight``: without a loss for
    itself s_0 drifts towards a uniform prediction, and s_1..s_l, which imitate it, follow. With l = 0 the
    only state s_0 is teacher and student at once.

    Args:
        model: gives items and scores their scale.
        tokenizer: gives the items' codes.
        batch: B users with their targets.
        states: (B, l + 1, d) s_0..s_l.
        t: (B, d) representations of the targets.
        neighbours: (N, k) the items of most similar text to each.
        config: the weights and shares of the terms.
    """
    first, later = states[:, :1], states
    labels, same_target, smoothing = batch.target, None, None
    if config.negatives != "catalogue":
        candidates = t
        labels, same_target = in_batch_labels(batch.target)
        same_target = None if config.negatives == "whole-batch" else same_target
    else:
        candidates, smoothing = item_table(model, tokenizer), neighbours
        later = states.gather(1, _draw_step(states)[:, None, None].expand(-1, 1, states.shape[2]))
    scores = state_scores(model, later, candidates)
    hard = state_loss(scores, labels, same_target)
    if config.first_guess_share == 0 and config.first_state_weight == 0:
        return hard
    first_scores = state_scores(model, first, candidates)
    first_loss = state_loss(first_scores, labels, same_target)
    if same_target is not None:
        first_scores = first_scores.masked_fill(same_target[:, None], -torch.inf)
    teacher = soft_labels(first_scores, smoothing, config.similar_items_share)
    soft = distillation_loss(scores, teacher, same_target)
    return (
        config.first_state_weight * first_loss
        + (1 - config.first_guess_share) * hard
        + config.first_guess_share * soft
    )


def _draw_step(states: Tensor) -> Tensor:
    """One step j of 0..l for each user, drawn by the weights of eq. 14: states (B, l + 1, d) -> (B,)."""
    weight = step_weights(states[..., 0])
    # An exponential race: argmax(weight / Exp(1)) draws j in proportion to its weight. Unlike
    # torch.multinomial it needs no host synchronisation, so a CUDA graph can capture it.
    race = torch.empty_like(states[..., 0]).exponential_()
    return (weight / race).argmax(dim=1)


def in_batch_labels(items: Tensor) -> tuple[Tensor, Tensor]:
    """Labels for in-batch negatives: each user's column (B,), and other users with the same target (B, B)."""
    column = torch.arange(len(items), device=items.device)
    return column, (items[:, None] == items) & (column[:, None] != column)


def warm_up_state_head(
    model: Backbone,
    tokenizer: SemanticTokenizer,
    examples: Prefixes,
    l: int,
    max_examples: int = 8192,
    steps: int = 300,
) -> None:
    """Train MLP_s alone to turn d_0 + ... + d_i into an estimate of t, before the first annotation.

    Without it the first thoughts would correct the difference between two vector spaces, not a wrong
    estimate. All other weights stay as they are, so the d_i are computed once, after greedy thoughts of
    the pretrained model.

    Args:
        model: changed in place: ``state_head``, ``state_scale`` and ``state_score_scale``.
        tokenizer: gives the items' codes.
        examples: training prefixes; a random subset is used.
        l: the number of thoughts.
        max_examples: the size of that subset.
        steps: the optimiser's steps.
    """
    device = examples.target.device
    examples = examples.select(torch.randperm(examples.n_examples)[:max_examples].to(device))
    d = torch.empty(examples.n_examples, l + 1, model.config.d_model, device=device)
    model.eval()
    with torch.no_grad():
        t = represent_items(model, tokenizer, examples.target)
        for rows, batch in iterate_batches(examples):
            decoder = StepDecoder.start(model, tokenizer, batch.history)
            d[rows] = generate_thoughts(decoder, l, "greedy").hidden[:, 0].float()
    head = [*model.state_head.parameters(), model.state_scale, model.state_score_scale]
    optimizer = torch.optim.AdamW([p for p in head if p.requires_grad], lr=HEAD_LR)
    for _ in range(steps):
        rows = torch.randint(0, examples.n_examples, (HEAD_BATCH,)).to(device)
        items, states = examples.target[rows], model.states(d[rows])
        scores = state_scores(model, states, t[rows])
        loss = state_loss(scores, *in_batch_labels(items)) + (states - t[rows][:, None]).square().mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
