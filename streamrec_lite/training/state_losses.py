"""States and residuals: how estimates of the target learn (eqs 14, 15).

s_i is what the model takes the target for after i thoughts, r_i what is left of it. L_State makes s_i
tell the target from other items, an alignment term of ours gives it the target's scale, and L_Quant
keeps residuals and codes together.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ..common.schemas import Prefixes
from ..config.sections import SftConfig
from ..data.sequences import iterate_batches
from ..inference.step_decoder import StepDecoder
from ..inference.thinking import think_ahead
from ..model.backbone import Backbone
from ..model.item_representation import item_table, state_scores, targets


def state_loss(scores: Tensor, positive: Tensor, twin: Tensor | None = None) -> Tensor:
    """L_State of eq. 14, a mean over users.

    The sum starts with s_1, the state after the first thought, and the weights w_j = j / sum rise with the
    step: what s_0 takes for the target is a first guess, and nobody answers with it.

    Args:
        scores: (B, l + 1, C) of s_0..s_l against C candidates (``state_scores``).
        positive: (B,) each user's target among the candidates.
        twin: (B, C) candidates that are neither positive nor negative, or None.
    """
    if twin is not None:
        scores = scores.masked_fill(twin[:, None], -torch.inf)
    steps = scores.shape[1]
    labels = positive[:, None].expand(-1, steps)
    losses = F.cross_entropy(scores.flatten(0, 1), labels.flatten(), reduction="none").view(-1, steps)
    return (losses * step_weights(losses)).sum(dim=1).mean()


def first_guess(scores: Tensor, nearby: Tensor | None, share: float) -> Tensor:
    """What s_0 takes for the target, some of it spread on items of similar text (not in the paper).

    Where the history says little, what s_0 likes is little more than chance, but items that are like many
    of those that it likes are a better bet than others. An item's part in what is spread is the mean of
    what s_0 gives to the items nearest to it.

    Args:
        scores: (B, 1, N) of s_0 against all items; gradients are not followed.
        nearby: (N, k) the items nearest by text to each, or None.
        share: of the guess that is spread.

    Returns:
        (B, 1, N) probabilities.
    """
    guess = scores.detach().float().softmax(dim=-1)
    if nearby is None or share == 0:
        return guess
    spread = F.embedding_bag(nearby, guess.squeeze(1).T.contiguous(), mode="mean").T[:, None]
    return (1 - share) * guess + share * spread / spread.sum(dim=-1, keepdim=True)


def guess_loss(scores: Tensor, guess: Tensor, twin: Tensor | None = None) -> Tensor:
    """How far later states are from the first guess, a mean over users (not in the paper).

    The cross-entropy to ``guess``, which does not move, with eq. 14's weights: a thought may correct it,
    but shall not forget what it knew. It is distillation (Hinton et al., 2015) from the model's own faster
    half.

    Args:
        scores: (B, l + 1, C) of s_0..s_l, or of some of them, against C candidates.
        guess: (B, 1, C) probabilities.
        twin: (B, C) candidates that do not count, for which ``guess`` is 0, or None.
    """
    if twin is not None:
        scores = scores.masked_fill(twin[:, None], -torch.inf)
    log_probs = scores.log_softmax(-1)
    if twin is not None:
        log_probs = log_probs.masked_fill(twin[:, None], 0.0)  # nothing times infinity
    losses = -(guess * log_probs).sum(dim=-1)
    return (losses * step_weights(losses)).sum(dim=1).mean()


def step_weights(losses: Tensor) -> Tensor:
    """w_0..w_l of eq. 14 for losses (B, l + 1): j / sum, so that w_0 = 0; without thoughts w_0 = 1."""
    weight = torch.arange(losses.shape[1], device=losses.device, dtype=losses.dtype)
    return weight / weight.sum() if len(weight) > 1 else weight + 1


def align_loss(states: Tensor, t: Tensor) -> Tensor:
    """|s_j - sg[t]|^2 a component, a mean over users, weights (j + 1) / sum: (B, l + 1, d) and (B, d).

    s_0 is among them, other than in eq. 14: the first residual is what it leaves of t.
    """
    gaps = (states - t.detach()[:, None]).square().mean(dim=-1)
    weight = torch.arange(1, gaps.shape[1] + 1, device=gaps.device, dtype=gaps.dtype)
    return (gaps * (weight / weight.sum())).sum(dim=1).mean()


def quantisation_loss(residual: Tensor, thought: Tensor, beta: float) -> Tensor:
    """L_Quant of eq. 15, a mean over users and steps: r_i and the embeddings o_i, both (B, l, d).

    The minus in front of eq. 15 is a misprint: it is a distance, to be made small.
    """
    table = (residual.detach() - thought).square().sum(-1)
    state = (residual - thought.detach()).square().sum(-1)
    return (table + beta * state).mean()


def state_part(
    model, tokenizer, batch: Prefixes, s: Tensor, t: Tensor, nearby: Tensor, config: SftConfig
) -> Tensor:
    """L_State against all items, or as in eq. 14 against the batch's targets.

    All items are many. So each user learns one of the states s_0..s_l, drawn by the weights of eq. 14:
    the mean is the same.

    We depart from eq. 14 in what states learn. The label of a state after a thought is the target by
    1 - ``config.first_guess_share`` and the first guess by the rest (``first_guess``, ``guess_loss``). s_0
    learns from the target alone, with the weight ``config.first_state_weight``: a guess that only its
    students move fades, and they with it. Without thoughts s_0 is guess and last state in one.

    Args:
        s: (B, l + 1, d) states; t: (B, d) what stands for the targets.
        nearby: (N, k) the items nearest by text to each.
    """
    first, place, twin = s[:, :1], batch.target, None
    if config.negatives == "batch":
        candidates, nearby = t, None
        place, twin = batch_places(batch.target)
    else:
        candidates, weight = item_table(model, tokenizer), step_weights(s[..., 0])
        wait = torch.empty_like(s[..., 0]).exponential_()  # a draw that nobody has to wait for
        j = (weight / wait).argmax(dim=1)
        s = s.gather(1, j[:, None, None].expand(-1, 1, s.shape[2]))
    scores = state_scores(model, s, candidates)
    loss = state_loss(scores, place, twin)
    if config.first_guess_share == 0 and config.first_state_weight == 0:
        return loss
    guess = state_scores(model, first, candidates)
    own = state_loss(guess, place, twin)
    if twin is not None:
        guess = guess.masked_fill(twin[:, None], -torch.inf)
    kept = guess_loss(scores, first_guess(guess, nearby, config.similar_items_share), twin)
    return (
        config.first_state_weight * own
        + (1 - config.first_guess_share) * loss
        + config.first_guess_share * kept
    )


def batch_places(items: Tensor) -> tuple[Tensor, Tensor]:
    """Each user's place among the batch's targets (B,), and other users with the same one (B, B)."""
    place = torch.arange(len(items), device=items.device)
    return place, (items[:, None] == items) & (place[:, None] != place)


def warm_up(
    model: Backbone, tokenizer, examples: Prefixes, l: int, most: int = 8192, steps: int = 300
) -> None:
    """Teach MLP_s alone to turn d_0 + ... + d_i into an estimate of t, before the first annotation.

    Without it the first thoughts correct the difference of two spaces, not a wrong guess. Everything
    but the head stays as it is, so the d_i, after greedy thoughts of the pretrained model, are
    computed once, for up to ``most`` examples.
    """
    device = examples.target.device
    examples = examples.select(torch.randperm(examples.n_examples)[:most].to(device))
    d = torch.empty(examples.n_examples, l + 1, model.config.d_model, device=device)
    model.eval()
    with torch.no_grad():
        t = targets(model, tokenizer, examples.target)
        for rows, batch in iterate_batches(examples):
            stepper = StepDecoder.start(model, tokenizer, batch.history)
            d[rows] = think_ahead(stepper, l, "greedy").hidden[:, 0].float()
    heads = [*model.state_head.parameters(), model.state_scale, model.sharpness]
    optimizer = torch.optim.AdamW([p for p in heads if p.requires_grad], lr=3e-3)
    for _ in range(steps):
        rows = torch.randint(0, examples.n_examples, (256,)).to(device)
        items, s = examples.target[rows], model.states(d[rows])
        scores = state_scores(model, s, t[rows])
        loss = state_loss(scores, *batch_places(items)) + (s - t[rows][:, None]).square().mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
