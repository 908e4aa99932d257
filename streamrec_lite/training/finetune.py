"""Stage 2, fine-tuning (section 2.3.2): annotate, optimise, annotate again.

A teacher-forced pass over [BOS, o_1..o_l, c_1..c_{m-1}] gives everything: the hidden states that
predict thoughts and answer (L_SFT), their running sums as estimates of the target (L_State), and
the residuals that are left (L_Quant), for which see ``states``. L_DPO needs the answer's part once
more, for the other item.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from ..common.device import autocast, seed_everything
from ..common.errors import BadInput
from ..common.files import read_tensors, write_tensors
from ..common.schemas import FIRST_CODE, Prefixes
from ..config.training import SftConfig
from ..inference.beam_search import answer_log_probs
from ..inference.recommender import StreamRec
from ..inference.step_decoder import StepDecoder
from ..inference.thinking import said_before, think_ahead
from ..model.backbone import Backbone, answer_inputs
from ..model.branches import decode_branches
from ..model.item_representation import targets
from ..model.item_vectors import ItemVectors
from ..tokenizer.semantic_ids import SemanticTokenizer
from .annotator import annotate, corrections, informativeness
from .dpo import dpo_loss, reference_log_probs
from .loop import Hooks, StopTraining, Task, Trained, TrainingJob, train
from .state_losses import align_loss, quantisation_loss, state_part, warm_up


def finetune_loss(
    model: Backbone,
    tokenizer,
    batch: Prefixes,
    thought: Tensor,
    rejected: Tensor,
    reference: Tensor,
    nearby: Tensor,
    config: SftConfig,
) -> dict[str, Tensor]:
    """Eq. 19: L = L_SFT + lambda L_DPO + mu L_Quant + delta L_State, and its parts.

    The paper learns answers and states after annotated thoughts, in the pass that learns the thoughts
    themselves. But these come from the target, and what reads them learns to believe them; alone with
    the history, the model then believes its own first guess. So we depart from it (``condition_on="own"``):
    thoughts are learned from the annotator, answers and states after thoughts that the model writes on
    the spot, from the same encoder states. They know no more than what reads them. To save time one half
    of the batch has its lesson in thinking, the other half its preferences.

    With ``learn_thoughts_after="own"`` thoughts, too, are learned after the model's own: at each step the
    one that the annotator would write next (Ross et al., 2011: an expert corrects what the learner really
    does). No second sequence is needed for that.

    Args:
        thought: (B, l) annotated code tokens.
        rejected: (B,) items of similar text, the dispreferred.
        reference: (B, 2) log pi_ref of the targets and of ``rejected``.
        nearby: (N, k) the items nearest by text to each.
    """
    states, mask = model.encode_history(tokenizer, batch.history)
    cross = model.cross(states, "thinking", mask)
    l, m, parts = thought.shape[1], tokenizer.m, {}
    own = config.condition_on == "own" and l > 0
    read = _write(model, states, mask, cross, l, config.thought_decoding) if own else thought
    corrected = own and config.learn_thoughts_after == "own"
    compared, taught = _shares(batch.n_examples, config.lam > 0, own and not corrected)
    inputs = answer_inputs(model, read, tokenizer.tokens[batch.target])
    branches = []
    if compared:
        branches.append((inputs.shape[1] - m + 1, tokenizer.tokens[rejected[:compared]][:, :-1]))
    if taught:  # the last thought is predicted, and read by nothing
        branches.append((1, thought[compared:, :-1]))
    hidden, more = decode_branches(model, inputs, branches, cross, mask)
    answer, items = hidden[:, -m:], batch.target
    if compared:
        answer, items = torch.cat([answer, more[0]]), torch.cat([items, rejected[:compared]])
    log_prob = answer_log_probs(model, tokenizer, answer, items, config.temperature)
    parts["answer"] = -log_prob[: batch.n_examples].mean()
    if compared:
        chosen, beaten = log_prob[:compared].sum(1), log_prob[batch.n_examples :].sum(1)
        parts["dpo"] = dpo_loss(chosen, beaten, *reference[:compared].T, config.dpo_beta).mean()
    hidden = hidden[:, : l + 1]
    s = model.states(hidden)  # s_0..s_l
    t = targets(model, tokenizer, batch.target).float()
    parts["state"] = state_part(model, tokenizer, batch, s, t, nearby, config)
    parts["align"] = align_loss(s, t)
    if taught:  # states after annotated thoughts come near t, too
        thought, hidden, t = thought[compared:], more[-1], t[compared:]
        s = model.states(hidden)  # s_0..s_{l-1}
        parts["align"] = parts["align"] + align_loss(s, t)
    if l and (taught or corrected or not own):
        before = read if corrected else thought
        gap = t[:, None] - s[:, :l]
        parts |= _thought_parts(model, hidden[:, :l], before, gap, config, corrected)
    return {"loss": sum(_weight(config, name) * value for name, value in parts.items()), **parts}


def _shares(rows: int, preferences: bool, lessons: bool) -> tuple[int, int]:
    """How many users of a batch read the dispreferred item, too, and how many have a lesson."""
    if preferences and lessons:
        return rows - rows // 2, rows // 2
    return rows * preferences, rows * lessons


def _thought_parts(
    model: Backbone, hidden: Tensor, before: Tensor, gap: Tensor, config: SftConfig, corrected: bool
) -> dict[str, Tensor]:
    """L_SFT of the thoughts and L_Quant: hidden (B, l, d), t - s_0..s_{l-1} (B, l, d).

    ``before``: the thoughts (B, l) that were read. They are to be learned, too, unless ``corrected``.
    """
    said = None if model.repeats else said_before(before, model.vocab_size)
    thought = corrections(model, gap, said) if corrected else before
    guess = model.thought_log_probs(hidden, config.temperature, said)
    parts = {"thoughts": -guess.gather(-1, (thought - FIRST_CODE)[..., None]).mean()}
    if config.mu > 0:
        residual = model.residual_head(gap)  # r_1..r_l
        parts["quant"] = quantisation_loss(residual, model.shared(thought).float(), config.quant_beta)
    return parts


@torch.no_grad()
def _write(model: Backbone, states: Tensor, mask: Tensor | None, cross: list, l: int, mode: str) -> Tensor:
    """The model's own thoughts (B, l), written without the decoder's dropout, as when it is asked."""
    decoder = model.decoders["thinking"]
    learns = decoder.training
    decoder.eval()
    stepper = StepDecoder(model, states, mask, "thinking", cross)
    thought = think_ahead(stepper, l, mode, finish=False).token[:, 0]
    decoder.train(learns)
    return thought


def _weight(config: SftConfig, part: str) -> float:
    names = {
        "thoughts": "thought_weight",
        "dpo": "lam",
        "quant": "mu",
        "state": "delta",
        "align": "align_weight",
    }
    return getattr(config, names[part]) if part in names else 1.0


def gradient_norms(model: Backbone, parts: dict[str, Tensor]) -> dict[str, float]:
    """How hard each part of the loss pulls, unweighted: {"gradient answer": norm over all weights, ...}."""
    weights = [p for p in model.parameters() if p.requires_grad]
    norms = {}
    for name, value in parts.items():
        if name != "loss":
            pulls = torch.autograd.grad(value, weights, retain_graph=True, allow_unused=True)
            total = sum(float(g.square().sum()) for g in pulls if g is not None)
            norms[f"gradient {name}"] = total**0.5
    return norms


def check_collapse(report: dict, first: dict, share: float = 0.25) -> None:
    """``StopTraining`` where thoughts have lost most of the variety that those of round 0 had at their best step.

    Both are reports of ``informativeness``. L_Quant can pull table and residuals together until a few
    codes serve everybody; L_SFT then looks ever better, since such thoughts are easy to predict.
    """
    now, once = max(report["entropy"]), max(first["entropy"])
    if now < share * once:
        remedy = "lower sft.mu or raise sft.delta"
        raise StopTraining(
            f"thoughts say nothing any more (entropy {now:.2f} bits, {once:.2f} in round 0); {remedy}"
        )


def check_model(model: Backbone, tokenizer) -> None:
    """``BadInput`` unless ``model`` can think about the tokenizer's catalogue."""
    if "thinking" not in model.decoders:
        raise BadInput(
            "the model to fine-tune", "it has no thinking decoder", "pretrain one (stage pretrain)"
        )
    if model.vocab_size != tokenizer.vocab_size:
        rule = f"its {model.vocab_size} tokens are not the tokenizer's {tokenizer.vocab_size}"
        raise BadInput("the model to fine-tune", rule, "pretrain one with this tokenizer")


