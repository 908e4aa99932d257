"""Thinking before answering (eq. 3): the model writes l thoughts, then a beam search finds items.

    P(item | history) = sum over O of P(O | history) P(item | O, history)

O is a sequence of l thoughts, a *train of thought*. The sum runs over the ones that the thinking mode
generates: one greedy train of thought, n sampled ones, or the n most likely ones of a beam search.
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
from ..tokenizer.semantic_ids import SemanticTokenizer
from ..tokenizer.trie import Trie
from .beam_search import answer_beams
from .sampling import sample_categorical
from .step_decoder import StepDecoder

THINK_MODES = ("none", "greedy", "sample", "beam")


class Thoughts(NamedTuple):
    """n trains of thought for each of B users.

    The hidden states are d_0..d_l: d_0 follows BOS, d_i follows thought i. Each predicts the next thought.
    """

    token: Tensor  # (B, n, l) int64, code tokens: never PAD, BOS or ANSWER
    log_prob: Tensor  # (B, n) log P(thoughts | history)
    token_log_prob: Tensor  # (B, n, l) log P(thought i | previous thoughts, history)
    hidden: Tensor  # (B, n, l + 1, d)
    answer_hidden: Tensor  # (B, n, d), predicts the answer's first code: d_l, or the state after ANSWER


def generate_thoughts(
    stepper: StepDecoder,
    l: int,
    mode: str,
    n: int = 1,
    temperature: float = 1.0,
    last_state: bool = True,
) -> Thoughts:
    """n trains of thought per user, of l thoughts each.

    Afterwards the stepper holds n sequences per user, ready for the answer.

    Args:
        stepper: a new decoder: one sequence per user, no tokens yet.
        l: thoughts per train of thought.
        mode: "greedy" (n must be 1), "sample" (n independent samples) or "beam" (the n most likely ones that
            a beam search of width n finds; fewer if there are not so many).
        n: trains of thought per user.
        temperature: of the softmax over thoughts.
        last_state: False saves the last decoder step; the hidden states then end with d_{l-1}, and the
            stepper is not ready for the answer.

    Raises:
        BadInput: an unknown mode, or l or n out of range.
    """
    _check_options(l, mode, n)
    users, device = stepper.layout.owners, stepper.layout.owner.device
    token = torch.full((users, 1), BOS, device=device)
    score = torch.zeros((users, 1), device=device)
    thought = torch.zeros((users, 1, 0), dtype=torch.long, device=device)
    token_log_prob = torch.zeros((users, 1, 0), device=device)
    hidden = stepper.step(token.flatten())[:, None]
    if mode == "sample" and l == 0:  # n answers without thoughts
        stepper.select(torch.arange(users, device=device).repeat_interleave(n))
        token, score, thought, token_log_prob = (
            x.repeat_interleave(n, dim=1) for x in (token, score, thought, token_log_prob)
        )
        hidden = hidden.repeat(1, n, 1)
    states = [hidden]  # d_0, d_1, ..., each (B, w, d)
    excluded = None
    if not stepper.model.may_repeat_thoughts:
        excluded = torch.zeros(
            (*token.shape, stepper.model.vocab_size - FIRST_CODE), dtype=torch.bool, device=device
        )
    for i in range(l):
        logits = stepper.model.thought_logits(hidden, temperature, excluded)  # (B, w, m*K)
        width, codes = token.shape[1], logits.shape[-1]
        if mode == "sample":  # the n first thoughts of a user are sampled from one distribution
            code, gain = (x.flatten(1) for x in sample_categorical(logits, n // width))
            parent = (torch.arange(n, device=device) // (n // width)).expand(users, n)
        else:
            log_probs = logits.log_softmax(-1)
            best = (score[..., None] + log_probs).flatten(1)
            best = best.topk(min(n, best.shape[1]), dim=1).indices
            parent, code = best // codes, best % codes
            gain = log_probs.flatten(1).gather(1, best)
        token = FIRST_CODE + code
        if n > 1 and (mode == "beam" or width < n):  # otherwise each sequence has one continuation
            first = torch.arange(users, device=device)[:, None] * width
            stepper.select((first + parent).flatten())
            score, thought, token_log_prob, *states = (
                _gather(x, parent) for x in (score, thought, token_log_prob, *states)
            )
            excluded = None if excluded is None else _gather(excluded, parent)
        score = score + gain
        if excluded is not None:
            excluded = excluded.scatter(2, code[..., None], True)
        thought = torch.cat([thought, token[..., None]], dim=-1)
        token_log_prob = torch.cat([token_log_prob, gain[..., None]], dim=-1)
        if i == l - 1 and not last_state:
            break
        hidden = stepper.step(token.flatten()).view(*token.shape, -1)
        states.append(hidden)
    answer = _read_answer_token(stepper, hidden) if last_state else hidden
    return Thoughts(thought, score, token_log_prob, torch.stack(states, dim=2), answer)


def _read_answer_token(stepper: StepDecoder, hidden: Tensor) -> Tensor:
    """``answer_hidden`` (B, n, d): the states after ANSWER, or d_l itself if the model does not read it."""
    if not stepper.model.reads_answer_token:
        return hidden
    token = torch.full((hidden[..., 0].numel(),), ANSWER, device=hidden.device)
    return stepper.step(token).view_as(hidden)


def read_thoughts(stepper: StepDecoder, thought: Tensor) -> Thoughts:
    """Read given thoughts (B, l), code tokens, in place of generating some: one train of thought per user.

    Afterwards the stepper is ready for the answer. The model's own greedy thoughts give the hidden states of
    ``generate_thoughts``, bit for bit. A thought that the model may not repeat has log-probability -inf.
    """
    model, start = stepper.model, torch.full((len(thought), 1), BOS, device=thought.device)
    tokens = torch.cat([start, thought], dim=1)
    hidden = torch.stack([stepper.step(token) for token in tokens.T], dim=1)  # d_0..d_l, (B, l + 1, d)
    excluded = None if model.may_repeat_thoughts else earlier_codes(thought, model.vocab_size)
    log_prob = model.thought_log_probs(hidden[:, :-1], excluded=excluded)
    token_log_prob = log_prob.gather(-1, (thought - FIRST_CODE)[..., None])[..., 0]
    answer = _read_answer_token(stepper, hidden[:, -1:])
    log_prob = token_log_prob.sum(dim=1, keepdim=True)
    return Thoughts(thought[:, None], log_prob, token_log_prob[:, None], hidden[:, None], answer)


def _check_options(l: int, mode: str, n: int) -> None:
    """``BadInput`` for an unknown mode, or for l or n out of range."""
    if mode not in THINK_MODES[1:]:
        raise BadInput(f"think={mode!r}", "unknown way of thinking", did_you_mean(mode, THINK_MODES[1:]))
    if not 0 <= l <= MAX_THOUGHTS:
        rule = f"the number of thoughts must lie between 0 and {MAX_THOUGHTS}"
        raise BadInput(f"l={l}", rule, "correct it")
    if n < 1 or (mode == "greedy" and n > 1):
        rule = "greedy thinking has one train of thought" if n > 1 else "at least one is needed"
        raise BadInput(f"n_thoughts={n}", rule, "use think=sample or think=beam for several")


def _gather(x: Tensor, parent: Tensor) -> Tensor:
    """Rows (B, n, ...) of x (B, w, ...) at the indices ``parent`` (B, n)."""
    return x[torch.arange(len(x), device=x.device)[:, None], parent]


def earlier_codes(thought: Tensor, vocab_size: int) -> Tensor:
    """True (R, l, m*K) for codes that occur earlier among the thoughts (R, l) of a row."""
    once = F.one_hot(thought - FIRST_CODE, vocab_size - FIRST_CODE)
    return (once.cumsum(1) - once).bool()


@torch.inference_mode()
def write_thoughts(
    model: Backbone,
    tokenizer: SemanticTokenizer,
    prefixes: Prefixes,
    l: int,
    batch_size: int | None = None,
    mode: str = "greedy",
    temperature: float = 1.0,
) -> Tensor:
    """The model's own thoughts (n, l), code tokens, after the histories of n examples.

    Args:
        model: the backbone.
        tokenizer: semantic IDs of the catalogue.
        prefixes: n examples.
        l: thoughts per example.
        batch_size: examples per batch; None: a default for the device.
        mode: "greedy" or "sample".
        temperature: of the softmax over thoughts.
    """
    model.eval()
    thought = torch.zeros(prefixes.n_examples, l, dtype=torch.long, device=prefixes.target.device)
    for rows, batch in iterate_batches(prefixes, batch_size):
        stepper = StepDecoder.start(model, tokenizer, batch.history)
        thought[rows] = generate_thoughts(stepper, l, mode, 1, temperature).token[:, 0]
    return thought


@torch.inference_mode()
def think_and_answer(
    model: Backbone,
    trie: Trie,
    tokens: Tensor,
    l: int,
    mode: str = "greedy",
    n: int = 1,
    beams: int = 20,
    k: int = 10,
    exclude: Tensor | None = None,
) -> tuple[Beams, Thoughts]:
    """The k best items of each user after l thoughts (eq. 3), and the thoughts.

    A separate beam search follows each train of thought. The score of an item is the log of the sum over
    trains of thought of P(thoughts) P(item | thoughts). In mode "sample" it is the log of the mean of
    P(item | thoughts), an estimate of the same sum. A beam search that does not find an item adds nothing to
    its sum. With one train of thought the score is log P(item | thoughts, history).

    Args:
        model: the backbone.
        trie: the trie of all semantic IDs.
        tokens: (B, S) history tokens, PAD on the right.
        l: thoughts per train of thought.
        mode: "greedy", "sample" or "beam".
        n: trains of thought per user.
        beams: W, number of prefixes kept at each level.
        k: number of items per user.
        exclude: (B, E) items that are left out, -1 is no item (see ``answer_beams``); None: none.
    """
    stepper = StepDecoder(model, *model.encode(tokens), "thinking")
    thoughts = generate_thoughts(stepper, l, mode, n)
    trains, width = thoughts.token.shape[1], max(beams, k)
    last = thoughts.answer_hidden.flatten(0, 1)
    if exclude is not None:
        exclude = exclude.repeat_interleave(trains, dim=0)
    found = answer_beams(stepper, trie, last, width, k if trains == 1 else width, exclude)
    if trains == 1:  # the probability of the only train of thought does not change the order
        return found, thoughts
    weight = mixture_weights(thoughts, mode)
    item = found.item.view(len(tokens), -1)
    score = (found.score.view(len(tokens), trains, -1) + weight[..., None]).flatten(1)
    return sum_over_thoughts(item, score, k), thoughts


def mixture_weights(thoughts: Thoughts, mode: str) -> Tensor:
    """Logarithms (B, n) of the weights of a user's n trains of thought; the weights sum to one.

    Samples have equal weights: likely thoughts are already sampled more often.
    """
    weight = torch.zeros_like(thoughts.log_prob) if mode == "sample" else thoughts.log_prob
    return weight.log_softmax(dim=1)


def sum_over_thoughts(item: Tensor, score: Tensor, k: int) -> Beams:
    """The k best items (B, k) by the log-sum-exp of their scores (B, M); in ``item`` (B, M) -1 is no item."""
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
