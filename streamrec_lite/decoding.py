"""Answering: a trie-constrained beam search whose every answer is an item of the catalogue.

A user's beams differ only in the few tokens written so far. So the encoder runs once a user, its
keys and values are projected once, and the beams are queries against that one set; only the short
self-attention cache is copied when beams fork. Under the softmax over the trie a prefix that leads
to a single item has said all: what is left has probability one, and needs no decoder step. The cost
a user does not depend on the size of the catalogue: at each level a beam looks at no more than K
children.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor
from torch.nn import functional as F

from .attention import Seats, attend, merge_heads, split_heads
from .backbone import Backbone
from .errors import BadInput
from .schemas import BOS, FIRST_CODE, Beams
from .trie import Family


class StepDecoder:
    """One decoder, a token at a time, for A sequences: at first one a user, later any number.

    It runs the weights of a T5 stack with a layout of its own (a user's sequences as queries), and
    gives the same states as the stack's own forward pass; a test holds it to that.

    Args:
        model: the backbone, in ``eval`` mode.
        states: encoder states (B, S, d).
        mask: (B, S), True = real, or None.
        decoder: "direct" or "thinking".
        cross: what ``model.cross`` made of the states, where the caller has it.
    """

    def __init__(
        self,
        model: Backbone,
        states: Tensor,
        mask: Tensor | None,
        decoder: str = "direct",
        cross: list[tuple[Tensor, Tensor]] | None = None,
    ):
        self.model, self.stack = model, model.decoders[decoder]
        self.heads, self.d_kv = model.config.num_heads, model.config.d_kv
        self.mask = None if mask is None else mask[:, None, None, :]  # (B, 1, 1, S)
        self.cross = cross or model.cross(states, decoder, mask)  # shared by all sequences of a user
        self.keys: list[list[Tensor]] = [[] for _ in self.stack.block]  # [layer][position] (A, H, d_kv)
        self.values: list[list[Tensor]] = [[] for _ in self.stack.block]
        self.bias = states.new_empty(self.heads, 0)
        self.seats = Seats.of_each(len(states), states.device)
        self.past: list[tuple[Tensor, Tensor]] = []  # a layer: what ``share`` put aside
        self.forks = self.seats  # whose past it is

    def copy(self) -> StepDecoder:
        """Another decoder that has written the same; what one writes next, the other does not see."""
        other = copy.copy(self)
        other.keys, other.values = [list(x) for x in self.keys], [list(x) for x in self.values]
        return other

    def select(self, parent: Tensor) -> None:
        """Let the sequences be continuations of the present ones: ``parent`` (A',), users ascending."""
        for cache in (*self.keys, *self.values):
            for t, x in enumerate(cache):
                cache[t] = x.index_select(0, parent)
        same = self.forks is self.seats
        self.seats = self.seats.select(parent)
        self.forks = self.seats if same or not self.past else self.forks.select(parent)

    def share(self) -> None:
        """Put aside what is written: every continuation of a sequence then looks at one copy of it.

        Once; before many continuations of several tokens.
        """
        if self.past or len(self.keys[0]) < 2:  # a single token is as quickly copied
            return
        pairs = zip(self.keys, self.values, strict=True)  # (A, H, d_kv, T) and (A, H, T, d_kv)
        self.past = [(torch.stack(keys, dim=-1), torch.stack(values, dim=2)) for keys, values in pairs]
        self.keys, self.values = [[] for _ in self.keys], [[] for _ in self.values]
        if len(self.seats.owner) != self.seats.owners:  # several sequences a user: each has its own past
            self.forks = Seats.of_each(len(self.seats.owner), self.seats.owner.device)

    def step(self, tokens: Tensor) -> Tensor:
        """Feed tokens (A,), one a sequence -> hidden states (A, d) that predict the next."""
        x = self.model.shared(tokens)
        bias = self._position_bias(x.device)
        for i, block in enumerate(self.stack.block):
            x = x + self._self_attention(i, block.layer[0], x, bias)
            x = x + self._cross_attention(i, block.layer[1], x)
            x = block.layer[2](x)
        return self.stack.final_layer_norm(x)

    def _position_bias(self, device) -> Tensor:
        """Bias of the newest position towards positions 0..t: (H, t+1). It depends on distances alone."""
        t = len(self.keys[0]) + (self.past[0][1].shape[2] if self.past else 0)
        if t >= self.bias.shape[1]:  # for all steps to come at once, mostly
            attention, n = self.stack.block[0].layer[0].SelfAttention, max(16, 2 * t)
            self.bias = attention.compute_bias(1, n, device=device, past_seen_tokens=n - 1)[0, :, 0]
        return self.bias[:, -1 - t :]

    def _self_attention(self, i: int, layer, x: Tensor, bias: Tensor) -> Tensor:
        attention = layer.SelfAttention
        shape = (len(x), self.heads, self.d_kv)
        y = layer.layer_norm(x)
        self.values[i].append(attention.v(y).view(shape))
        if len(self.values[i]) == 1 and not self.past:  # a softmax over one position: its weight is one
            self.keys[i].append(attention.k(y).view(shape))
            return attention.o(self.values[i][0].flatten(1))
        query = attention.q(y)
        self.keys[i].append(attention.k(y).view(shape))
        # a handful of positions: products summed position by position beat many tiny matmuls
        scores = torch.stack([(query.view(shape) * key).sum(-1) for key in self.keys[i]], dim=-1)
        before = 0
        if self.past:
            keys = self.forks.of_rows(self.past[i][0])
            seated = split_heads(self.forks.spread(query), self.heads) @ keys  # (R, H, W, T)
            before = seated.shape[-1]
            seated = self.forks.collect(merge_heads(seated)).view(len(x), self.heads, before)
            scores = torch.cat([seated, scores], dim=-1)
        weights = (scores + bias).float().softmax(-1).type_as(query)  # (A, H, t+1)
        mixed = sum(weights[..., before + t, None] * value for t, value in enumerate(self.values[i]))
        mixed = mixed.flatten(1)
        if self.past:
            seated = split_heads(self.forks.spread(weights[..., :before].flatten(1)), self.heads)
            mixed = mixed + self.forks.collect(merge_heads(seated @ self.forks.of_rows(self.past[i][1])))
        return attention.o(mixed)

    def _cross_attention(self, i: int, layer, x: Tensor) -> Tensor:
        attention = layer.EncDecAttention
        query = self.seats.spread(attention.q(layer.layer_norm(x)))
        keys, values, mask = (self.seats.of_rows(x) for x in (*self.cross[i], self.mask))
        return attention.o(self.seats.collect(attend(query, keys, values, mask)))


def answer_log_probs(
    model: Backbone, tokenizer, hidden: Tensor, items: Tensor, temperature: float = 1.0
) -> Tensor:
    """log P(c_j | c_<j, history) of given items, teacher-forced: (B, m).

    Args:
        tokenizer: the catalogue's ``SemanticTokenizer``, on the model's device.
        hidden: decoder states (B, m, d) that predict the m codes.
        items: (B,) item indices.
    """
    trie = tokenizer.trie
    steps = range(trie.m)
    chosen = [_step_log_prob(model, trie, hidden[:, j], j, items, temperature) for j in steps]
    return torch.stack(chosen, dim=1)


def item_log_probs(
    stepper: StepDecoder, tokenizer, hidden: Tensor, items: Tensor, floor: Tensor | None = None
) -> Tensor:
    """log P(item | what was written, history) of n given items for each of the stepper's R sequences.

    The steps are shared: the first code of all n items is read off one state. Under the softmax over
    the trie an item that is alone below its prefix needs no further step.

    Args:
        hidden: (R, d) what each sequence's newest token gave, BOS or the last thought.
        items: (R, n) item indices; the same for every sequence or not.
        floor: (R,) what lies below is not of interest. A sum of logarithms only falls from code to
            code, so an item that has fallen below needs no further step; what it has then is returned.

    Returns:
        (R, n) float32.
    """
    trie, model = tokenizer.trie, stepper.model
    flat = items.flatten()
    going = torch.arange(len(flat), device=flat.device)  # the items whose log-probability is not yet known
    at = going // items.shape[1]  # the state that each one's next code is read off
    node = torch.zeros(len(hidden), dtype=torch.long, device=flat.device)  # where each state stands
    total = torch.zeros(len(flat), device=flat.device)
    stepper.share()
    for level in range(trie.m):
        if level > 0:
            if floor is not None:
                kept = total[going] >= floor[going // items.shape[1]]
                going, at = going[kept], at[kept]
            if model.config.softmax == "trie":
                kept = ~trie.alone[level][trie.paths[flat[going], level]]
                going, at = going[kept], at[kept]
            if not len(going):
                break
            below = trie.paths[flat[going], level]
            key, again = torch.unique(at * trie.nodes(level) + below, return_inverse=True)
            parent, node = key // trie.nodes(level), key % trie.nodes(level)
            some = torch.empty_like(key).index_copy_(0, again, going)  # one item of each prefix
            stepper.select(parent)
            hidden, at = stepper.step(tokenizer.tokens[flat[some], level - 1]), again
        log_probs = model.code_log_probs(hidden, level, trie, trie.families(level, node))
        place = trie.paths[flat[going], level + 1] - trie.start[level][node[at]]
        total.index_add_(0, going, log_probs[at, place].to(total))
    return total.view_as(items)


def _step_log_prob(model: Backbone, trie, hidden: Tensor, level: int, items: Tensor, temperature=1.0):
    """log P(the items' code of ``level``): hidden (B, d), items (B,) -> (B,)."""
    node, child = trie.paths[items, level], trie.paths[items, level + 1]
    log_probs = model.code_log_probs(hidden, level, trie, trie.families(level, node), temperature)
    return log_probs.gather(-1, (child - trie.start[level][node])[:, None])[:, 0]


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
    start = torch.full((len(tokens),), BOS, device=tokens.device)
    return answer_beams(stepper, trie, stepper.step(start), beams, k)


def answer_beams(stepper: StepDecoder, trie, hidden: Tensor, beams: int, k: int) -> Beams:
    """The beam over the answer, for each of the stepper's R sequences: their continuations by an item.

    Args:
        hidden: (R, d) what each sequence's newest token gave, BOS or the last thought.

    Returns:
        items (R, k) and scores (R, k): log P(item | what was written, history).
    """
    rows, device = len(hidden), hidden.device
    trie_softmax = stepper.model.config.softmax == "trie"
    token = torch.empty((rows, 0), dtype=torch.long, device=device)
    node = torch.zeros((rows, 1), dtype=torch.long, device=device)
    score = torch.zeros((rows, 1), device=device)
    going = torch.ones((rows, 1), dtype=torch.bool, device=device)  # beams that need the decoder
    parent = torch.arange(rows, device=device)[:, None]  # the sequence of the stepper that each continues
    stepper.share()
    for level in range(trie.m):
        family = trie.families(level, node)  # (R, W, F) each
        gain = torch.zeros(family.real.shape, device=device).masked_fill_(~family.real, -torch.inf)
        at = going.flatten().nonzero()[:, 0]
        if len(at):
            if level > 0:
                stepper.select(parent.flatten()[at])
                hidden = stepper.step(token.flatten()[at])
            some = Family(*(x.flatten(0, 1).index_select(0, at) for x in family))
            log_probs = stepper.model.code_log_probs(hidden, level, trie, some)
            gain.flatten(0, 1).index_copy_(0, at, log_probs)
        total = (score[..., None] + gain).flatten(1)
        keep = k if level == trie.m - 1 else beams  # the last level is read off: no further step
        score, best = total.topk(min(keep, total.shape[1]), dim=1)
        node = family.node.flatten(1).gather(1, best)
        token = FIRST_CODE + level * trie.K + family.code.flatten(1).gather(1, best)
        place = (going.flatten().cumsum(0) - 1).view_as(going)  # of each beam in the stepper
        parent = place.gather(1, best // family.code.shape[-1])
        going = score > -torch.inf
        if trie_softmax:  # where one item is left, the rest has probability one
            going &= ~trie.alone[level + 1][node]
    item = trie.leaf_item[node].masked_fill(score == -torch.inf, -1)
    missing = k - item.shape[1]
    return Beams(F.pad(item, (0, missing), value=-1), F.pad(score, (0, missing), value=-torch.inf))
