"""Step-by-step decoding with a key-value cache; a user's encoder states are shared by all its sequences."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor

from ..model.backbone import Backbone
from ..model.shared_attention import SequenceTable, attend, merge_heads, split_heads
from ..tokenizer.semantic_ids import SemanticTokenizer


class StepDecoder:
    """Decodes A sequences one token at a time: at first one per user, later any number.

    It computes the same hidden states as the forward pass of the T5 stack, from the same weights, but
    arranges a user's sequences as queries against one copy of the user's keys and values.

    Args:
        model: the backbone, in ``eval`` mode.
        states: encoder states (B, S, d).
        mask: (B, S), True = real, or None.
        decoder: "direct" or "thinking".
        cross_kv: ``model.cross_keys_values`` of the states, if it has been computed already.
    """

    def __init__(
        self,
        model: Backbone,
        states: Tensor,
        mask: Tensor | None,
        decoder: str = "direct",
        cross_kv: list[tuple[Tensor, Tensor]] | None = None,
    ):
        self.model = model
        self.stack: Any = model.decoders[decoder]  # transformers' T5 stack
        self.heads, self.d_kv = model.config.num_heads, model.config.d_kv
        self.mask = None if mask is None else mask[:, None, None, :]  # (B, 1, 1, S)
        # shared by all sequences of a user
        self.cross_kv = cross_kv or model.cross_keys_values(states, decoder, mask)
        self.keys: list[list[Tensor]] = [[] for _ in self.stack.block]  # [layer][position] (A, H, d_kv)
        self.values: list[list[Tensor]] = [[] for _ in self.stack.block]
        self.bias = states.new_empty(self.heads, 0)
        self.layout = SequenceTable.one_each(len(states), states.device)
        self.shared_past: list[tuple[Tensor, Tensor]] = []  # per layer, stored by ``share``
        self.past_layout = self.layout  # which shared past each sequence continues

    @classmethod
    def start(
        cls, model: Backbone, tokenizer: SemanticTokenizer, history: Tensor, decoder: str = "thinking"
    ) -> StepDecoder:
        """A decoder for new sequences, one per history; it encodes the histories first.

        Args:
            model: the backbone, in ``eval`` mode.
            tokenizer: semantic IDs of the catalogue.
            history: (B, L) item indices, ``PAD_ITEM`` on the right.
            decoder: "direct" or "thinking".
        """
        return cls(model, *model.encode_history(tokenizer, history), decoder)

    def copy(self) -> StepDecoder:
        """A decoder with the same tokens so far; what either decodes next does not affect the other."""
        other = copy.copy(self)
        other.keys, other.values = [list(x) for x in self.keys], [list(x) for x in self.values]
        return other

    def select(self, parent: Tensor) -> None:
        """Replace the sequences by A' copies of them, ``parent`` (A',), users ascending."""
        for cache in (*self.keys, *self.values):
            for t, x in enumerate(cache):
                cache[t] = x.index_select(0, parent)
        same = self.past_layout is self.layout
        self.layout = self.layout.select(parent)
        self.past_layout = self.layout if same or not self.shared_past else self.past_layout.select(parent)

    def share(self) -> None:
        """Store the key-value cache so far once per sequence; ``select`` then no longer copies it.

        For use once, before each sequence gets many continuations of several tokens.
        """
        if self.shared_past or len(self.keys[0]) < 2:  # copying the cache of one token is as fast
            return
        pairs = zip(self.keys, self.values, strict=True)  # (A, H, d_kv, T) and (A, H, T, d_kv)
        self.shared_past = [(torch.stack(keys, dim=-1), torch.stack(values, dim=2)) for keys, values in pairs]
        self.keys, self.values = [[] for _ in self.keys], [[] for _ in self.values]
        if len(self.layout.owner) != self.layout.owners:  # several sequences per user
            self.past_layout = SequenceTable.one_each(len(self.layout.owner), self.layout.owner.device)

    def step(self, tokens: Tensor) -> Tensor:
        """Read tokens (A,), one per sequence; the hidden states (A, d) predict the next token."""
        x = self.model.shared(tokens)
        bias = self._position_bias(x.device)
        for i, block in enumerate(self.stack.block):
            x = x + self._self_attention(i, block.layer[0], x, bias)
            x = x + self._cross_attention(i, block.layer[1], x)
            x = block.layer[2](x)
        return self.stack.final_layer_norm(x)

    def _position_bias(self, device: torch.device) -> Tensor:
        """Position bias (H, t+1) of the newest position t towards 0..t; it depends only on distances."""
        t = len(self.keys[0]) + (self.shared_past[0][1].shape[2] if self.shared_past else 0)
        if t >= self.bias.shape[1]:  # compute the bias for later steps too, so that this branch is rare
            attention, n = self.stack.block[0].layer[0].SelfAttention, max(16, 2 * t)
            self.bias = attention.compute_bias(1, n, device=device, past_seen_tokens=n - 1)[0, :, 0]
        return self.bias[:, -1 - t :]

    def _self_attention(self, i: int, layer: Any, x: Tensor, bias: Tensor) -> Tensor:
        attention = layer.SelfAttention
        shape = (len(x), self.heads, self.d_kv)
        y = layer.layer_norm(x)
        self.values[i].append(attention.v(y).view(shape))
        if len(self.values[i]) == 1 and not self.shared_past:  # softmax over one position: weight 1
            self.keys[i].append(attention.k(y).view(shape))
            return attention.o(self.values[i][0].flatten(1))
        query = attention.q(y)
        self.keys[i].append(attention.k(y).view(shape))
        # for a few positions, sums of products are faster than many small matrix products
        scores = torch.stack([(query.view(shape) * key).sum(-1) for key in self.keys[i]], dim=-1)
        n_past = 0
        if self.shared_past:
            keys = self.past_layout.for_rows(self.shared_past[i][0])
            past_scores = split_heads(self.past_layout.to_table(query), self.heads) @ keys  # (R, H, W, T)
            n_past = past_scores.shape[-1]
            past_scores = self.past_layout.from_table(merge_heads(past_scores)).view(
                len(x), self.heads, n_past
            )
            scores = torch.cat([past_scores, scores], dim=-1)
        weights = (scores + bias).float().softmax(-1).type_as(query)  # (A, H, t+1)
        parts = [weights[..., n_past + t, None] * value for t, value in enumerate(self.values[i])]
        mixed = sum(parts[1:], parts[0]).flatten(1)
        if self.shared_past:
            past_weights = split_heads(
                self.past_layout.to_table(weights[..., :n_past].flatten(1)), self.heads
            )
            past_values = self.past_layout.for_rows(self.shared_past[i][1])
            mixed = mixed + self.past_layout.from_table(merge_heads(past_weights @ past_values))
        return attention.o(mixed)

    def _cross_attention(self, i: int, layer: Any, x: Tensor) -> Tensor:
        attention = layer.EncDecAttention
        query = self.layout.to_table(attention.q(layer.layer_norm(x)))
        keys, values = (self.layout.for_rows(x) for x in self.cross_kv[i])
        mask = None if self.mask is None else self.layout.for_rows(self.mask)
        return attention.o(self.layout.from_table(attend(query, keys, values, mask)))
