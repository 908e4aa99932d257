"""Stage 2, the run (section 2.3): annotate, fine-tune on ``finetune_loss``, annotate anew.

pi_ref, to which L_DPO compares, is the direct decoder with its encoder as stage 1 left them.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from ..common.device import autocast, seed_everything
from ..common.errors import BadInput
from ..common.files import read_tensors, write_tensors
from ..common.schemas import Prefixes
from ..config.training import SftConfig
from ..inference.recommender import StreamRec
from ..model.backbone import Backbone
from ..model.item_vectors import ItemVectors
from ..tokenizer.semantic_ids import SemanticTokenizer
from .annotator import annotate, informativeness
from .checkpoint import read_checked_tensors
from .dpo import stored_reference_log_probs
from .finetune_loss import finetune_loss, gradient_norms
from .loop import Hooks, StopTraining, Task, Trained, TrainingJob, train
from .state_losses import warm_up_state_head

GRADIENT_EXAMPLES = 256  # training prefixes on which the log's gradient norms are measured


def finetune(
    model: Backbone,
    job: TrainingJob,
    tokenizer: SemanticTokenizer,
    neighbours: Tensor,
    thoughts: Tensor | None = None,
) -> Trained:
    """Fine-tune the pretrained ``model`` by ``loop.train``.

    Every ``sft.epochs_per_round`` epochs all training prefixes are annotated anew by the model at that
    time; the traces stay in the job's folder as ``traces-ROUND.safetensors``.

    Args:
        model: with both decoders; it is changed in place.
        job: data, settings, seed, folder and device.
        tokenizer: gives the items' codes.
        neighbours: (N, pool) items of most similar text to each, nearest first.
        thoughts: (n, l) of the training prefixes in place of the annotator's (``world_thoughts``).
    """
    job = job.on_device()
    settings, device, train_set = job.config.sft, job.splits.train.target.device, job.splits.train
    check_model(model, tokenizer)
    model.reads_answer_token = settings.answer_token == "answer"
    model.may_repeat_thoughts = settings.repeated_thoughts == "allowed"
    model, tokenizer = model.to(device), tokenizer.to(device)
    near = neighbours[:, : settings.similar_pool].to(device)
    path = job.work_dir / "reference.safetensors"  # written before the model changes
    log_pi_ref = stored_reference_log_probs(path, model, tokenizer, train_set, near)
    _configure_model(model, tokenizer, settings)
    if settings.head_warmup_steps:
        seed_everything(job.seed, "sft", "warm-up")
        warm_up_state_head(model, tokenizer, train_set, settings.l, steps=settings.head_warmup_steps)
    traces: dict[str, Tensor] = {}

    def loss(
        model: Backbone, batch: Prefixes, thought: Tensor, rejected: Tensor, reference: Tensor
    ) -> dict[str, Tensor]:
        return finetune_loss(model, tokenizer, batch, thought, rejected, reference, near, settings)

    def extra_inputs(batch: Prefixes, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        column = torch.randint(0, near.shape[1], (batch.n_examples,)).to(device)
        reference = torch.stack([log_pi_ref[rows, 0], log_pi_ref[rows, 1 + column]], dim=1)
        return traces["thought"][rows], near[batch.target, column], reference

    def prepare_epoch(model: Backbone, epoch: int) -> dict:
        number, step = divmod(epoch - 1, settings.epochs_per_round)
        if traces and step:
            return {}
        path = job.work_dir / f"traces-{number}.safetensors"
        traces.update(_stored_traces(path, model, tokenizer, train_set, near, settings, thoughts))
        report = informativeness(traces["thought"], tokenizer, train_set.target)
        if number > 0 and settings.l > 0:
            first = read_tensors(job.work_dir / "traces-0.safetensors")[0]["thought"]
            check_collapse(report, informativeness(first, tokenizer, train_set.target.cpu()))
        rows = torch.arange(min(GRADIENT_EXAMPLES, train_set.n_examples), device=device)
        batch = train_set.select(rows)
        norms = gradient_norms(model, loss(model, batch, *extra_inputs(batch, rows)))
        ranks = traces["rank"].float().mean(0).tolist()
        return {"round": number, "norm": traces["norm"].mean(0).tolist(), "rank": ranks, **report, **norms}

    def recommender(model: Backbone) -> StreamRec:
        return StreamRec(model, tokenizer, job.config.evaluate.beams, l=settings.l, think="greedy")

    hooks = Hooks(prepare_epoch, extra_inputs, cuda_graph_safe=True)
    return train(Task("Fine-tuning", "sft", loss, recommender, hooks), model, job)


def check_model(model: Backbone, tokenizer: SemanticTokenizer) -> None:
    """``BadInput`` unless ``model`` has a thinking decoder, and as many tokens as the tokenizer."""
    if "thinking" not in model.decoders:
        raise BadInput(
            "the model to fine-tune", "it has no thinking decoder", "pretrain one (stage pretrain)"
        )
    if model.vocab_size != tokenizer.vocab_size:
        rule = f"its {model.vocab_size} tokens are not the tokenizer's {tokenizer.vocab_size}"
        raise BadInput("the model to fine-tune", rule, "pretrain one with this tokenizer")


def check_collapse(report: dict, first: dict, share: float = 0.25) -> None:
    """``StopTraining`` if the thoughts' largest entropy has fallen below ``share`` of that in round 0.

    Both are reports of ``informativeness``. L_Quant can pull code embeddings and residuals together until
    a few codes serve all users. L_SFT then falls, because such thoughts are easy to predict.
    """
    now, once = max(report["entropy"]), max(first["entropy"])
    if now < share * once:
        remedy = "lower sft.mu or raise sft.delta"
        raise StopTraining(
            f"thoughts say nothing any more (entropy {now:.2f} bits, {once:.2f} in round 0); {remedy}"
        )


def _configure_model(model: Backbone, tokenizer: SemanticTokenizer, settings: SftConfig) -> None:
    """Give the pretrained ``model`` the parts that ``settings`` ask for; pi_ref must be stored before."""
    if settings.item_vectors == "none":
        model.item_vectors = None
    elif model.item_vectors is None:
        model.item_vectors = ItemVectors.of(tokenizer, model.config.d_model)
    if model.item_vectors is not None:
        model.item_vectors.dropout = settings.item_vector_dropout
        model.item_vectors.in_answer_logits = settings.item_vectors == "history-and-answer"
    model.raw_states = settings.state_sum == "raw"
    if settings.state_score_scale > 0:
        model.state_score_scale.requires_grad_(False).fill_(settings.state_score_scale)
    if settings.decoder_init == "direct":  # stage 1 trained the thinking decoder to trust leaked hints
        model.decoders["thinking"].load_state_dict(model.decoders["direct"].state_dict())


def _stored_traces(
    path: Path,
    model: Backbone,
    tokenizer: SemanticTokenizer,
    train_set: Prefixes,
    neighbours: Tensor,
    settings: SftConfig,
    thoughts: Tensor | None,
) -> dict[str, Tensor]:
    """The fields of a round's ``annotator.Traces`` by name, read from ``path`` or made and written now."""
    device = train_set.target.device
    if not path.exists():
        with autocast(device, settings.precision):
            made = annotate(
                model, tokenizer, train_set, settings.l, settings.annotator, neighbours, thoughts=thoughts
            )
        write_tensors(path, made._asdict())
    found = read_checked_tensors(path, thought=(train_set.n_examples, settings.l))
    return {name: value.to(device) for name, value in found.items()}