def kept_tensors(path: Path, **shapes: tuple[int, ...]) -> dict[str, Tensor]:
    """What an earlier round or a killed run left at ``path``; ``BadInput`` if it is of other data."""
    found, _ = read_tensors(path)
    for name, shape in shapes.items():
        if name not in found or found[name].shape != shape:
            there = tuple(found[name].shape) if name in found else "nothing"
            rule = f"{name} must have the shape {shape}, one row a training prefix, and has {there}"
            raise BadInput(str(path), rule, "delete the file, or start again with --fresh")
    return found


def _equip(model: Backbone, tokenizer, settings: SftConfig) -> None:
    """What the pretrained ``model`` lacks, as ``settings`` say; only once pi_ref is on file."""
    if settings.item_vectors == "none":
        model.items = None
    elif model.items is None:
        model.items = ItemVectors.of(tokenizer, model.config.d_model)
    if model.items is not None:
        model.items.dropout, model.items.naming = (
            settings.item_vector_dropout,
            settings.item_vectors == "history-and-answer",
        )
    if settings.state_score_scale > 0:
        model.sharpness.requires_grad_(False).fill_(settings.state_score_scale)
    if settings.decoder_init == "direct":  # stage 1 taught the thinking decoder to believe hints
        model.decoders["thinking"].load_state_dict(model.decoders["direct"].state_dict())


