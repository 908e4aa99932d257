"""Stage 2, preferences (eqs 16-18): the target over an item of similar text, by more than pi_ref has it."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ..common.schemas import BOS, Prefixes
from ..data.sequences import iterate_batches
from ..inference.beam_search import item_log_probs
from ..inference.step_decoder import StepDecoder
from ..model.backbone import Backbone


def dpo_loss(
    chosen: Tensor, rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor, beta: float
) -> Tensor:
    """L_DPO of eq. 18, all arguments and the result (B,), log-probabilities of whole items in nats.

    chosen is log pi_theta(y+ | x, y_think), ref_chosen log pi_ref(y+ | x), so that eq. 16's logit+ is
    their difference; likewise for y-. The softmax over two logits is a sigmoid of their difference.
    """
    return -F.logsigmoid(beta * ((chosen - ref_chosen) - (rejected - ref_rejected)))


@torch.inference_mode()
def reference_log_probs(
    model: Backbone, tokenizer, prefixes: Prefixes, neighbours: Tensor, batch_size: int | None = None
) -> Tensor:
    """log pi_ref of each example's target and of the target's neighbours: (rows, 1 + pool) float32.

    pi_ref is the direct decoder with its encoder; it never changes, so this is computed once.

    Args:
        neighbours: (N, pool) items of similar text.
    """
    model.eval()
    table = torch.empty(prefixes.n_examples, 1 + neighbours.shape[1], device=prefixes.target.device)
    for rows, batch in iterate_batches(prefixes, batch_size):
        stepper = StepDecoder.start(model, tokenizer, batch.history, "direct")
        items = torch.cat([batch.target[:, None], neighbours[batch.target]], dim=1)
        hidden = stepper.step(torch.full_like(batch.target, BOS))
        table[rows] = item_log_probs(stepper, tokenizer, hidden, items)
    return table
