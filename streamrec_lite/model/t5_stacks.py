"""transformers' T5 stacks, and an encoder that spends little time on padding."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..common.schemas import BOS, PAD
from ..config.sections import BackboneConfig

MAX_REAL_SHARE = 0.5  # if at most this share of a batch is real tokens, several histories share a row


def t5_stack(config: BackboneConfig, vocab_size: int, is_decoder: bool) -> nn.Module:
    """One T5 stack without an embedding table: all stacks use ``Backbone.shared``.

    It uses torch's RMSNorm and an in-place ReLU. Values and gradients are the same; with many rows the norms
    take a quarter of the time.

    Args:
        config: sizes.
        vocab_size: V.
        is_decoder: with causal attention and cross-attention.
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
    """transformers' ``T5Config`` of one stack; dropout also acts on attention weights, as in T5."""
    from transformers import T5Config

    make: Any = T5Config  # its type signature lacks the arguments that it passes on
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
    """Encoder states (B, S, d) and mask (B, S), True = real, of embedded tokens x (B, S, d).

    On a CPU the mask is None if no position is padding: attention is faster without one. If most positions
    are padding, several histories are packed into one row; in 32 random users four fifths of the positions
    are padding. Values at padded positions are never read. On a GPU these tests would need a host
    synchronisation, so nothing is packed.
    """
    if x.device.type != "cpu":
        return encoder(inputs_embeds=x, attention_mask=real).last_hidden_state, real
    if bool(real.all()):
        return encoder(inputs_embeds=x).last_hidden_state, None
    positions = sparse_positions(real)
    if positions is None:
        return encoder(inputs_embeds=x, attention_mask=real).last_hidden_state, real
    rows, start = pack(real.sum(dim=1), x.shape[1])
    target = (start[:, None] + torch.arange(x.shape[1])).flatten()[positions]
    owner = torch.full((rows * x.shape[1],), -1).index_copy_(0, target, positions // x.shape[1])
    owner = owner.view(rows, -1)
    packed = _scatter_rows(x.flatten(0, 1).index_select(0, positions), target, rows, x.shape[1])
    same_history = owner[:, None, :, None] == owner[:, None, None, :]  # attention stays within each history
    states = encoder(inputs_embeds=packed, attention_mask=same_history).last_hidden_state
    return _scatter_rows(states.flatten(0, 1).index_select(0, target), positions, *x.shape[:2]), real


def _scatter_rows(y: Tensor, positions: Tensor, rows: int, width: int) -> Tensor:
    """A tensor (rows, width, d) with the rows y (n, d) at these flat positions (n,) and zeros elsewhere."""
    return y.new_zeros(rows * width, y.shape[1]).index_copy_(0, positions, y).view(rows, width, -1)


def sparse_positions(real: Tensor | None) -> Tensor | None:
    """Flat indices (n,) of the real tokens if at most half of the batch is real (CPU only), else None."""
    if real is None or real.device.type != "cpu":
        return None
    positions = real.flatten().nonzero()[:, 0]
    return positions if len(positions) <= MAX_REAL_SHARE * real.numel() else None


def project(layer: nn.Module, x: Tensor, positions: Tensor | None) -> Tensor:
    """``layer`` of x (B, S, d), computed only at flat ``positions`` (n,) if given; zeros elsewhere."""
    if positions is None:
        return layer(x)
    return _scatter_rows(layer(x.flatten(0, 1).index_select(0, positions)), positions, *x.shape[:2])


def pack(length: Tensor, width: int) -> tuple[int, Tensor]:
    """Pack histories of these lengths (B,) into rows of ``width``: the number of rows, and flat starts (B,).

    First fit decreasing: the longest history first, each into the first row with enough room.
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