def _traces(
    path: Path, model: Backbone, tokenizer, train: Prefixes, neighbours: Tensor, settings: SftConfig
) -> dict[str, Tensor]:
    """A round's annotations of all training prefixes (``annotator.Traces``), from ``path`` or made now."""
    device = train.target.device
    if not path.exists():
        with autocast(device, settings.precision):
            traces = annotate(model, tokenizer, train, settings.l, settings.annotator, neighbours)
        write_tensors(path, traces._asdict())
    found = kept_tensors(path, thought=(train.n_examples, settings.l))
    return {name: value.to(device) for name, value in found.items()}


def finetune(model: Backbone, job: TrainingJob, tokenizer: SemanticTokenizer, neighbours: Tensor) -> Trained:
    """Fine-tune the pretrained ``model`` by ``loop.train``; it is changed in place.

    Every ``epochs_per_round`` epochs all training prefixes are annotated anew by the model as it is
    then; the traces stay in ``work_dir`` as ``traces-ROUND.safetensors``.
    """
    job = job.on_device()
    work_dir, config, settings, device = job.work_dir, job.config, job.config.sft, job.device
    check_model(model, tokenizer)
    model.mark = settings.answer_token == "answer"
    model.repeats = settings.repeated_thoughts == "allowed"
    model, tokenizer = model.to(device), tokenizer.to(device)
    splits = job.splits
    neighbours = neighbours[:, : settings.similar_pool].to(device)
    path = work_dir / "reference.safetensors"  # pi_ref is the model as stage 1 left it
    if not path.exists():
        table = reference_log_probs(model, tokenizer, splits.train, neighbours)
        write_tensors(path, {"log_probs": table})
    shape = (splits.train.n_examples, 1 + neighbours.shape[1])
    table = kept_tensors(path, log_probs=shape)["log_probs"].to(device)
    _equip(model, tokenizer, settings)
    seed_everything(job.seed, "sft", "warm-up")
    warm_up(model, tokenizer, splits.train, settings.l)
    held: dict[str, Tensor] = {}

    def parts(model: Backbone, batch: Prefixes, *given: Tensor) -> dict[str, Tensor]:
        return finetune_loss(model, tokenizer, batch, *given, neighbours, settings)

    def given(batch: Prefixes, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        place = torch.randint(0, neighbours.shape[1], (batch.n_examples,)).to(device)
        reference = torch.stack([table[rows, 0], table[rows, 1 + place]], dim=1)
        return held["thought"][rows], neighbours[batch.target, place], reference

    def prepare(model: Backbone, epoch: int) -> dict:
        number, step = divmod(epoch - 1, settings.epochs_per_round)
        if held and step:
            return {}
        path = work_dir / f"traces-{number}.safetensors"
        held.update(_traces(path, model, tokenizer, splits.train, neighbours, settings))
        report = informativeness(held["thought"], tokenizer, splits.train.target)
        if number > 0 and settings.l > 0:
            first = read_tensors(work_dir / "traces-0.safetensors")[0]["thought"]
            check_collapse(report, informativeness(first, tokenizer, splits.train.target.cpu()))
        rows = torch.arange(min(256, splits.train.n_examples), device=device)
        batch = splits.train.select(rows)
        norms = gradient_norms(model, parts(model, batch, *given(batch, rows)))
        ranks = held["rank"].float().mean(0).tolist()
        return {"round": number, "norm": held["norm"].mean(0).tolist(), "rank": ranks, **report, **norms}

    def recommender(model: Backbone) -> StreamRec:
        return StreamRec(model, tokenizer, config.evaluate.beams, l=settings.l, think="greedy")

    hooks = Hooks(prepare, given, cuda_graph_safe=True)
    return train(Task("Fine-tuning", "sft", parts, recommender, hooks), model, job)
