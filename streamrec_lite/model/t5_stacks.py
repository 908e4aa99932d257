"""transformers' T5 stacks, and an encoder that computes little of what is only padding."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..common.schemas import BOS, PAD
from ..config.sections import BackboneConfig

SPARSE = 0.5  # where no more than this share of the places are real, histories share rows


def t5_stack(config: BackboneConfig, vocab_size: int, is_decoder: bool) -> nn.Module:
    """One stack, embedding nothing by itself: ``Backbone.shared`` does for all, under one name.

    Its norms are torch's, and its ReLU overwrites what it reads: the same numbers and gradients, the norms
    in a fourth of the time where rows are many.
    """
    from transformers.models.t5.modeling_t5 import T5DenseActDense, T5LayerNorm, T5Stack

    stack: Any = T5Stack(t5_config(config, vocab_size, is_decoder))
    stack.embed_tokens = None
    for module in list(stack.modules()):
        if isinstance(module, T5DenseActDense):
            module.act = nn.ReLU(inplace=True)
        for name, child in module.named_children():
            if isinstance(child, T5LayerNorm):
                setattr(module, name, nn.RMSNorm(config.d_model, eps=child.variance_epsilon))
    return stack


def t5_config(config: BackboneConfig, vocab_size: int, is_decoder: bool) -> Any:
    """transformers' configuration of one stack; dropout also acts on attention weights, as in T5."""
    from transformers import T5Config

    make: Any = T5Config  # its signature leaves out what it passes on
    return make(
        vocab_size=vocab_size,
        d_model=config.d_model,
        d_kv=config.d_kv,
        d_ff=config.d_ff,
        num_layers=(is_decoder and config.decoder_layers) or config.num_layers,
        num_heads=config.num_heads,
        dropout_rate=config.dropout,
        feed_forward_proj="relu",
        is_decoder=is_decoder,
        is_encoder_decoder=False,
        use_cache=False,
        pad_token_id=PAD,
        decoder_start_token_id=BOS,
        attn_implementation="sdpa",
    )


def run_encoder(encoder: nn.Module, x: Tensor, real: Tensor) -> tuple[Tensor, Tensor | None]:
    """Embedded tokens x (B, S, d), where ``real`` (B, S) -> states (B, S, d) and a mask (B, S), True = real.

    On a CPU the mask is None where no position is padded, which spares the attention a mask, and where
    most are, several histories share a row: of 32 users drawn at random, four fifths of the places are
    padding. What stands in padded places is never read. A GPU would have to be waited for to know either.
    """
    if x.device.type != "cpu":
        return encoder(inputs_embeds=x, attention_mask=real).last_hidden_state, real
    if bool(real.all()):
        return encoder(inputs_embeds=x).last_hidden_state, None
    there = sparse_positions(real)
    if there is None:
        return encoder(inputs_embeds=x, attention_mask=real).last_hidden_state, real
    rows, place = pack(real.sum(dim=1), x.shape[1])
    place = (place[:, None] + torch.arange(x.shape[1])).flatten()[there]
    owner = torch.full((rows * x.shape[1],), -1).index_copy_(0, place, there // x.shape[1])
    owner = owner.view(rows, -1)
    packed = _put(x.flatten(0, 1).index_select(0, there), place, rows, x.shape[1])
    together = owner[:, None, :, None] == owner[:, None, None, :]  # nobody reads a neighbour's history
    states = encoder(inputs_embeds=packed, attention_mask=together).last_hidden_state
    return _put(states.flatten(0, 1).index_select(0, place), there, *x.shape[:2]), real


def _put(y: Tensor, place: Tensor, rows: int, width: int) -> Tensor:
    """(n, d) -> (rows, width, d): y at these places, counted through, zeros everywhere else."""
    return y.new_zeros(rows * width, y.shape[1]).index_copy_(0, place, y).view(rows, width, -1)


def sparse_positions(real: Tensor | None) -> Tensor | None:
    """Flat indices (n,) of the real tokens if at most half of the batch is real (CPU only), else None."""
    if real is None or real.device.type != "cpu":
        return None
    there = real.flatten().nonzero()[:, 0]
    return there if len(there) <= SPARSE * real.numel() else None


def project(layer: nn.Module, x: Tensor, there: Tensor | None) -> Tensor:
    """``layer`` of x (B, S, d); where ``there`` is given, zeros everywhere else."""
    if there is None:
        return layer(x)
    return _put(layer(x.flatten(0, 1).index_select(0, there)), there, *x.shape[:2])


def pack(length: Tensor, width: int) -> tuple[int, Tensor]:
    """Histories of these lengths (B,), side by side in rows of ``width``: how many rows, and each start.

    Each goes into the first row that has room, the longest first.
    """
    room: list[int] = []
    first = [0] * len(length)
    for i in length.argsort(descending=True, stable=True).tolist():
        need = int(length[i])
        row = next((r for r, left in enumerate(room) if left >= need), len(room))
        if row == len(room):
            room.append(width)
        first[i] = row * width + width - room[row]
        room[row] -= need
    return len(room), torch.tensor(first)
