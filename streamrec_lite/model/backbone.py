"""The encoder-decoder Transformer (section 2.2.2): one encoder, a direct and a thinking decoder.

The layers are those of transformers' T5 stacks (``stacks``). What is ours is that the stacks share one
embedding table, which is also the output head, and that an encoder can serve two decoders: the
direct one answers at once (TIGER, and the reference policy pi_ref), the thinking one writes
thoughts first. With one decoder and ``recency_embeddings=0`` the model is exactly
``T5ForConditionalGeneration``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..common.errors import BadInput, did_you_mean
from ..common.files import load_weights, read_json, read_tensors, write_json, write_tensors
from ..common.schemas import ANSWER, FIRST_CODE, PAD, check_shape
from ..config.sections import BackboneConfig
from ..config.settings import read_section
from ..tokenizer.semantic_ids import SemanticTokenizer
from ..tokenizer.trie import PaddedChildren, Trie
from .heads import Head
from .item_vectors import ItemVectors
from .sequences import history_tokens, shift_right
from .shared_attention import attend, split_heads
from .t5_stacks import project, run_encoder, sparse_positions, t5_stack

DECODERS = ("direct", "thinking")


class Backbone(nn.Module):
    """T5 encoder and decoders over one tied table of V tokens.

    Args:
        config: sizes; every stack has ``num_layers`` layers.
        vocab_size: V = 3 + m*K.
        decoders: which decoders to build: "direct", "thinking", or both.
        mark: does the thinking decoder read ANSWER after its last thought, and answer from there?
        repeats: may a thought come twice?
        items: a vector of its own for every item (``ItemVectors``), or None: items are their codes.
    """

    encoder: Any  # transformers' T5 stack
    decoders: Any  # T5 stacks by name
    items: ItemVectors | None

    def __init__(
        self,
        config: BackboneConfig,
        vocab_size: int,
        decoders: tuple[str, ...] = ("direct",),
        mark: bool = False,
        repeats: bool = True,
        items: ItemVectors | None = None,
    ):
        super().__init__()
        for name in decoders:
            if name not in DECODERS:
                raise BadInput(f"decoder {name!r}", "unknown decoder", did_you_mean(name, DECODERS))
        self.config, self.vocab_size, self.mark = config, vocab_size, mark
        self.repeats, self.items = repeats, items
        self.shared = nn.Embedding(vocab_size, config.d_model)
        nn.init.normal_(self.shared.weight, std=1.0)  # T5's own start; logits are scaled by d**-0.5
        if config.recency_embeddings:
            self.recency = nn.Embedding(config.recency_embeddings, config.d_model)
            nn.init.normal_(self.recency.weight, std=0.5)
        self.encoder = t5_stack(config, vocab_size, is_decoder=False)
        self.decoders = nn.ModuleDict(
            {name: t5_stack(config, vocab_size, is_decoder=True) for name in decoders}
        )
        if "thinking" in decoders:
            self.state_head, self.residual_head = Head(config.d_model), Head(config.d_model)
            self.state_scale = nn.Parameter(torch.tensor(0.5))  # the deviation of a mean of 4 codes
            self.state_score_scale = nn.Parameter(torch.tensor(config.d_model**-0.5))  # see ``state_scores``

    def encode(self, tokens: Tensor) -> tuple[Tensor, Tensor | None]:
        """History tokens (B, S), PAD on the right -> states (B, S, d) and mask (B, S), True = real.

        On a CPU the mask is None where no position is padded, which spares the attention a mask; a GPU
        would have to be waited for to know.

        T5 knows positions only relative to each other, so nothing tells its decoder which item came
        last, and that is what matters most. We depart from it: each token carries an embedding of
        its distance from the end of the history (``config.recency_embeddings``; 0 is T5 as it is). Where
        items have vectors of their own, each of an item's tokens carries that too.
        """
        check_shape("tokens", tokens, None, None)
        real = tokens != PAD
        x = self.shared(tokens)
        if self.config.recency_embeddings:
            place = torch.arange(tokens.shape[1], device=tokens.device)
            distance = real.sum(dim=1, keepdim=True) - 1 - place  # 0: the newest token
            x = x + self.recency(distance.clamp(0, self.config.recency_embeddings - 1))
        if self.items is not None:
            x = x + self.items(tokens)
        return run_encoder(self.encoder, x, real)

    def encode_history(self, tokenizer: SemanticTokenizer, history: Tensor) -> tuple[Tensor, Tensor | None]:
        """``encode`` of histories (B, L) of item indices, ``PAD_ITEM`` on the right, S = L * m tokens."""
        return self.encode(history_tokens(tokenizer.tokens, history))

    def decode(self, inputs: Tensor, states: Tensor, mask: Tensor | None, decoder: str = "direct") -> Tensor:
        """Decoder inputs (B, T) beginning with BOS, encoder states (B, S, d) -> hidden states (B, T, d).

        Args:
            inputs: (B, T) tokens, the first of them BOS.
            states: (B, S, d) encoder states.
            mask: (B, S), True = real, or None.
            decoder: "direct" or "thinking".
        """
        out = self.decoders[decoder](
            inputs_embeds=self.shared(inputs),
            encoder_hidden_states=states,
            encoder_attention_mask=mask,
            use_cache=False,
        )
        return out.last_hidden_state

    def cross(self, states: Tensor, decoder: str, mask: Tensor | None = None) -> list[tuple[Tensor, Tensor]]:
        """What cross-attention reads, a layer: keys (B, H, d_kv, S) and values (B, H, S, d_kv)."""
        heads, found, there = self.config.num_heads, [], sparse_positions(mask)
        for block in self.decoders[decoder].block:
            attention = block.layer[1].EncDecAttention
            keys, values = (split_heads(project(x, states, there), heads) for x in (attention.k, attention.v))
            found.append((keys.transpose(2, 3).contiguous(), values.contiguous()))
        return found

    def decode_groups(
        self,
        inputs: Tensor,
        cross: list[tuple[Tensor, Tensor]],
        mask: Tensor | None,
        decoder: str = "thinking",
        bias: Tensor | None = None,
    ) -> Tensor:
        """``decode`` for G sequences a user: inputs (B*G, T), a user's side by side -> (B*G, T, d).

        The G sequences are queries against one set of the user's keys and values, ``cross``; ``decode``
        would project and keep a copy of it for each. ``bias`` (B*G or 1, H, T, T): the position bias, -inf
        where a token must not look; left out, it is T5's.

        Args:
            inputs: (B*G, T) tokens, the G sequences of a user side by side.
            cross: keys and values of the encoder states a layer (``Backbone.cross``).
            mask: (B, S), True = real, or None.
            decoder: "direct" or "thinking".
            bias: (B*G or 1, H, T, T), -inf where a token must not look; None: the position bias of T5.
        """
        stack, users = self.decoders[decoder], len(cross[0][0])
        x = stack.dropout(self.shared(inputs))
        seen = None if mask is None else mask[:, None, None, :]
        for block, (keys, values) in zip(stack.block, cross, strict=True):
            x, bias, _ = block.layer[0](x, position_bias=bias)
            layer = block.layer[1]
            query = layer.EncDecAttention.q(layer.layer_norm(x))
            mixed = attend(query.view(users, -1, query.shape[-1]), keys, values, seen, layer.dropout)
            x = x + layer.dropout(layer.EncDecAttention.o(mixed.view_as(query)))
            x = block.layer[2](x)
        return stack.dropout(stack.final_layer_norm(x))

    def logits(self, hidden: Tensor) -> Tensor:
        """Decoder states (..., d) -> logits (..., V) over the tied table, scaled as T5 does."""
        return F.linear(hidden * self.config.d_model**-0.5, self.shared.weight)

    def code_log_probs(
        self, hidden: Tensor, level: int, trie: Trie, family: PaddedChildren, temperature: float = 1.0
    ) -> Tensor:
        """log P(code of ``level`` | what was written, history), eq. 11 at temperature tau.

        The paper's softmax runs over the whole vocabulary C. That is ``softmax="vocabulary"``. The
        default, ``softmax="trie"``, departs from it: it runs over the codes that lead to an item, so
        that no training is spent on learning which prefixes exist, which the trie knows, and the
        probabilities of all items sum to one. Where items have vectors that name them, a code then has that
        of the prefix it ends beside its own embedding (``ItemVectors.below``).

        Args:
            hidden: decoder states (..., d) that predict the level's code.
            family: the codes that lead to an item (``Trie.padded_children``), F each.
            level: of the code, from 0.
            trie: the tree of all semantic IDs.
            temperature: tau of eq. 11.

        Returns:
            (..., F) float32; -inf where not real.
        """
        low = FIRST_CODE + level * trie.K
        if self.config.softmax == "vocabulary":
            logits = self.logits(hidden).float() / temperature
            log_probs = logits.gather(-1, low + family.code) - logits.logsumexp(-1, keepdim=True)
            return log_probs.masked_fill(~family.real, -torch.inf)
        hidden = hidden * self.config.d_model**-0.5
        logits = F.linear(hidden, self.shared.weight[low : low + trie.K]).gather(-1, family.code).float()
        if self.items is not None and self.items.naming:
            logits = logits + self._item_logits(hidden, level, trie, family).float()
        return (logits / temperature).masked_fill(~family.real, -torch.inf).log_softmax(-1)

    def _item_logits(self, hidden: Tensor, level: int, trie: Trie, family: PaddedChildren) -> Tensor:
        """What items' vectors say for each prefix that a code would end: (..., F)."""
        assert self.items is not None
        if level == 0:  # one family for all
            return F.linear(hidden, self.items.below(trie, 1)).gather(-1, family.node)
        vectors = self.items.of_prefixes(trie, level + 1, family.node)
        if torch.is_grad_enabled():  # half the time under autocast, which would copy the vectors
            return (vectors * hidden[..., None, :]).sum(-1)
        return (vectors @ hidden[..., None])[..., 0]

    def thought_log_probs(
        self, hidden: Tensor, temperature: float = 1.0, said: Tensor | None = None
    ) -> Tensor:
        """log P(next thought): (..., d) -> (..., m*K) float32 over all codes; special tokens are none."""
        return self.thought_logits(hidden, temperature, said).log_softmax(-1)

    def thought_logits(self, hidden: Tensor, temperature: float = 1.0, said: Tensor | None = None) -> Tensor:
        """Of which ``thought_log_probs`` is the logarithm of the softmax.

        ``said`` (..., m*K), True: codes that were thought before and shall not come again.
        """
        logits = F.linear(hidden * self.config.d_model**-0.5, self.shared.weight[FIRST_CODE:]).float()
        logits = logits if temperature == 1 else logits / temperature
        return logits if said is None else logits.masked_fill(said, -torch.inf)

    def states(self, hidden: Tensor) -> Tensor:
        """The model's estimates of what the user wants: d_0..d_i (B, T, d) -> s_0..s_i (B, T, d)."""
        return self.state(hidden.float().cumsum(dim=1))

    def state(self, total: Tensor) -> Tensor:
        """The estimate s_i after what adds up to d_0 + ... + d_i (..., d): MLP_s of it, section 2.3.1.

        We depart from it in one thing: the sum is brought to one length first, ``state_scale`` a
        component (at first that of a mean of 4 fresh codes). Raw sums grow with every step, and then
        t - s_i is mostly that growth.
        """
        total = total * total.square().mean(-1, keepdim=True).add(1e-6).rsqrt()
        return self.state_head(total * self.state_scale)

    def forward(self, tokens: Tensor, labels: Tensor, decoder: str = "direct") -> Tensor:
        """Teacher forcing: history tokens (B, S) and labels (B, T) -> logits (B, T, V).

        The decoder reads [BOS, y_1..y_{T-1}] and predicts y_1..y_T (eq. 10).
        """
        states, mask = self.encode(tokens)
        return self.logits(self.decode(shift_right(labels), states, mask, decoder))

    def save(self, folder: str | Path) -> None:
        """Write ``model.safetensors`` and ``model.json`` (sizes), each whole or not at all."""
        folder = Path(folder)
        write_tensors(folder / "model.safetensors", self.state_dict())
        sizes = {
            "backbone": vars(self.config),
            "vocab_size": self.vocab_size,
            "decoders": list(self.decoders),
            "mark": self.mark,
            "repeats": self.repeats,
            "items": None if self.items is None else [len(self.items.keys), self.items.m, self.items.naming],
        }
        write_json(folder / "model.json", sizes)

    @classmethod
    def load(cls, folder: str | Path) -> Backbone:
        """Read what ``save`` wrote. Missing, broken or misshapen files are ``BadInput``."""
        folder = Path(folder)
        sizes = read_json(folder / "model.json")
        try:
            backbone = read_section(BackboneConfig, sizes["backbone"], f"{folder / 'model.json'}: backbone.")
            decoders = tuple(sizes["decoders"])
            habits = {"mark": sizes.get("mark", False), "repeats": sizes.get("repeats", True)}
            if sizes.get("items"):
                n_items, m, *naming = sizes["items"]  # models from before naming have two numbers
                habits["items"] = ItemVectors(n_items, m, backbone.d_model, sizes["vocab_size"])
                habits["items"].naming = naming == [True]
            model = cls(backbone, sizes["vocab_size"], decoders, **habits)
        except BadInput:
            raise
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            rule = f"the file must hold backbone, vocab_size and decoders ({error})"
            raise BadInput(str(folder / "model.json"), rule, "run the stage again") from None
        weights, _ = read_tensors(folder / "model.safetensors")
        load_weights(model, weights, folder / "model.safetensors")
        return model.eval()


def answer_inputs(model: Backbone, thought: Tensor, answer: Tensor) -> Tensor:
    """What the thinking decoder reads to answer: BOS, thoughts (B, l), ANSWER where the model marks it, and
    all but the last of the answer's codes (B, m)."""
    mark = thought.new_full((len(thought), int(model.mark)), ANSWER)
    return shift_right(torch.cat([thought, mark, answer], dim=1))
