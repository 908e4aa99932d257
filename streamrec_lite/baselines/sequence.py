"""Parts of all neural baselines: item embeddings, full ranking, the loss over the whole catalogue.

Every model maps a history to a state (B, d). An item's score is the dot product of the state and the item's
embedding, which is also its input embedding. No negatives are sampled: the loss is the cross-entropy over
all N items, and all N items are ranked.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..common.schemas import PAD_ITEM, Prefixes
from ..evaluation.new_items import best_items

INIT_STD = 0.02  # standard deviation of initial weights, as in BERT


class ItemModel(nn.Module):
    """A recommender with item embeddings (N, d); a subclass adds ``state(prefixes) -> (B, d)``."""

    def __init__(self, n_items: int, d: int):
        super().__init__()
        self.items = nn.Embedding(n_items, d)

    def state(self, prefixes: Prefixes) -> Tensor:
        """The state after each history: (B, d)."""
        raise NotImplementedError

    def scores(self, prefixes: Prefixes) -> Tensor:
        """Scores of all items after each history: (B, N)."""
        return self.state(prefixes) @ self.items.weight.T

    def loss(self, prefixes: Prefixes) -> Tensor:
        """Mean of -log softmax of the target's score among all items."""
        return F.cross_entropy(self.scores(prefixes).float(), prefixes.target)

    def topk(self, prefixes: Prefixes, k: int, exclude: Tensor | None = None) -> Tensor:
        """The k best items (B, k), best first, without dropout; -1 where there are fewer.

        ``exclude`` (B, E) items that are left out, -1 is no item; None: none.
        """
        return best_items(self.eval().scores(prefixes), k, exclude)


def init_weights(module: nn.Module) -> None:
    """For ``Module.apply``: small normal weights, biases 0; recurrent weights keep torch's initial values."""
    if isinstance(module, (nn.Linear, nn.Embedding, nn.MultiheadAttention)):
        for name, parameter in module.named_parameters(recurse=False):
            nn.init.zeros_(parameter) if "bias" in name else nn.init.normal_(parameter, std=INIT_STD)


def pad_left(history: Tensor, length: Tensor) -> Tensor:
    """Histories (B, L), padded on the left instead of the right: the newest item is in the last column.

    ``length`` (B,) is the number of items of each.
    """
    width = history.shape[1]
    source = torch.arange(width, device=history.device) - (width - length)[:, None]
    return history.gather(1, source.clamp_min(0)).masked_fill(source < 0, PAD_ITEM)


class ItemTransformer(nn.Module):
    """A transformer over embedded items, causal (SASRec) or bidirectional (BERT4Rec).

    A position is counted from the end of the history. This is equal to SASRec, where all histories are
    padded on the left to one length.

    Args:
        d: width of items and states.
        layers: transformer layers.
        heads: attention heads of each layer.
        dropout: of the embeddings and in the layers.
        max_length: of a sequence.
        causal: a position attends to itself and earlier positions alone.
    """

    def __init__(self, d: int, layers: int, heads: int, dropout: float, max_length: int, causal: bool):
        super().__init__()
        block = nn.TransformerEncoderLayer(d, heads, 4 * d, dropout, activation="gelu", batch_first=True)
        self.positions, self.causal, self.heads = nn.Embedding(max_length, d), causal, heads
        self.input_norm = nn.Sequential(nn.LayerNorm(d), nn.Dropout(dropout))
        self.blocks = nn.TransformerEncoder(block, layers, enable_nested_tensor=False)

    def forward(self, x: Tensor, is_real: Tensor, layer_inputs: list[Tensor] | None = None) -> Tensor:
        """States (B, L, d) of embedded items.

        Args:
            x: (B, L, d), newest item last.
            is_real: (B, L), True = real.
            layer_inputs: an empty list that gets the input (B, L, d) of each layer, for ``step``; or None.
        """
        width = x.shape[1]
        distance = torch.arange(width - 1, -1, -1, device=x.device)
        x, blocked = self.input_norm(x + self.positions(distance)), self._attention_mask(is_real)
        for layer in self.blocks.layers:
            if layer_inputs is not None:
                layer_inputs.append(x)
            x = layer(x, src_mask=blocked)
        return x

    def step(self, x: Tensor, is_real: Tensor, layer_inputs: list[Tensor]) -> Tensor:
        """The state (B, 1, d) of one more input at the end of the sequence.

        Earlier positions do not attend to it, so only the new position is computed.

        Args:
            x: (B, 1, d), the new input.
            is_real: (B, L + 1), True = real, the new position included.
            layer_inputs: the layers' inputs (B, L, d) so far; each grows by the new position.
        """
        x = self.input_norm(x)
        for i, layer in enumerate(self.blocks.layers):
            layer_inputs[i] = torch.cat([layer_inputs[i], x], dim=1)
            attended, _ = layer.self_attn(
                x, layer_inputs[i], layer_inputs[i], key_padding_mask=~is_real, need_weights=False
            )
            x = layer.norm1(x + layer.dropout1(attended))
            x = layer.norm2(
                x + layer.dropout2(layer.linear2(layer.dropout(layer.activation(layer.linear1(x)))))
            )
        return x

    def _attention_mask(self, is_real: Tensor) -> Tensor | None:
        """True where attention is not allowed: (L, L), or (B * heads, L, L) if lengths differ.

        Every position attends to itself, so that the softmax is defined for padding, too.
        """
        width = is_real.shape[1]
        ones = torch.ones(width, width, dtype=torch.bool, device=is_real.device)
        future = ones.triu(1) if self.causal else torch.zeros_like(ones)
        if bool(is_real.all()):
            return future if self.causal else None
        diagonal = torch.eye(width, dtype=torch.bool, device=is_real.device)
        blocked = future | (~is_real[:, None, :] & ~diagonal)
        return blocked.repeat_interleave(self.heads, dim=0)
