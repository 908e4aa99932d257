"""Thinking before answering (eq. 3): l thoughts are written, then the beam looks for items.

    P(item | history) = sum over thoughts O of P(O | history) P(item | O, history)

The sum runs over the thoughts that a way of thinking comes up with: one greedy train of thought, n
sampled ones, or the n most likely ones that a beam finds.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ..common.errors import BadInput, did_you_mean
from ..common.schemas import ANSWER, BOS, FIRST_CODE, Beams, Prefixes
from ..config.sections import MAX_THOUGHTS
from ..data.sequences import iterate_batches
from ..model.backbone import Backbone
from .beam_search import answer_beams
from .sampling import draw
from .step_decoder import StepDecoder

THINK = ("none", "greedy", "sample", "beam")


class Thoughts(NamedTuple):
    """n trains of thought for each of B users.

    ``hidden`` are the decoder's own states d_0..d_l: d_i is what it has after thought i, and predicts
    the next one. d_l predicts the answer's first code.
    """

    token: Tensor  # (B, n, l) int64, code tokens: never PAD, BOS or ANSWER
    log_prob: Tensor  # (B, n) log P(thoughts | history)
    each: Tensor  # (B, n, l) its parts, log P(thought i | thoughts before, history)
    hidden: Tensor  # (B, n, l + 1, d)
    answer: Tensor  # (B, n, d), predicts the answer's first code


def think_ahead(
    stepper: StepDecoder, l: int, mode: str, n: int = 1, temperature: float = 1.0, finish: bool = True
) -> Thoughts:
    """Write l thoughts with a fresh stepper (one sequence a user).

    ``mode``: "greedy" (n must be 1), "sample" (n independent draws) or "beam" (the n most likely that
    a beam of width n finds; fewer where there are not so many). The stepper then holds n sequences a
    user, ready to answer. ``finish=False``: only tokens and log-probabilities are wanted; the states
    end with the last but one.

    Args:
        stepper: a fresh one: one sequence a user, nothing written.
        l: thoughts.
        mode: "greedy", "sample" or "beam".
        n: trains of thought.
        temperature: of the softmax over thoughts.
        finish: False: only tokens and log-probabilities are needed; the last state is left out.
    """
    if mode not in THINK[1:]:
        raise BadInput(f"think={mode!r}", "unknown way of thinking", did_you_mean(mode, THINK[1:]))
    if not 0 <= l <= MAX_THOUGHTS:
        rule = f"the number of thoughts must lie between 0 and {MAX_THOUGHTS}"
        raise BadInput(f"l={l}", rule, "correct it")
    if n < 1 or (mode == "greedy" and n > 1):
        rule = "greedy thinking has one train of thought" if n > 1 else "at least one is needed"
        raise BadInput(f"n_thoughts={n}", rule, "use think=sample or think=beam for several")
    users, device = stepper.layout.owners, stepper.layout.owner.device
    token = torch.full((users, 1), BOS, device=device)
    score = torch.zeros((users, 1), device=device)
    path = torch.zeros((users, 1, 0), dtype=torch.long, device=device)
    each = torch.zeros((users, 1, 0), device=device)
    hidden = stepper.step(token.flatten())[:, None]
    trail = [hidden]  # d_0, d_1, ..., (B, w, d) each
    if mode == "sample" and l == 0:  # n answers without a thought
        stepper.select(torch.arange(users, device=device).repeat_interleave(n))
        token, score, path, each = (x.repeat_interleave(n, dim=1) for x in (token, score, path, each))
        hidden = hidden.repeat(1, n, 1)
        trail = [hidden]
    said = None
    if not stepper.model.repeats:
        said = torch.zeros(
            (*token.shape, stepper.model.vocab_size - FIRST_CODE), dtype=torch.bool, device=device
        )
    for i in range(l):
        logits = stepper.model.thought_logits(hidden, temperature, said)  # (B, w, m*K)
        wide, codes = token.shape[1], logits.shape[-1]
        if mode == "sample":  # a user's first n thoughts are drawn from one distribution
            code, gain = (x.flatten(1) for x in draw(logits, n // wide))
            parent = (torch.arange(n, device=device) // (n // wide)).expand(users, n)
        else:
            log_probs = logits.log_softmax(-1)
            best = (score[..., None] + log_probs).flatten(1)
            best = best.topk(min(n, best.shape[1]), dim=1).indices
            parent, code = best // codes, best % codes
            gain = log_probs.flatten(1).gather(1, best)
        token = FIRST_CODE + code
        if n > 1 and (mode == "beam" or wide < n):  # else every sequence continues itself
            first = torch.arange(users, device=device)[:, None] * wide
            stepper.select((first + parent).flatten())
            score, path, each, *trail = (_gather(x, parent) for x in (score, path, each, *trail))
            said = None if said is None else _gather(said, parent)
        score = score + gain
        if said is not None:
            said = said.scatter(2, code[..., None], True)
        path = torch.cat([path, token[..., None]], dim=-1)
        each = torch.cat([each, gain[..., None]], dim=-1)
        if i == l - 1 and not finish:
            break
        hidden = stepper.step(token.flatten()).view(*token.shape, -1)
        trail.append(hidden)
    answer = hidden
    if stepper.model.mark and finish:
        answer = stepper.step(torch.full_like(token.flatten(), ANSWER)).view_as(hidden)
    return Thoughts(path, score, each, torch.stack(trail, dim=2), answer)


def _gather(x: Tensor, parent: Tensor) -> Tensor:
    """What belongs to each parent: (B, w, ...) and (B, n) -> (B, n, ...)."""
    return x[torch.arange(len(x), device=x.device)[:, None], parent]


def said_before(thought: Tensor, vocab_size: int) -> Tensor:
    """Which codes stand earlier among a row's thoughts: (R, l) -> (R, l, m*K) bool."""
    once = F.one_hot(thought - FIRST_CODE, vocab_size - FIRST_CODE)
    return (once.cumsum(1) - once).bool()


