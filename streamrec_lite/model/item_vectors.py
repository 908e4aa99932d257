"""One learned vector per item, in addition to its code embeddings (ours; the paper has only codes).

Items with similar text share codes. So a model that knows only codes can hardly learn facts about a single
item, for example which item is bought after which. Counting models learn exactly such facts, and win where
they do not follow from the items' text.

The vectors start at zero, so adding them to a model does not change it at first. They are added to the
encoder's inputs and to t. If they are also used in answers, a candidate code is scored by its embedding
and by the mean vector of the items below the prefix that it completes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..common.errors import BadInput
from ..tokenizer.semantic_ids import SemanticTokenizer
from ..tokenizer.trie import PaddedChildren, Trie


class ItemVectors(nn.Module):
    """N vectors, looked up by item number or by the m code tokens of an item's ID.

    In training the vector of an item in a history is dropped with probability ``dropout``, so that the model
    does not overfit to the few users of an item and also relies on the codes.

    Args:
        n_items: N.
        m: code levels.
        d: width of the vectors.
        vocab_size: V. The m tokens of an ID are read as the digits of a number in base V, the item's key.
        in_answer_logits: whether the scores of answers use them too (``Backbone.code_log_probs``).
    """

    dropout = 0.0
    keys: Tensor  # (N,) int64, ascending
    item: Tensor  # (N,) int64, the item of each key

    def __init__(self, n_items: int, m: int, d: int, vocab_size: int, in_answer_logits: bool = False):
        super().__init__()
        if vocab_size**m >= 2**63:
            rule = f"an ID of {m} codes among {vocab_size} tokens must fit into 63 bits"
            raise BadInput(f"m={m}, V={vocab_size}", rule, "use fewer codes, or sft.item_vectors=none")
        self.m, self.vocab_size, self.in_answer_logits = m, vocab_size, in_answer_logits
        self.vectors = nn.Embedding(n_items + 1, d, padding_idx=n_items)  # last row: padding, always 0
        nn.init.zeros_(self.vectors.weight)
        self.register_buffer("keys", torch.zeros(n_items, dtype=torch.int64))
        self.register_buffer("item", torch.zeros(n_items, dtype=torch.int64))

    @classmethod
    def of(
        cls, tokenizer: SemanticTokenizer, d: int, dropout: float = 0.0, in_answer_logits: bool = False
    ) -> ItemVectors:
        """Zero vectors for all items of a tokenizer, on its device.

        Args:
            tokenizer: semantic IDs of the catalogue.
            d: width of the vectors.
            dropout: probability in training that an item of a history is read without its vector.
            in_answer_logits: whether the scores of answers use the vectors too.
        """
        vectors = cls(tokenizer.n_items, tokenizer.m, d, tokenizer.vocab_size, in_answer_logits)
        vectors = vectors.to(tokenizer.tokens.device)
        keys, item = vectors._key(tokenizer.tokens[: tokenizer.n_items]).sort()
        vectors.keys.copy_(keys)
        vectors.item.copy_(item)
        vectors.dropout = dropout
        return vectors

    def of_items(self, items: Tensor) -> Tensor:
        """Vectors (..., d) of items (...)."""
        return self.vectors(items)

    def all_vectors(self) -> Tensor:
        """Vectors of all items (N, d)."""
        return self.vectors.weight[:-1]

    def prefix_means(self, trie: Trie, depth: int) -> Tensor:
        """Mean vector of the items below each prefix of ``depth`` codes: (nodes at that depth, d)."""
        first = trie.first_leaf[depth][:-1]
        return F.embedding_bag(trie.leaf_item, self.vectors.weight, first, mode="mean")

    def of_nodes(self, trie: Trie, depth: int, node: Tensor) -> Tensor:
        """``prefix_means`` (..., d) of nodes (...) at ``depth``; at depth m, the vectors of the items."""
        if depth == trie.m:
            return self.vectors(trie.leaf_item[node])
        return F.embedding(node, self.prefix_means(trie, depth))

    def prefix_logits(self, hidden: Tensor, level: int, trie: Trie, children: PaddedChildren) -> Tensor:
        """Scores (..., F) of the prefixes that candidate codes of ``level`` complete: hidden (..., d).

        Args:
            hidden: (..., d) hidden states, scaled as for logits.
            level: code level, from 0.
            trie: the trie of all semantic IDs.
            children: the F candidate codes, each (..., F).
        """
        if level == 0:  # all sequences have the same candidates
            return F.linear(hidden, self.prefix_means(trie, 1)).gather(-1, children.node)
        vectors = self.of_nodes(trie, level + 1, children.node)
        if torch.is_grad_enabled():  # takes half the time of @ under autocast, which copies the vectors
            return (vectors * hidden[..., None, :]).sum(-1)
        return (vectors @ hidden[..., None])[..., 0]

    def forward(self, tokens: Tensor) -> Tensor:
        """Vector of the item that each history token (B, L*m) belongs to: (B, L*m, d); zero for PAD."""
        key = self._key(tokens.view(len(tokens), -1, self.m))  # (B, L)
        index = torch.searchsorted(self.keys, key).clamp_max(len(self.keys) - 1)
        known = self.keys[index] == key
        item = torch.where(known, self.item[index], len(self.keys))
        vectors = self.vectors(item)
        if self.training and self.dropout > 0:
            kept = torch.rand(item.shape, device=item.device) >= self.dropout
            vectors = vectors * (kept.to(vectors.dtype) / (1 - self.dropout))[..., None]
        return vectors.repeat_interleave(self.m, dim=1)

    def _key(self, tokens: Tensor) -> Tensor:
        """A unique number (...) for each ID of m tokens (..., m)."""
        power = self.vocab_size ** torch.arange(self.m - 1, -1, -1, device=tokens.device)
        return (tokens * power).sum(dim=-1)
