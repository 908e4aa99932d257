"""Does the answer depend on the thoughts? The same model answers after thoughts that it did not write.

Thoughts are a channel from the model to itself: it writes them, and its answer can read them. For each user
the model's own greedy thoughts are replaced:

    none       no thoughts: the answer follows BOS (and ANSWER)
    own        the model's own greedy thoughts, which the others are compared with
    another    the own thoughts of another user
    random     random codes
    annotated  thoughts by the residual annotator, which sees the target: a test of leaks, not of skill
    true       the steps that lead to the target, where the data set knows them

An answer that reads its thoughts becomes worse after another user's. After annotated thoughts an answer gets
better only by what they reveal of the target.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..common.errors import BadInput
from ..common.schemas import FIRST_CODE, Prefixes
from ..data.sequences import iterate_batches, sample_rows
from ..evaluation.metrics import metric_per_user, paired_bootstrap, rank_of_target
from ..inference.beam_search import answer_beams, item_log_probs
from ..inference.recommender import StreamRec
from ..inference.step_decoder import StepDecoder
from ..inference.thinking import read_thoughts, write_thoughts
from ..model.backbone import Backbone
from ..tokenizer.semantic_ids import SemanticTokenizer
from .annotator import annotate

TOP = 10  # the answers are judged by R@10 and N@10


class Answers(NamedTuple):
    """How n users' targets come out, on the CPU."""

    rank: Tensor  # (n,) int64; 1 is best, 0: not among the first 10
    nats: Tensor  # (n,) float32, -log P(target | thoughts, history)


def measure_channel(
    model: StreamRec,
    prefixes: Prefixes,
    true: Tensor | None = None,
    max_users: int = 1000,
    bootstrap: int = 2000,
) -> dict:
    """R@10, N@10 and the target's cost after each kind of thoughts, and the differences to ``own``.

    Args:
        model: a recommender that thinks.
        prefixes: n examples, on its device.
        true: (n, any) the true thoughts, code tokens, or None.
        max_users: number of examples at most; more are subsampled, as in ``compare_ways_to_think``.
        bootstrap: number of bootstrap resamples.

    Returns:
        "users", the number of users, and "after": for each kind of thoughts R@10, N@10, "nats" (the mean of
        -log P(target | thoughts, history)), "changed" (the share of thoughts that differ from the own
        thoughts at the same step; None without such steps), and "minus own", the paired bootstrap of the
        difference in R@10, N@10 and nats.
    """
    rows = sample_rows(prefixes.n_examples, max_users).to(prefixes.target.device)
    users, true = prefixes.select(rows), None if true is None else true[rows]
    thoughts = substitute_thoughts(model.model, model.tokenizer, users, model.l, true)
    answers = answers_after(model.model, model.tokenizer, users, thoughts, model.beams)
    values = {
        name: {
            "R@10": metric_per_user(found.rank, "R@10"),
            "N@10": metric_per_user(found.rank, "N@10"),
            "nats": found.nats.double(),
        }
        for name, found in answers.items()
    }
    after = {}
    for name, metrics in values.items():
        gains = {key: paired_bootstrap(x, values["own"][key], bootstrap) for key, x in metrics.items()}
        after[name] = {
            **{key: float(x.mean()) for key, x in metrics.items()},
            "changed": _changed_share(thoughts[name], thoughts["own"]),
            "minus own": {
                key: {part: gain[part] for part in ("mean_difference", "low", "high")}
                for key, gain in gains.items()
            },
        }
    return {"users": users.n_examples, "after": after}


def substitute_thoughts(
    model: Backbone,
    tokenizer: SemanticTokenizer,
    prefixes: Prefixes,
    l: int,
    true: Tensor | None = None,
    seed: int = 0,
) -> dict[str, Tensor]:
    """The thoughts of n users by kind (see the top of this module): (n, l) code tokens each, "none" (n, 0).

    Args:
        model: the backbone.
        tokenizer: semantic IDs of the catalogue.
        prefixes: n examples.
        l: thoughts per example.
        true: (n, any) the true thoughts, or None: then there are none of the kind "true".
        seed: of the random codes, and of who gets whose thoughts.
    """
    own = write_thoughts(model, tokenizer, prefixes, l)
    codes = tokenizer.m * tokenizer.K
    random = torch.randint(0, codes, own.shape, generator=torch.Generator().manual_seed(seed))
    thoughts = {
        "none": own[:, :0],
        "own": own,
        "another": own[derangement(len(own), seed).to(own.device)],
        "random": FIRST_CODE + random.to(own.device),
        "annotated": annotate(model, tokenizer, prefixes, l).thought,
    }
    return thoughts if true is None else {**thoughts, "true": true}


def derangement(n: int, seed: int = 0) -> Tensor:
    """A random permutation (n,) without a fixed point, the same one for the same seed."""
    if n < 2:
        rule = "another user's thoughts need at least two users"
        raise BadInput(f"{n} users", rule, "give more users")
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    return torch.empty_like(order).index_copy_(0, order, order.roll(1))  # one cycle through all n


@torch.inference_mode()
def answers_after(
    model: Backbone,
    tokenizer: SemanticTokenizer,
    prefixes: Prefixes,
    thoughts: dict[str, Tensor],
    beams: int = 20,
) -> dict[str, Answers]:
    """The targets' ranks and costs after each kind of thoughts. The encoder runs once a user.

    Args:
        model: the backbone.
        tokenizer: semantic IDs of the catalogue.
        prefixes: n examples.
        thoughts: name -> (n, any) code tokens.
        beams: W, number of prefixes kept at each level.
    """
    model.eval()
    n, trie = prefixes.n_examples, tokenizer.trie
    found = {name: Answers(torch.zeros(n, dtype=torch.long), torch.zeros(n)) for name in thoughts}
    for rows, batch in iterate_batches(prefixes):
        states, mask = model.encode_history(tokenizer, batch.history)
        cross_kv = model.cross_keys_values(states, "thinking", mask)
        at, target = rows.cpu(), batch.target
        for name, thought in thoughts.items():
            stepper = StepDecoder(model, states, mask, "thinking", cross_kv)
            hidden = read_thoughts(stepper, thought[rows]).answer_hidden[:, 0]
            log_prob = item_log_probs(stepper.copy(), tokenizer, hidden, target[:, None])[:, 0]
            topk = answer_beams(stepper, trie, hidden, max(beams, TOP), TOP).item
            found[name].rank[at] = rank_of_target(topk, target).cpu()
            found[name].nats[at] = -log_prob.float().cpu()
    return found


def _changed_share(thought: Tensor, own: Tensor) -> float | None:
    """Share of thoughts (n, any) that differ from ``own`` (n, l) at the same step; None: no such steps."""
    steps = min(thought.shape[1], own.shape[1])
    return float((thought[:, :steps] != own[:, :steps]).double().mean()) if steps else None
