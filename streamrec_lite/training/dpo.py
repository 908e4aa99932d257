"""Stage 2, preferences (eqs 16-18): prefer the target to an item of similar text, relative to pi_ref."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from ..common.files import write_tensors
from ..common.schemas import BOS, Prefixes
from ..data.sequences import iterate_batches
from ..inference.beam_search import item_log_probs
from ..inference.step_decoder import StepDecoder
from ..model.backbone import Backbone
from ..tokenizer.semantic_ids import SemanticTokenizer
from .checkpoint import read_checked_tensors


def dpo_loss(
    chosen: Tensor, rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor, beta: float
) -> Tensor:
    """L_DPO of eq. 18, (B,). All arguments are log-probabilities of whole items, in nats, (B,).

    The logits of eq. 16 are differences of these; the softmax over the two is a sigmoid of their difference.

    Args:
        chosen: log pi_theta(y+ | x, y_think) of the target.
        rejected: log pi_theta(y- | x, y_think) of the dispreferred item.
        ref_chosen: log pi_ref(y+ | x).
        ref_rejected: log pi_ref(y- | x).
        beta: how much the margin over pi_ref counts.
    """
    return -F.logsigmoid(beta * ((chosen - ref_chosen) - (rejected - ref_rejected)))


@torch.inference_mode()
def reference_log_probs(
    model: Backbone,
    tokenizer: SemanticTokenizer,
    prefixes: Prefixes,
    neighbours: Tensor,
    batch_size: int | None = None,
) -> Tensor:
    """log pi_ref of each example's target and of the target's neighbours: (rows, 1 + pool) float32.

    Args:
        model: gives pi_ref: its direct decoder and its encoder. It is set to ``eval``.
        tokenizer: gives the items' codes.
        prefixes: the examples.
        neighbours: (N, pool) items of similar text.
        batch_size: examples at once; None: the default of the device.
    """
    model.eval()
    table = torch.empty(prefixes.n_examples, 1 + neighbours.shape[1], device=prefixes.target.device)
    for rows, batch in iterate_batches(prefixes, batch_size):
        decoder = StepDecoder.start(model, tokenizer, batch.history, "direct")
        items = torch.cat([batch.target[:, None], neighbours[batch.target]], dim=1)
        hidden = decoder.step(torch.full_like(batch.target, BOS))
        table[rows] = item_log_probs(decoder, tokenizer, hidden, items)
    return table


def stored_reference_log_probs(
    path: Path, model: Backbone, tokenizer: SemanticTokenizer, prefixes: Prefixes, neighbours: Tensor
) -> Tensor:
    """``reference_log_probs``, read from ``path`` or computed and written now, once for all epochs.

    Args:
        path: a safetensors file.
        model: gives pi_ref.
        tokenizer: gives the items' codes.
        prefixes: the examples.
        neighbours: (N, pool) items of similar text.

    Raises:
        BadInput: the file is of other examples or of another pool.
    """
    if not path.exists():
        table = reference_log_probs(model, tokenizer, prefixes, neighbours)
        write_tensors(path, {"log_probs": table})
    shape = (prefixes.n_examples, 1 + neighbours.shape[1])
    return read_checked_tensors(path, log_probs=shape)["log_probs"].to(prefixes.target.device)
