"""An answer's probability computed in one pass, to compare step-by-step decoding with."""

from __future__ import annotations

import torch

from streamrec_lite.common.schemas import FIRST_CODE
from streamrec_lite.inference.beam_search import answer_log_probs
from streamrec_lite.model.sequences import shift_right


@torch.no_grad()
def by_teacher_forcing(model, tokenizer, tokens, thoughts, items):
    """log P(thoughts | history) and log P(item | thoughts, history), one pass a row: (B,), (B,)."""
    l = thoughts.shape[1]
    states, mask = model.encode(tokens)
    written = torch.cat([thoughts, tokenizer.tokens[items]], dim=1)
    hidden = model.decode(shift_right(written), states, mask, "thinking")
    guess = model.thought_log_probs(hidden[:, :l]).gather(-1, (thoughts - FIRST_CODE)[..., None])
    return guess.sum((1, 2)), answer_log_probs(model, tokenizer, hidden[:, l:], items).sum(1)
