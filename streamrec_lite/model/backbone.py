"""The encoder-decoder Transformer (section 2.2.2): one encoder, a direct and a thinking decoder.

The layers are those of transformers' T5 (``t5_stacks``). Two things are ours. All stacks share one
embedding table, which is also the output head. And one encoder can serve two decoders: the direct decoder
answers at once (TIGER, and the reference policy pi_ref), the thinking decoder writes thoughts first. With
one decoder and ``recency_embeddings=0`` the model is exactly ``T5ForConditionalGeneration``.
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
from .heads import Head, replaced, scaled
from .item_vectors import ItemVectors
from .sequences import history_tokens, shift_right
from .shared_attention import attend, split_heads
from .t5_stacks import project, run_encoder, sparse_positions, t5_stack

DECODERS = ("direct", "thinking")


class Backbone(nn.Module):
    """A T5 encoder and one or two decoders with one tied embedding table of V tokens.

    Args:
        config: sizes; every stack has ``num_layers`` layers.
        vocab_size: V = 3 + m*K.
        decoders: which decoders to build: "direct", "thinking", or both.
        reads_answer_token: whether the thinking decoder reads ANSWER between its thoughts and the answer.
        may_repeat_thoughts: whether the same thought may occur twice.
        item_vectors: one extra vector for each item, or None: items are represented by their codes alone.
        raw_states: whether states are those of eq. 13 as printed (``state``).
    """

    encoder: Any  # transformers' T5 stack
    decoders: Any  # T5 stacks by name
    item_vectors: ItemVectors | None

    def __init__(
        self,
        config: BackboneConfig,
        vocab_size: int,
        decoders: tuple[str, ...] = ("direct",),
        reads_answer_token: bool = False,
        may_repeat_thoughts: bool = True,
        item_vectors: ItemVectors | None = None,
        raw_states: bool = False,
    ):
        super().__init__()
        for name in decoders:
            if name not in DECODERS:
                raise BadInput(f"decoder {name!r}", "unknown decoder", did_you_mean(name, DECODERS))
        self.config, self.vocab_size, self.item_vectors = config, vocab_size, item_vectors
        self.reads_answer_token, self.may_repeat_thoughts = reads_answer_token, may_repeat_thoughts
        self.raw_states = raw_states
        self.shared = nn.Embedding(vocab_size, config.d_model)
        nn.init.normal_(self.shared.weight, std=1.0)  # as T5 does; logits are scaled by d**-0.5
        if config.recency_embeddings:
            self.recency = nn.Embedding(config.recency_embeddings, config.d_model)
            nn.init.normal_(self.recency.weight, std=0.5)
        self.encoder = t5_stack(config, vocab_size, is_decoder=False)
        self.decoders = nn.ModuleDict(
            {name: t5_stack(config, vocab_size, is_decoder=True) for name in decoders}
        )
        if "thinking" in decoders:
            self.state_head, self.residual_head = Head(config.d_model), Head(config.d_model)
            self.state_scale = nn.Parameter(torch.tensor(0.5))  # standard deviation of a mean of 4 codes
            self.state_score_scale = nn.Parameter(torch.tensor(config.d_model**-0.5))  # see ``state_scores``

    def encode(self, tokens: Tensor) -> tuple[Tensor, Tensor | None]:
        """Encoder states (B, S, d) and mask (B, S), True = real, of history tokens (B, S), PAD on the right.

        On a CPU the mask is None if no position is padding: attention is faster without one. On a GPU this
        test would need a host synchronisation, so the mask is always returned.

        We depart from T5: its positions are relative, so its decoder cannot tell which item came last, the
        most informative one. Here each token also gets an embedding of its distance from the end of the
        history (``config.recency_embeddings``; 0 is T5 as published). If there are item vectors, each token
        also gets the vector of its item.
        """
        check_shape("tokens", tokens, None, None)
        real = tokens != PAD
        x = self.shared(tokens)
        if self.config.recency_embeddings:
            position = torch.arange(tokens.shape[1], device=tokens.device)
            distance = real.sum(dim=1, keepdim=True) - 1 - position  # 0: the newest token
            x = x + self.recency(distance.clamp(0, self.config.recency_embeddings - 1))
        if self.item_vectors is not None:
            x = x + self.item_vectors(tokens)
        return run_encoder(self.encoder, x, real)

    def encode_history(self, tokenizer: SemanticTokenizer, history: Tensor) -> tuple[Tensor, Tensor | None]:
        """``encode`` of histories (B, L) of item indices, ``PAD_ITEM`` on the right; S = L * m tokens."""
        return self.encode(history_tokens(tokenizer.tokens, history))

    def decode(self, inputs: Tensor, states: Tensor, mask: Tensor | None, decoder: str = "direct") -> Tensor:
        """Hidden states (B, T, d) of the decoder, teacher-forced.

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

    def cross_keys_values(
        self, states: Tensor, decoder: str, mask: Tensor | None = None
    ) -> list[tuple[Tensor, Tensor]]:
        """Keys (B, H, d_kv, S) and values (B, H, S, d_kv) of cross-attention, one pair per layer."""
        heads, pairs, positions = self.config.num_heads, [], sparse_positions(mask)
        for block in self.decoders[decoder].block:
            attention = block.layer[1].EncDecAttention
            projected = (project(x, states, positions) for x in (attention.k, attention.v))
            keys, values = (split_heads(x, heads) for x in projected)
            pairs.append((keys.transpose(2, 3).contiguous(), values.contiguous()))
        return pairs

    def decode_groups(
        self,
        inputs: Tensor,
        cross_kv: list[tuple[Tensor, Tensor]],
        mask: Tensor | None,
        decoder: str = "thinking",
        bias: Tensor | None = None,
        thoughts: Tensor | None = None,
    ) -> Tensor:
        """``decode`` for G sequences per user: hidden states (B*G, T, d).

        The G sequences are queries against one copy of the user's keys and values. ``decode`` would project
        and store them once per sequence.

        Args:
            inputs: (B*G, T) tokens; the G sequences of a user are adjacent.
            cross_kv: keys and values of cross-attention, one pair per layer (``cross_keys_values``).
            mask: (B, S), True = real, or None.
            decoder: "direct" or "thinking".
            bias: (B*G or 1, H, T, T) position bias, -inf where attention is not allowed; None: as in T5.
            thoughts: (B*G, n, d) read in place of the embeddings of the n tokens after BOS, or None.
        """
        stack, users = self.decoders[decoder], len(cross_kv[0][0])
        x = stack.dropout(replaced(self.shared(inputs), 1, thoughts))
        attention_mask = None if mask is None else mask[:, None, None, :]
        for block, (keys, values) in zip(stack.block, cross_kv, strict=True):
            x, bias, _ = block.layer[0](x, position_bias=bias)
            layer = block.layer[1]
            query = layer.EncDecAttention.q(layer.layer_norm(x))
            mixed = attend(
                query.view(users, -1, query.shape[-1]), keys, values, attention_mask, layer.dropout
            )
            x = x + layer.dropout(layer.EncDecAttention.o(mixed.view_as(query)))
            x = block.layer[2](x)
        return stack.dropout(stack.final_layer_norm(x))

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits (..., V) of hidden states (..., d) over the tied embedding table, scaled as in T5."""
        return F.linear(hidden * self.config.d_model**-0.5, self.shared.weight)

    def code_log_probs(
        self, hidden: Tensor, level: int, trie: Trie, children: PaddedChildren, temperature: float = 1.0
    ) -> Tensor:
        """log P(code of ``level`` | previous tokens, history), eq. 11 at temperature tau.

        The paper's softmax runs over the whole vocabulary C: ``softmax="vocabulary"``. We depart from it with
        the default ``softmax="trie"``, which runs over the codes that continue to an item. The model then
        need not learn which prefixes exist, and the probabilities of all items sum to one. If item vectors
        are used in answers, the logit of a code also contains the score of the prefix that the code
        completes, by the mean vector of its items (``ItemVectors.prefix_means``).

        Args:
            hidden: (..., d) hidden states that predict the code of ``level``.
            level: code level, from 0.
            trie: the trie of all semantic IDs.
            children: the F candidate codes (``Trie.padded_children``), each (..., F).
            temperature: tau of eq. 11.

        Returns:
            (..., F) float32; -inf for padding.
        """
        low = FIRST_CODE + level * trie.K
        if self.config.softmax == "vocabulary":
            logits = self.logits(hidden).float() / temperature
            log_probs = logits.gather(-1, low + children.code) - logits.logsumexp(-1, keepdim=True)
            return log_probs.masked_fill(~children.real, -torch.inf)
        hidden = hidden * self.config.d_model**-0.5
        logits = F.linear(hidden, self.shared.weight[low : low + trie.K]).gather(-1, children.code).float()
        if self.item_vectors is not None and self.item_vectors.in_answer_logits:
            logits = logits + self.item_vectors.prefix_logits(hidden, level, trie, children).float()
        return (logits / temperature).masked_fill(~children.real, -torch.inf).log_softmax(-1)

    def thought_log_probs(
        self, hidden: Tensor, temperature: float = 1.0, excluded: Tensor | None = None
    ) -> Tensor:
        """log P(next thought | previous tokens, history) (..., m*K) float32; see ``thought_logits``."""
        return self.thought_logits(hidden, temperature, excluded).log_softmax(-1)

    def thought_logits(
        self, hidden: Tensor, temperature: float = 1.0, excluded: Tensor | None = None
    ) -> Tensor:
        """Logits (..., m*K) float32 of the next thought, over the codes of all levels; no special tokens.

        Args:
            hidden: (..., d) hidden states.
            temperature: of the softmax over thoughts.
            excluded: (..., m*K), True for codes that must not be chosen, or None.
        """
        logits = F.linear(hidden * self.config.d_model**-0.5, self.shared.weight[FIRST_CODE:]).float()
        logits = logits if temperature == 1 else logits / temperature
        return logits if excluded is None else logits.masked_fill(excluded, -torch.inf)

    def states(self, hidden: Tensor) -> Tensor:
        """The model's estimates of the target, s_0..s_i (B, T, d), from hidden states d_0..d_i (B, T, d)."""
        total = hidden.float().cumsum(dim=1)
        if not self.raw_states:
            return self.state(total)
        return torch.cat([self.state(total[:, :1], 0), self.state(total[:, 1:])], dim=1)

    def state(self, total: Tensor, i: int = 1) -> Tensor:
        """The estimate s_i (..., d) = MLP_s(d_0 + ... + d_i), section 2.3.1; ``total`` (..., d) is the sum.

        We depart from the paper: the sum is first scaled to a root mean square of ``state_scale``, initially
        that of a mean of 4 new code embeddings. Unscaled sums grow at every step, and then t - s_i is mostly
        that growth. With ``raw_states`` MLP_s reads the sum itself, and s_0 = d_0, as printed.
        """
        if self.raw_states:
            return total if i == 0 else self.state_head(total)
        return self.state_head(scaled(total, self.state_scale))

    def forward(self, tokens: Tensor, labels: Tensor, decoder: str = "direct") -> Tensor:
        """Logits (B, T, V) of labels y (B, T) after history tokens (B, S), teacher-forced.

        The decoder reads [BOS, y_1..y_{T-1}] and predicts y_1..y_T (eq. 10).
        """
        states, mask = self.encode(tokens)
        return self.logits(self.decode(shift_right(labels), states, mask, decoder))

    def save(self, folder: str | Path) -> None:
        """Write ``model.safetensors`` and ``model.json`` (sizes); each file is replaced atomically."""
        folder, vectors = Path(folder), self.item_vectors
        write_tensors(folder / "model.safetensors", self.state_dict())
        sizes = {
            "backbone": vars(self.config),
            "vocab_size": self.vocab_size,
            "decoders": list(self.decoders),
            "reads_answer_token": self.reads_answer_token,
            "may_repeat_thoughts": self.may_repeat_thoughts,
            "raw_states": self.raw_states,
            "item_vectors": vectors and [len(vectors.keys), vectors.m, vectors.in_answer_logits],
        }
        write_json(folder / "model.json", sizes)

    @classmethod
    def load(cls, folder: str | Path) -> Backbone:
        """A saved backbone, in ``eval`` mode; ``BadInput`` if its files are missing or broken."""
        folder = Path(folder)
        sizes = read_json(folder / "model.json")
        try:
            backbone = read_section(BackboneConfig, sizes["backbone"], f"{folder / 'model.json'}: backbone.")
            decoders = tuple(sizes["decoders"])
            flags = (sizes["reads_answer_token"], sizes["may_repeat_thoughts"])
            raw_states, vectors = sizes.get("raw_states", False), None
            if sizes["item_vectors"]:
                n_items, m, in_answer_logits = sizes["item_vectors"]
                vectors = ItemVectors(n_items, m, backbone.d_model, sizes["vocab_size"], in_answer_logits)
            model = cls(backbone, sizes["vocab_size"], decoders, *flags, vectors, raw_states)
        except BadInput:
            raise
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            rule = f"the file must hold what Backbone.save writes ({type(error).__name__}: {error})"
            raise BadInput(str(folder / "model.json"), rule, "run the stage again") from None
        weights, _ = read_tensors(folder / "model.safetensors")
        load_weights(model, weights, folder / "model.safetensors")
        return model.eval()


def answer_inputs(model: Backbone, thought: Tensor, answer: Tensor) -> Tensor:
    """Inputs of the thinking decoder for thoughts (B, l) and answers (B, m), shifted right.

    They are BOS, the thoughts, ANSWER if the model reads it, and the answer's codes without the last one.
    """
    answer_token = thought.new_full((len(thought), int(model.reads_answer_token)), ANSWER)
    return shift_right(torch.cat([thought, answer_token, answer], dim=1))
