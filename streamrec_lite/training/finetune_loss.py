"""Stage 2, the loss (eq. 19): answers, thoughts, preferences, residuals and states in one decoder pass."""

from __future__ import annotations

import operator
from functools import reduce

import torch
from torch import Tensor

from ..common.schemas import FIRST_CODE, Prefixes
from ..config.training import SftConfig
from ..inference.beam_search import answer_log_probs
from ..inference.step_decoder import StepDecoder
from ..inference.thinking import earlier_codes, generate_thoughts
from ..model.backbone import Backbone, answer_inputs
from ..model.branches import decode_branches
from ..model.item_representation import represent_items
from ..model.sequences import token_loss
from ..tokenizer.semantic_ids import SemanticTokenizer
from .annotator import corrective_thoughts
from .dpo import dpo_loss
from .state_losses import align_loss, distilled_state_loss, quantisation_losses
from .straight_through import straight_through

# The setting that weighs each part of the loss. The answer's weight is 1.
WEIGHT_SETTINGS = {
    "thoughts": "thought_weight",
    "dpo": "lam",
    "quant": "mu",
    "state": "delta",
    "align": "align_weight",
}


def finetune_loss(
    model: Backbone,
    tokenizer: SemanticTokenizer,
    batch: Prefixes,
    thought: Tensor,
    rejected: Tensor,
    reference: Tensor,
    neighbours: Tensor,
    config: SftConfig,
) -> dict[str, Tensor]:
    """Eq. 19: L = L_SFT + lambda L_DPO + mu L_Quant + delta L_State, and its parts.

    The paper trains answers and states after the annotated thoughts, by teacher forcing. But annotated
    thoughts leak the target, so the model learns to trust its thoughts too much. We depart from the paper
    (``condition_on="own"``): answers and states are trained after thoughts that the model samples during
    the step; thoughts are trained on the annotator's. To save time, half of the batch trains the thoughts
    and the other half the preferences. With ``learn_thoughts_after="own"`` the thoughts, too, are trained
    after the model's own, on what the annotator would write next (DAgger: Ross et al., 2011).

    Args:
        model: the policy.
        tokenizer: gives the items' codes.
        batch: B users with their targets.
        thought: (B, l) annotated code tokens.
        rejected: (B,) items of similar text, the dispreferred ones of L_DPO.
        reference: (B, 2) log pi_ref of the targets and of ``rejected``.
        neighbours: (N, k) the items of most similar text to each.
        config: the weights of the parts, and which thoughts they follow.

    Returns:
        "loss", and its parts unweighted: "answer", "dpo", "state", "align", "thoughts", "quant"; those of
        weight 0 may be missing.
    """
    states, mask = model.encode_history(tokenizer, batch.history)
    cross = model.cross_keys_values(states, "thinking", mask)
    l, m = thought.shape[1], tokenizer.m
    own = config.condition_on == "own" and l > 0
    context = _own_thoughts(model, states, mask, cross, l, config.thought_decoding) if own else thought
    relabelled = own and config.learn_thoughts_after == "own"
    n_dpo, n_thoughts = _batch_shares(batch.n_examples, config.lam > 0, own and not relabelled)
    inputs = answer_inputs(model, context, tokenizer.tokens[batch.target])  # BOS, thoughts, answer
    branches = []
    if n_dpo:  # the rejected item, after the same thoughts
        branches.append((inputs.shape[1] - m + 1, tokenizer.tokens[rejected[:n_dpo]][:, :-1]))
    if n_thoughts:  # annotated thoughts after BOS; the last one is only predicted
        branches.append((1, thought[-n_thoughts:, :-1]))
    embedded = None
    if config.thought_gradient == "straight-through" and l:
        embedded = straight_through(model, tokenizer, batch, thought, cross, mask)
    hidden, ends = decode_branches(model, inputs, branches, cross, mask, thoughts=embedded)
    answers = torch.cat([hidden[:, -m:], ends[0]]) if n_dpo else hidden[:, -m:]
    parts = _answer_parts(model, tokenizer, answers, batch.target, rejected[:n_dpo], reference, config)
    hidden = hidden[:, : l + 1]
    s = model.states(hidden)  # s_0..s_l
    t = represent_items(model, tokenizer, batch.target).float()
    parts["state"] = distilled_state_loss(model, tokenizer, batch, s, t, neighbours, config)
    parts["align"] = align_loss(s, t)
    if n_thoughts:
        thought, hidden, t = thought[-n_thoughts:], ends[-1], t[-n_thoughts:]
        s = model.states(hidden)  # s_0..s_{l-1} after annotated thoughts
        parts["align"] = parts["align"] + align_loss(s, t)
    if l and (n_thoughts or not own or relabelled):
        gap = t[:, None] - s[:, :l]
        read = context if relabelled else thought
        parts |= _thought_parts(model, hidden[:, :l], read, gap, config, relabelled)
    terms = [_weight(config, name) * value for name, value in parts.items()]
    return {"loss": reduce(operator.add, terms), **parts}


