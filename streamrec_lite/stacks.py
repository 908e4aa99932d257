"""transformers' T5 stacks: their sizes, and an encoder that computes little of what is only padding."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .config import BackboneConfig
from .schemas import BOS, PAD

SPARSE = 0.5  # where no more than this share of the places are real, histories share rows


def t5_config(config: BackboneConfig, vocab_size: int, is_decoder: bool):
    """transformers' configuration of one stack; dropout also acts on attention weights, as in T5."""
    from transformers import T5Config

    return T5Config(
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
    filled = int(real.sum())
    if filled == real.numel():
        return encoder(inputs_embeds=x).last_hidden_state, None
    if filled > SPARSE * real.numel():
        return encoder(inputs_embeds=x, attention_mask=real).last_hidden_state, real
    there = real.flatten().nonzero()[:, 0]
    rows, place = pack(real.sum(dim=1), x.shape[1])
    place = (place[:, None] + torch.arange(x.shape[1])).flatten()[there]
    owner = torch.full((rows * x.shape[1],), -1).index_copy_(0, place, there // x.shape[1])
    owner = owner.view(rows, -1)
    packed = x.new_zeros(owner.numel(), x.shape[2]).index_copy(0, place, x.flatten(0, 1)[there])
    together = owner[:, None, :, None] == owner[:, None, None, :]  # nobody reads a neighbour's history
    states = encoder(inputs_embeds=packed.view(rows, *x.shape[1:]), attention_mask=together)
    states = states.last_hidden_state.flatten(0, 1)[place]
    return states.new_zeros(x.shape).flatten(0, 1).index_copy(0, there, states).view(x.shape), real


def pack(length: Tensor, width: int) -> tuple[int, Tensor]:
    """Histories of these lengths (B,), side by side in rows of ``width``: how many rows, and each start.

    Each goes into the first row that has room, the longest first.
    """
    room, first = [], [0] * len(length)
    for i in length.argsort(descending=True, stable=True).tolist():
        need = int(length[i])
        row = next((r for r, left in enumerate(room) if left >= need), len(room))
        if row == len(room):
            room.append(width)
        first[i] = row * width + width - room[row]
        room[row] -= need
    return len(room), torch.tensor(first)
