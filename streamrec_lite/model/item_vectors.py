"""A vector of its own for every item, beside those of its codes (ours; the paper has codes only).

Items of similar text share codes, so what is true of one item alone, say that it is bought after a
certain other one, has no place in a model that knows codes only. Counting knows nothing else, and wins
where a shop's habits are not in its texts. The vectors start at zero: a model that gets them is at first
the same model. They are read with a history and belong to t. Where they name answers, too, a code is scored
by its embedding and by the mean vector of the items that begin with the prefix it would end.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..common.errors import BadInput
from ..tokenizer.semantic_ids import SemanticTokenizer
from ..tokenizer.trie import Trie


class ItemVectors(nn.Module):
    """One vector for each of N items, looked up by item index or by the m code tokens of its ID.

    Args:
        n_items, m, d: sizes.
        vocab_size: V. The m tokens of an ID are the digits of a number in base V, the key of the item.

    In training each item of a history loses its vector with probability ``dropout``, so that the model does
    not memorise the few users of an item and learns from the codes, too.

    ``in_answer_logits``: the vectors also take part in the answer's logits (``Backbone.code_log_probs``).
    """

    dropout, in_answer_logits = 0.0, False
    keys: Tensor  # (N,) int64, rising
    item: Tensor  # (N,) int64, the item of each key

    def __init__(self, n_items: int, m: int, d: int, vocab_size: int):
        super().__init__()
        if vocab_size**m >= 2**63:
            rule = f"an ID of {m} codes among {vocab_size} tokens must fit into 63 bits"
            raise BadInput(f"m={m}, V={vocab_size}", rule, "use fewer codes, or sft.item_vectors=none")
        self.m, self.vocab_size = m, vocab_size
        self.vectors = nn.Embedding(n_items + 1, d, padding_idx=n_items)  # the last row: no item, always 0
        nn.init.zeros_(self.vectors.weight)
        self.register_buffer("keys", torch.zeros(n_items, dtype=torch.int64))  # rising
        self.register_buffer("item", torch.zeros(n_items, dtype=torch.int64))  # the item of each key

    @classmethod
    def of(
        cls, tokenizer: SemanticTokenizer, d: int, dropout: float = 0.0, in_answer_logits: bool = False
    ) -> ItemVectors:
        """Zero vectors for the catalogue of ``tokenizer``.

        Args:
            tokenizer: the semantic IDs of the catalogue.
            d: width of the vectors.
            dropout: probability that an item of a history loses its vector in training.
            in_answer_logits: the vectors also take part in the answer's logits.
        """
        made = cls(tokenizer.n_items, tokenizer.m, d, tokenizer.vocab_size).to(tokenizer.tokens.device)
        keys, item = made._key(tokenizer.tokens[: tokenizer.n_items]).sort()
        made.keys.copy_(keys)
        made.item.copy_(item)
        made.dropout, made.in_answer_logits = dropout, in_answer_logits
        return made

    def of_items(self, items: Tensor) -> Tensor:
        """The vectors (..., d) of item indices (...)."""
        return self.vectors(items)

    def all_vectors(self) -> Tensor:
        """The vectors of all items (N, d)."""
        return self.vectors.weight[:-1]

    def prefix_means(self, trie: Trie, depth: int) -> Tensor:
        """For each prefix of ``depth`` codes the mean of its items' vectors: (nodes, d)."""
        first = trie.first_leaf[depth][:-1]
        return F.embedding_bag(trie.leaf_item, self.vectors.weight, first, mode="mean")

    def of_nodes(self, trie: Trie, depth: int, node: Tensor) -> Tensor:
        """Mean item vectors (..., d) of nodes (...) at ``depth``; at depth m the vector of the one item."""
        if depth == trie.m:
            return self.vectors(trie.leaf_item[node])
        return F.embedding(node, self.prefix_means(trie, depth))

    def forward(self, tokens: Tensor) -> Tensor:
        """For history tokens (B, L*m) the vector of each token's item: (B, L*m, d), zero for PAD."""
        key = self._key(tokens.view(len(tokens), -1, self.m))  # (B, L)
        place = torch.searchsorted(self.keys, key).clamp_max(len(self.keys) - 1)
        known = self.keys[place] == key
        item = torch.where(known, self.item[place], len(self.keys))
        vectors = self.vectors(item)
        if self.training and self.dropout > 0:
            kept = torch.rand(item.shape, device=item.device) >= self.dropout
            vectors = vectors * (kept.to(vectors.dtype) / (1 - self.dropout))[..., None]
        return vectors.repeat_interleave(self.m, dim=1)

    def _key(self, tokens: Tensor) -> Tensor:
        """The key (...) of IDs (..., m): different IDs have different keys."""
        place = self.vocab_size ** torch.arange(self.m - 1, -1, -1, device=tokens.device)
        return (tokens * place).sum(dim=-1)
