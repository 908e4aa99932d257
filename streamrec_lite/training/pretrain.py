"""Stage 1, pretraining (section 2.2): two decoders are trained on one encoder.

The thinking decoder is trained to write the codes of a few items whose text resembles the target's, then the
target's own codes (eq. 9). The direct decoder is trained to write the target's codes at once; with this
encoder, frozen, it is the reference policy pi_ref of the later stages.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..common.device import seed_everything
from ..common.schemas import FIRST_CODE, Prefixes
from ..config.training import PretrainConfig
from ..inference.beam_search import answer_log_probs
from ..inference.recommender import StreamRec
from ..model.backbone import Backbone
from ..model.item_vectors import ItemVectors
from ..model.sequences import shift_right, token_loss
from ..tokenizer.semantic_ids import SemanticTokenizer
from .loop import Hooks, Task, Trained, TrainingJob, train
from .optim import use_byte_dropout


def pretrain_loss(
    model: Backbone, tokenizer: SemanticTokenizer, batch: Prefixes, similar: Tensor, config: PretrainConfig
) -> dict[str, Tensor]:
    """Eq. 10 for both decoders, each term a mean over its codes, or their sum (``config.token_losses``).

    Args:
        model: with both decoders.
        tokenizer: gives the items' codes.
        batch: B examples.
        similar: (B, n) items, written in this order before the target: q = n*m tokens.
        config: the temperature of eq. 11, mean or sum.

    Returns:
        "loss" = direct + similar + answer, and the three terms.
    """
    tau, how = config.temperature, config.token_losses
    states, mask = model.encode_history(tokenizer, batch.history)
    answer = tokenizer.tokens[batch.target]  # (B, m)
    hidden = model.decode(shift_right(answer), states, mask, "direct")
    direct_nll = token_loss(-answer_log_probs(model, tokenizer, hidden, batch.target, tau), how)

    thoughts = tokenizer.tokens[similar].flatten(1)  # (B, q)
    q = thoughts.shape[1]
    hidden = model.decode(shift_right(torch.cat([thoughts, answer], dim=1)), states, mask, "thinking")
    log_probs = model.thought_log_probs(hidden[:, :q], tau)
    similar_nll = token_loss(-log_probs.gather(-1, (thoughts - FIRST_CODE)[..., None])[..., 0], how)
    answer_nll = token_loss(-answer_log_probs(model, tokenizer, hidden[:, q:], batch.target, tau), how)
    loss = direct_nll + similar_nll + answer_nll
    return {"loss": loss, "direct": direct_nll, "similar": similar_nll, "answer": answer_nll}


def draw_similar(neighbours: Tensor, items: Tensor, count: int) -> Tensor:
    """``count`` different random neighbours of each item: neighbours (N, pool), items (B,) -> (B, count)."""
    pool = neighbours[items]
    column = torch.rand(pool.shape, device=pool.device).argsort(dim=1)[:, :count]
    return pool.gather(1, column)


def pretrain(job: TrainingJob, tokenizer: SemanticTokenizer, neighbours: Tensor) -> Trained:
    """Train both decoders by ``loop.train``; the direct decoder's validation N@10 decides when it ends.

    Args:
        job: data, settings, seed, folder and device.
        tokenizer: gives the items' codes.
        neighbours: (N, pool) items of most similar text to each (``embeddings.similar_items``). For every
            example of every epoch ``pretrain.n_similar`` of them are drawn.
    """
    job = job.on_device()
    device, config, settings = job.device, job.config, job.config.pretrain
    seed_everything(job.seed, "pretrain", "weights")
    model = Backbone(config.backbone, tokenizer.vocab_size, ("direct", "thinking"))
    model = use_byte_dropout(model, device).to(device)
    tokenizer, neighbours = tokenizer.to(device), neighbours.to(device)
    if settings.item_vectors != "none":
        in_answer_logits = settings.item_vectors == "history-and-answer"
        model.item_vectors = ItemVectors.of(
            tokenizer, config.backbone.d_model, settings.item_vector_dropout, in_answer_logits
        )

    task = Task(
        name="Pretraining",
        section="pretrain",
        loss=lambda model, batch, similar: pretrain_loss(model, tokenizer, batch, similar, settings),
        recommender=lambda model: StreamRec(model, tokenizer, beams=config.evaluate.beams),
        hooks=Hooks(
            extra_inputs=lambda batch, rows: (draw_similar(neighbours, batch.target, settings.n_similar),),
            cuda_graph_safe=True,
        ),
    )
    return train(task, model, job)