def _batch_shares(rows: int, dpo: bool, thoughts: bool) -> tuple[int, int]:
    """How many users of a batch train preferences, from the first on, and thoughts, up to the last."""
    if dpo and thoughts:
        return rows - rows // 2, rows // 2
    return rows * dpo, rows * thoughts


def _answer_parts(
    model: Backbone,
    tokenizer: SemanticTokenizer,
    hidden: Tensor,
    target: Tensor,
    rejected: Tensor,
    reference: Tensor,
    config: SftConfig,
) -> dict[str, Tensor]:
    """The answers' part of L_SFT, and L_DPO: hidden (B + n, m, d) of targets (B,) and ``rejected`` (n,)."""
    B, n = len(target), len(rejected)
    items = torch.cat([target, rejected]) if n else target
    log_prob = answer_log_probs(model, tokenizer, hidden, items, config.temperature)  # (B + n, m)
    parts = {"answer": token_loss(-log_prob[:B], config.token_losses)}
    if n:
        chosen, dispreferred = log_prob[:n].sum(1), log_prob[B:].sum(1)
        ref_chosen, ref_rejected = reference[:n, 0], reference[:n, 1]
        parts["dpo"] = dpo_loss(chosen, dispreferred, ref_chosen, ref_rejected, config.dpo_beta).mean()
    return parts


def _thought_parts(
    model: Backbone, hidden: Tensor, read: Tensor, gap: Tensor, config: SftConfig, relabelled: bool
) -> dict[str, Tensor]:
    """The thoughts' part of L_SFT, and L_Quant: hidden (B, l, d), and gap (B, l, d) t - s_0..s_{l-1}.

    ``read``: the thoughts (B, l) that the decoder read. They are the labels, too, unless ``relabelled``:
    then the labels are what the annotator would write next.
    """
    excluded = None if model.may_repeat_thoughts else earlier_codes(read, model.vocab_size)
    thought = corrective_thoughts(model, gap, excluded) if relabelled else read
    log_prob = model.thought_log_probs(hidden, config.temperature, excluded)  # (B, l, m*K)
    nll = -log_prob.gather(-1, (thought - FIRST_CODE)[..., None])[..., 0]
    parts = {"thoughts": token_loss(nll, config.token_losses)}
    if config.mu > 0:
        residual, o = model.residual_head(gap), model.shared(thought).float()  # r_1..r_l, o_1..o_l
        parts["quant"] = token_loss(quantisation_losses(residual, o, config.quant_beta), config.token_losses)
    return parts


@torch.no_grad()
def _own_thoughts(
    model: Backbone, states: Tensor, mask: Tensor | None, cross: list, l: int, mode: str
) -> Tensor:
    """The model's own thoughts (B, l), written without the decoder's dropout, as in inference."""
    stack = model.decoders["thinking"]
    was_training = stack.training
    stack.eval()
    decoder = StepDecoder(model, states, mask, "thinking", cross)
    thought = generate_thoughts(decoder, l, mode, last_state=False).token[:, 0]
    stack.train(was_training)
    return thought


def _weight(config: SftConfig, part: str) -> float:
    """The weight of a part of the loss."""
    return getattr(config, WEIGHT_SETTINGS[part]) if part in WEIGHT_SETTINGS else 1.0


def gradient_norms(model: Backbone, parts: dict[str, Tensor]) -> dict[str, float]:
    """The gradient's norm of each part of the loss, unweighted: {"gradient answer": ..., ...}."""
    weights = [p for p in model.parameters() if p.requires_grad]
    norms = {}
    for name, value in parts.items():
        if name != "loss":
            gradients = torch.autograd.grad(value, weights, retain_graph=True, allow_unused=True)
            total = sum(float(g.square().sum()) for g in gradients if g is not None)
            norms[f"gradient {name}"] = total**0.5
    return norms
