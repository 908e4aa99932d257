"""Decoding one token at a time with a key-value cache; one copy of the encoder states for each user."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor

from ..model.backbone import Backbone
from ..model.shared_attention import SequenceTable, attend, merge_heads, split_heads
from ..tokenizer.semantic_ids import SemanticTokenizer


class StepDecoder:
    """Decodes A sequences one token at a time: at first one for each user, later any number.

    It uses the weights of a T5 stack with another layout (a user's sequences are queries against one copy of
    the keys and values). A test checks that it gives the same states as the stack's own forward pass.

    Args:
        model: the backbone, in ``eval`` mode.
        states: encoder states (B, S, d).
        mask: (B, S), True = real, or None.
        decoder: "direct" or "thinking".
        cross: ``model.cross_keys_values`` of the states, if the caller has them already.
    """

    def __init__(
        self,
        model: Backbone,
        states: Tensor,
        mask: Tensor | None,
        decoder: str = "direct",
        cross: list[tuple[Tensor, Tensor]] | None = None,
    ):
        self.model = model
        self.stack: Any = model.decoders[decoder]  # transformers' T5 stack
        self.heads, self.d_kv = model.config.num_heads, model.config.d_kv
        self.mask = None if mask is None else mask[:, None, None, :]  # (B, 1, 1, S)
        self.cross = cross or model.cross_keys_values(
            states, decoder, mask
        )  # shared by all sequences of a user
        self.keys: list[list[Tensor]] = [[] for _ in self.stack.block]  # [layer][position] (A, H, d_kv)
        self.values: list[list[Tensor]] = [[] for _ in self.stack.block]
        self.bias = states.new_empty(self.heads, 0)
        self.layout = SequenceTable.one_each(len(states), states.device)
        self.past: list[tuple[Tensor, Tensor]] = []  # for each layer the keys and values that ``share`` moved
        self.past_layout = self.layout  # which shared past each sequence continues

    @classmethod
    def start(
        cls, model: Backbone, tokenizer: SemanticTokenizer, history: Tensor, decoder: str = "thinking"
    ) -> StepDecoder:
        """A decoder of encoded histories, with nothing written yet.

        Args:
            model: the backbone, in ``eval`` mode.
            tokenizer: gives the items' codes.
            history: (B, L) item indices, ``PAD_ITEM`` on the right.
            decoder: "direct" or "thinking".
        """
        return cls(model, *model.encode_history(tokenizer, history), decoder)

    def copy(self) -> StepDecoder:
        """An independent decoder that has written the same tokens."""
        other = copy.copy(self)
        other.keys, other.values = [list(x) for x in self.keys], [list(x) for x in self.values]
        return other

    def select(self, parent: Tensor) -> None:
        """Replace the sequences by continuations of ``parent`` (A',), indices with users ascending."""
        for cache in (*self.keys, *self.values):
            for t, x in enumerate(cache):
                cache[t] = x.index_select(0, parent)
        same = self.past_layout is self.layout
        self.layout = self.layout.select(parent)
        self.past_layout = self.layout if same or not self.past else self.past_layout.select(parent)

    def share(self) -> None:
        """Share the cache so far: all continuations of a sequence then attend to one copy of it.

        Useful once, before many continuations of several tokens.
        """
        if self.past or len(self.keys[0]) < 2:  # to copy a single token is as fast
            return
        pairs = zip(self.keys, self.values, strict=True)  # (A, H, d_kv, T) and (A, H, T, d_kv)
        self.past = [(torch.stack(keys, dim=-1), torch.stack(values, dim=2)) for keys, values in pairs]
        self.keys, self.values = [[] for _ in self.keys], [[] for _ in self.values]
        if len(self.layout.owner) != self.layout.owners:  # several sequences a user: each has its own past
            self.past_layout = SequenceTable.one_each(len(self.layout.owner), self.layout.owner.device)

    def step(self, tokens: Tensor) -> Tensor:
        """Hidden states (A, d) that predict the next token, after tokens (A,), one for each sequence."""
        x = self.model.shared(tokens)
        bias = self._position_bias(x.device)
        for i, block in enumerate(self.stack.block):
            x = x + self._self_attention(i, block.layer[0], x, bias)
            x = x + self._cross_attention(i, block.layer[1], x)
            x = block.layer[2](x)
        return self.stack.final_layer_norm(x)

    def _position_bias(self, device: torch.device) -> Tensor:
        """Bias of the newest position towards positions 0..t: (H, t+1). It depends only on distances."""
        t = len(self.keys[0]) + (self.past[0][1].shape[2] if self.past else 0)
        if t >= self.bias.shape[1]:  # compute the bias for later steps too, so that this branch is rare
            attention, n = self.stack.block[0].layer[0].SelfAttention, max(16, 2 * t)
            self.bias = attention.compute_bias(1, n, device=device, past_seen_tokens=n - 1)[0, :, 0]
        return self.bias[:, -1 - t :]

    def _self_attention(self, i: int, layer: Any, x: Tensor, bias: Tensor) -> Tensor:
        attention = layer.SelfAttention
        shape = (len(x), self.heads, self.d_kv)
        y = layer.layer_norm(x)
        self.values[i].append(attention.v(y).view(shape))
        if len(self.values[i]) == 1 and not self.past:  # a softmax over one position: its weight is one
            self.keys[i].append(attention.k(y).view(shape))
            return attention.o(self.values[i][0].flatten(1))
        query = attention.q(y)
        self.keys[i].append(attention.k(y).view(shape))
        # with few positions, products summed position by position are faster than many tiny matmuls
        scores = torch.stack([(query.view(shape) * key).sum(-1) for key in self.keys[i]], dim=-1)
        before = 0
        if self.past:
            keys = self.past_layout.for_rows(self.past[i][0])
            past_scores = split_heads(self.past_layout.to_table(query), self.heads) @ keys  # (R, H, W, T)
            before = past_scores.shape[-1]
            past_scores = self.past_layout.from_table(merge_heads(past_scores)).view(
                len(x), self.heads, before
            )
            scores = torch.cat([past_scores, scores], dim=-1)
        weights = (scores + bias).float().softmax(-1).type_as(query)  # (A, H, t+1)
        parts = [weights[..., before + t, None] * value for t, value in enumerate(self.values[i])]
        mixed = sum(parts[1:], parts[0]).flatten(1)
        if self.past:
            past_weights = split_heads(
                self.past_layout.to_table(weights[..., :before].flatten(1)), self.heads
            )
            mixed = mixed + self.past_layout.from_table(
                merge_heads(past_weights @ self.past_layout.for_rows(self.past[i][1]))
            )
        return attention.o(mixed)

    def _cross_attention(self, i: int, layer: Any, x: Tensor) -> Tensor:
        attention = layer.EncDecAttention
        query = self.layout.to_table(attention.q(layer.layer_norm(x)))
        keys, values = (self.layout.for_rows(x) for x in self.cross[i])
        mask = None if self.mask is None else self.layout.for_rows(self.mask)
        return attention.o(self.layout.from_table(attend(query, keys, values, mask)))
