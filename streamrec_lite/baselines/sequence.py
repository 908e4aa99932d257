"""What the neural baselines share: a table of items, full ranking, the loss over the whole catalogue.

Every model reads a history and returns a state (B, d); an item's score is the dot product with its row
of the one table that the history was read with. Nothing is sampled: the loss is the cross-entropy over
all N items, the ranking is over all of them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..common.schemas import PAD_ITEM, Prefixes

INIT = 0.02  # deviation of all tables and matrices at the start, as in BERT


class ItemModel(nn.Module):
    """The catalogue as a table (N, d); a model adds ``state(prefixes) -> (B, d)``."""

    def __init__(self, n_items: int, d: int):
        super().__init__()
        self.items = nn.Embedding(n_items, d)

    def state(self, prefixes: Prefixes) -> Tensor:
        """What scores the items after each history: (B, d)."""
        raise NotImplementedError

    def scores(self, prefixes: Prefixes) -> Tensor:
        """(B, N), higher is better."""
        return self.state(prefixes) @ self.items.weight.T

    def loss(self, prefixes: Prefixes) -> Tensor:
        """Mean of -log softmax of the target's score among all items."""
        return F.cross_entropy(self.scores(prefixes).float(), prefixes.target)

    def topk(self, prefixes: Prefixes, k: int) -> Tensor:
        """(B, k) items, best first, without dropout; -1 where the catalogue has fewer."""
        best = self.eval().scores(prefixes).topk(min(k, self.items.num_embeddings), dim=1).indices
        return F.pad(best, (0, k - best.shape[1]), value=-1)


def start_small(module: nn.Module) -> None:
    """For ``Module.apply``: small normal weights, biases at 0 (recurrent weights keep torch's start)."""
    if isinstance(module, (nn.Linear, nn.Embedding, nn.MultiheadAttention)):
        for name, parameter in module.named_parameters(recurse=False):
            nn.init.zeros_(parameter) if "bias" in name else nn.init.normal_(parameter, std=INIT)


def newest_last(history: Tensor, length: Tensor) -> Tensor:
    """Histories (B, L) filled on the left instead of the right, so that the newest item stands last."""
    width = history.shape[1]
    source = torch.arange(width, device=history.device) - (width - length)[:, None]
    return history.gather(1, source.clamp_min(0)).masked_fill(source < 0, PAD_ITEM)


class Reader(nn.Module):
    """Items to states by a transformer: SASRec's (each place sees its past) or BERT's (all places).

    The place's embedding is that of its distance from the end. In SASRec, too, histories end at the
    last of a fixed number of places.
    """

    def __init__(self, d: int, layers: int, heads: int, dropout: float, places: int, causal: bool):
        super().__init__()
        block = nn.TransformerEncoderLayer(d, heads, 4 * d, dropout, activation="gelu", batch_first=True)
        self.places, self.causal, self.heads = nn.Embedding(places, d), causal, heads
        self.start = nn.Sequential(nn.LayerNorm(d), nn.Dropout(dropout))
        self.blocks = nn.TransformerEncoder(block, layers, enable_nested_tensor=False)

    def forward(self, x: Tensor, filled: Tensor, memory: list[Tensor] | None = None) -> Tensor:
        """States (B, L, d) of embedded items ``x`` (B, L, d), newest last, where ``filled`` (B, L).

        ``memory``: a list that gets what each layer read, for ``step``.
        """
        width = x.shape[1]
        away = torch.arange(width - 1, -1, -1, device=x.device)
        x, hidden = self.start(x + self.places(away)), self._hidden(filled)
        for layer in self.blocks.layers:
            if memory is not None:
                memory.append(x)
            x = layer(x, src_mask=hidden)
        return x

    def step(self, x: Tensor, filled: Tensor, memory: list[Tensor]) -> Tensor:
        """The state (B, 1, d) of one more input ``x`` (B, 1, d), which sees all before it.

        Earlier places never see it, so only this place is computed; ``memory`` grows by what it read.
        ``filled`` (B, L') covers what is in memory, and this place.
        """
        x = self.start(x)
        for i, layer in enumerate(self.blocks.layers):
            memory[i] = torch.cat([memory[i], x], dim=1)
            seen, _ = layer.self_attn(x, memory[i], memory[i], key_padding_mask=~filled, need_weights=False)
            x = layer.norm1(x + layer.dropout1(seen))
            x = layer.norm2(
                x + layer.dropout2(layer.linear2(layer.dropout(layer.activation(layer.linear1(x)))))
            )
        return x

    def _hidden(self, filled: Tensor) -> Tensor | None:
        """True where a place must not look: (L, L), or (B * heads, L, L) where histories differ in length.

        Every place sees itself, so that the softmax of an empty place is defined; nobody reads it.
        """
        width = filled.shape[1]
        ones = torch.ones(width, width, dtype=torch.bool, device=filled.device)
        future = ones.triu(1) if self.causal else torch.zeros_like(ones)
        if bool(filled.all()):
            return future if self.causal else None
        itself = torch.eye(width, dtype=torch.bool, device=filled.device)
        hidden = future | (~filled[:, None, :] & ~itself)
        return hidden.repeat_interleave(self.heads, dim=0)
