"""Answering: a trie-constrained beam search whose every answer is an item of the catalogue.

A user's beams differ only in the few tokens written so far. So the encoder runs once a user, its
keys and values are projected once, and the W beams are W queries against that one set; only the
short self-attention cache is reordered when beams fork. The cost a user does not depend on the size
of the catalogue: at each level a beam looks at no more than K children.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from .backbone import Backbone
from .errors import BadInput
from .schemas import BOS, FIRST_CODE, Beams


class StepDecoder:
    """One decoder, a token at a time, for W beams a user.

    It runs the weights of a T5 stack with a layout of its own (beams as queries), and gives the
    same states as the stack's own forward pass; a test holds it to that.

    Args:
        model: the backbone, in ``eval`` mode.
        states: encoder states (B, S, d).
        mask: (B, S), True = real, or None.
        decoder: "direct" or "thinking".
    """

    def __init__(self, model: Backbone, states: Tensor, mask: Tensor | None, decoder: str = "direct"):
        self.model, self.stack = model, model.decoders[decoder]
        self.heads, self.d_kv = model.config.num_heads, model.config.d_kv
        self.mask = None if mask is None else mask[:, None, None, :]  # (B, 1, 1, S)
        self.cross = []  # a layer: keys and values (B, H, S, d_kv), shared by all beams of a user
        for block in self.stack.block:
            attention = block.layer[1].EncDecAttention
            self.cross.append((self._split(attention.k(states)), self._split(attention.v(states))))
        self.keys: list[list[Tensor]] = [[] for _ in self.stack.block]  # [layer][position] (B, W, H, d_kv)
        self.values: list[list[Tensor]] = [[] for _ in self.stack.block]

    def _split(self, x: Tensor) -> Tensor:
        """(B, T, H*d_kv) -> (B, H, T, d_kv)."""
        return x.view(*x.shape[:2], self.heads, self.d_kv).transpose(1, 2)

    def reorder(self, parent: Tensor) -> None:
        """Let beam w continue beam ``parent[b, w]``: (B, W) int64."""
        rows, width = parent.shape
        old = self.keys[0][0].shape[1]
        flat = (parent + torch.arange(rows, device=parent.device)[:, None] * old).flatten()
        for cache in (*self.keys, *self.values):
            for t, x in enumerate(cache):
                cache[t] = x.flatten(0, 1).index_select(0, flat).view(rows, width, *x.shape[2:])

    def step(self, tokens: Tensor) -> Tensor:
        """Feed tokens (B, W), one a beam -> hidden states (B, W, d) that predict the next."""
        x = self.model.shared(tokens)
        bias = self._position_bias(x.device)
        for i, block in enumerate(self.stack.block):
            x = x + self._self_attention(i, block.layer[0], x, bias)
            x = x + self._cross_attention(i, block.layer[1], x)
            x = block.layer[2](x)
        return self.stack.final_layer_norm(x)

    def _position_bias(self, device) -> Tensor:
        """Bias of the newest position towards positions 0..t: (H, t+1)."""
        attention = self.stack.block[0].layer[0].SelfAttention
        t = len(self.keys[0])
        return attention.compute_bias(1, t + 1, device=device, past_seen_tokens=t)[0, :, 0]

    def _self_attention(self, i: int, layer, x: Tensor, bias: Tensor) -> Tensor:
        attention = layer.SelfAttention
        shape = (*x.shape[:2], self.heads, self.d_kv)
        y = layer.layer_norm(x)
        query = attention.q(y).view(shape)
        self.keys[i].append(attention.k(y).view(shape))
        self.values[i].append(attention.v(y).view(shape))
        # a handful of positions: products summed position by position beat many tiny matmuls
        scores = torch.stack([(query * key).sum(-1) for key in self.keys[i]], dim=-1) + bias
        weights = scores.float().softmax(-1).type_as(query)  # (B, W, H, t+1)
        mixed = sum(weights[..., t, None] * value for t, value in enumerate(self.values[i]))
        return attention.o(mixed.flatten(2))

    def _cross_attention(self, i: int, layer, x: Tensor) -> Tensor:
        attention = layer.EncDecAttention
        keys, values = self.cross[i]
        query = self._split(attention.q(layer.layer_norm(x)))  # (B, H, W, d_kv)
        mixed = F.scaled_dot_product_attention(query, keys, values, attn_mask=self.mask, scale=1.0)
        return attention.o(mixed.transpose(1, 2).flatten(2))


def answer_log_probs(
    model: Backbone, tokenizer, hidden: Tensor, items: Tensor, temperature: float = 1.0
) -> Tensor:
    """log P(c_j | c_<j, history) of given items, teacher-forced: (B, m).

    Args:
        tokenizer: the catalogue's ``SemanticTokenizer``, on the model's device.
        hidden: decoder states (B, m, d) that predict the m codes.
        items: (B,) item indices.
    """
    trie, chosen = tokenizer.trie, []
    for level in range(trie.m):
        allowed = trie.allowed(level, trie.paths[items, level])
        log_probs = model.code_log_probs(hidden[:, level], level, trie.K, allowed, temperature)
        chosen.append(log_probs.gather(-1, tokenizer.codes[items, level, None]))
    return torch.cat(chosen, dim=1)


@torch.inference_mode()
def beam_search(
    model: Backbone, trie, tokens: Tensor, beams: int = 20, k: int = 10, decoder: str = "direct"
) -> Beams:
    """The k items of highest P(item | history) among those that W beams reach (eq. 2).

    The score of an item is log P(c_1..c_m | history), the exact sum of its m log-probabilities (eq.
    11, ``Backbone.code_log_probs``). The search never leaves the trie, so every answer is an item.

    Args:
        model: the backbone, in ``eval`` mode.
        trie: the catalogue's semantic IDs, on the model's device.
        tokens: history tokens (B, S), PAD on the right.
        beams: W, kept after every level.
        k: answers a user, at most W.

    Returns:
        items (B, k) and scores (B, k), best first; -1 and -inf where the catalogue has fewer.
    """
    if not 1 <= k <= beams:
        raise BadInput(
            f"k={k}",
            f"must lie between 1 and the number of beams, {beams}",
            "ask for fewer, or use more beams",
        )
    states, mask = model.encode(tokens)
    stepper = StepDecoder(model, states, mask, decoder)
    rows, device = tokens.shape[0], tokens.device
    token = torch.full((rows, 1), BOS, device=device)
    node = torch.zeros((rows, 1), dtype=torch.long, device=device)
    score = torch.zeros((rows, 1), device=device)
    for level in range(trie.m):
        hidden = stepper.step(token)
        log_probs = model.code_log_probs(hidden, level, trie.K, trie.allowed(level, node))
        keep = k if level == trie.m - 1 else beams
        score, parent, node, code = expand(trie, level, node, score, log_probs, keep)
        if level < trie.m - 1:  # the last level is read off: no further decoder step
            stepper.reorder(parent)
            token = FIRST_CODE + level * trie.K + code
    item = trie.leaf_item[node].long().masked_fill(score == -torch.inf, -1)
    missing = k - item.shape[1]
    return Beams(F.pad(item, (0, missing), value=-1), F.pad(score, (0, missing), value=-torch.inf))


def expand(trie, level: int, node: Tensor, score: Tensor, log_probs: Tensor, keep: int):
    """Fork every beam into its children in the trie and keep the best.

    Args:
        node: (B, W) trie nodes at depth ``level``; score: (B, W); log_probs: (B, W, K) of the level's codes.

    Returns:
        score, parent beam, trie node, code: each (B, W') with W' = min(keep, W * largest family).
    """
    first, last = trie.start[level][node].long(), trie.start[level][node + 1].long()
    family = trie.max_children[level]
    child = first[..., None] + torch.arange(family, device=node.device)  # (B, W, family)
    real = child < last[..., None]
    child = child.clamp_max(trie.child_code[level].shape[0] - 1)
    code = trie.child_code[level][child].long()
    total = score[..., None] + log_probs.gather(-1, code)
    total = total.masked_fill(~real, -torch.inf).flatten(1)
    score, best = total.topk(min(keep, total.shape[1]), dim=1)
    return score, best // family, child.flatten(1).gather(1, best), code.flatten(1).gather(1, best)
