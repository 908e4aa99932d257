"""Stage 2, the straight-through estimator (section 2.3.2): gradients pass through thoughts to residuals.

Choosing the nearest code (eq. 12) has no gradient. So forward the decoder reads the code's embedding o_i, and
backward the gradient of this input goes on to r_i, as if r_i had been read (Bengio et al., 2013).
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..common.schemas import Prefixes
from ..model.backbone import Backbone
from ..model.item_representation import represent_items
from ..model.sequences import shift_right
from ..tokenizer.semantic_ids import SemanticTokenizer


def straight_through(
    model: Backbone,
    tokenizer: SemanticTokenizer,
    batch: Prefixes,
    thought: Tensor,
    cross: list[tuple[Tensor, Tensor]],
    mask: Tensor | None,
) -> Tensor:
    """Embeddings (B, l, d) of thoughts, equal to o_i, whose gradients go to r_i = MLP_r(t - s_{i-1}).

    r_i depends on the thoughts before it, so the decoder runs once for each step.

    Args:
        model: with a thinking decoder.
        tokenizer: gives the items' codes.
        batch: B users with their targets.
        thought: (B, l) annotated code tokens.
        cross: keys and values of cross-attention, one pair per layer (``Backbone.cross_keys_values``).
        mask: (B, S), True = real, or None.
    """
    t = represent_items(model, tokenizer, batch.target).float()
    inputs = shift_right(thought)  # BOS, o_1..o_{l-1}
    embedded = model.shared(thought)[:, :0]
    for i in range(thought.shape[1]):
        hidden = model.decode_groups(inputs[:, : i + 1], cross, mask, thoughts=embedded)
        r = model.residual_head(t - model.states(hidden)[:, -1])  # r_{i+1}
        o = model.shared(thought[:, i]).to(r)
        embedded = torch.cat([embedded, (r + (o - r).detach())[:, None].to(embedded)], dim=1)
    return embedded