@torch.inference_mode()
def write_thoughts(
    model: Backbone,
    tokenizer,
    prefixes: Prefixes,
    l: int,
    batch_size: int | None = None,
    mode: str = "greedy",
    temperature: float = 1.0,
) -> Tensor:
    """What the model thinks by itself after each history, "greedy" or a "sample": (rows, l) code tokens.

    Args:
        model: the backbone.
        tokenizer: gives the items' codes.
        prefixes: B examples.
        l: thoughts.
        batch_size: examples at once; None: what suits the device.
        mode: "greedy" or "sample".
        temperature: of the softmax over thoughts.
    """
    model.eval()
    thought = torch.zeros(prefixes.n_examples, l, dtype=torch.long, device=prefixes.target.device)
    for rows, batch in iterate_batches(prefixes, batch_size):
        stepper = StepDecoder.start(model, tokenizer, batch.history)
        thought[rows] = think_ahead(stepper, l, mode, 1, temperature).token[:, 0]
    return thought


@torch.inference_mode()
def think_and_answer(
    model: Backbone,
    trie,
    tokens: Tensor,
    l: int,
    mode: str = "greedy",
    n: int = 1,
    beams: int = 20,
    k: int = 10,
) -> tuple[Beams, Thoughts]:
    """Answer after l thoughts: the k best items of each user, and what was thought.

    Each train of thought has a beam of its own; an item's score is the log of the sum over thoughts
    of P(thoughts) P(item | thoughts) ("sample": the mean of P(item | thoughts) over the draws, which
    estimates the same sum). An item that a thought's beam does not reach gets nothing from it.

    Args:
        model: the backbone.
        trie: the tree of all semantic IDs.
        tokens: history tokens (B, S). See ``decoding.beam_search`` for the others.
        l: thoughts.
        mode: "greedy", "sample" or "beam".
        n: trains of thought.
        beams: W, sequences kept at each level.
        k: items to return.
    """
    stepper = StepDecoder(model, *model.encode(tokens), "thinking")
    thoughts = think_ahead(stepper, l, mode, n)
    trains, wide = thoughts.token.shape[1], max(beams, k)
    last = thoughts.answer.flatten(0, 1)
    found = answer_beams(stepper, trie, last, wide, k if trains == 1 else wide)
    if trains == 1:  # one train of thought: its probability changes no order
        return found, thoughts
    weight = train_weights(thoughts, mode)
    item = found.item.view(len(tokens), -1)
    score = (found.score.view(len(tokens), trains, -1) + weight[..., None]).flatten(1)
    return add_up(item, score, k), thoughts


def train_weights(thoughts: Thoughts, mode: str) -> Tensor:
    """How much each train of thought counts among a user's n: logarithms (B, n) that sum to one.

    Independent draws count alike, whatever their probability: it has had its say in the drawing.
    """
    weight = torch.zeros_like(thoughts.log_prob) if mode == "sample" else thoughts.log_prob
    return weight.log_softmax(dim=1)


def add_up(item: Tensor, score: Tensor, k: int) -> Beams:
    """Log-sum-exp of the scores of equal items: (B, M) -> the k best items (B, k); -1 names nothing."""
    item, order = item.sort(dim=1)
    score = score.gather(1, order).masked_fill(item < 0, -torch.inf)
    new = torch.ones_like(item, dtype=torch.bool)
    new[:, 1:] = item[:, 1:] != item[:, :-1]
    group = new.long().cumsum(dim=1) - 1
    top = score.max(dim=1, keepdim=True).values.clamp_min(-1e30)
    mass = torch.zeros_like(score).scatter_add_(1, group, (score - top).exp())
    name = torch.full_like(item, -1).scatter_(1, group, item)
    score, best = (mass.log() + top).topk(min(k, mass.shape[1]), dim=1)
    item = name.gather(1, best).masked_fill(score == -torch.inf, -1)
    return Beams(item, score)
